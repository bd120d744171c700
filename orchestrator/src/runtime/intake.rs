//! What comes in: replies from JetStream, starts and actions as core NATS requests. Each queue has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::Subject;
use eventicket_contracts::envelope::{Envelope, Reply};
use eventicket_contracts::sagas::{Act, StartAnswer, StartSaga};
use eventicket_contracts::{SagaId, subjects};
use eventicket_nats::{ConsumerSpec, Message, Nats, Pull, StreamLimits, dead_letter};
use eventicket_saga::Input;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Most starts that wait for a turn; beyond it the asker is told to come back.
pub const MAX_STARTS: usize = 4_096;
/// Most messages of replies that wait for a turn.
const MAX_REPLIES: usize = 512;
/// Most other inputs that wait for a turn.
const MAX_OTHERS: usize = 4_096;
/// When a refused start is worth another try.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Queue group of the orchestrator's replicas.
const GROUP: &str = "orchestrator";
/// Service and action under which replies are dead-lettered.
pub const REPLY_LETTERS: (&str, &str) = (GROUP, "reply");

/// One input for a turn.
#[derive(Debug)]
pub enum Work {
    /// An item of a message of replies.
    Reply(Reply, Arc<Unacked>),
    /// An action from outside with where its answer goes.
    Act(Act, Option<Subject>),
    /// An input from within.
    Poke(SagaId, Input),
    /// A saga whose dispatcher is dead.
    Adopt(SagaId),
    /// A probe of a half-open breaker.
    Probe(SagaId, String),
    /// A new saga with where its answer goes.
    Start(Box<StartSaga>, Option<Subject>),
}

/// A message of replies, acknowledged when each of its items is handled.
pub struct Unacked {
    message: Message,
    open: AtomicUsize,
}

impl std::fmt::Debug for Unacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unacked({})", self.open.load(Ordering::Relaxed))
    }
}

impl Unacked {
    /// One more of its items is handled; acknowledges it with the last one.
    pub async fn handled(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Err(error) = self.message.ack().await
        {
            tracing::debug!(%error, "an acknowledgement was lost; the message comes again");
        }
    }

    /// The message, for a dead letter.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

/// The receiving ends.
pub struct Intake {
    /// Replies come first.
    pub replies: mpsc::Receiver<Work>,
    /// Then actions, timers, adoptions.
    pub others: mpsc::Receiver<Work>,
    /// Then new sagas.
    pub starts: mpsc::Receiver<Work>,
    /// For inputs from within.
    pub poke: mpsc::Sender<Work>,
}

/// Starts the tasks that fill the queues.
///
/// # Errors
/// NATS refuses a subscription or a consumer.
pub async fn open(nats: &Nats, limits: &StreamLimits, shutdown: &CancellationToken) -> anyhow::Result<Intake> {
    let (reply_tx, replies) = mpsc::channel(MAX_REPLIES);
    let (poke, others) = mpsc::channel(MAX_OTHERS);
    let (start_tx, starts) = mpsc::channel(MAX_STARTS);
    let spec = ConsumerSpec {
        stream: subjects::REPLIES_STREAM.to_owned(),
        durable: GROUP.to_owned(),
        filter: subjects::REPLIES.to_owned(),
        ..ConsumerSpec::default()
    };
    let pull = Pull::open(nats.clone(), spec, limits.clone(), shutdown.clone()).await?;
    tokio::spawn(pull_replies(nats.clone(), pull, reply_tx));
    let start_sub = nats.subscriber().queue_subscribe(subjects::START, GROUP.to_owned()).await?;
    let act_sub = nats.subscriber().queue_subscribe(subjects::ACT, GROUP.to_owned()).await?;
    tokio::spawn(take_starts(nats.clone(), start_sub, start_tx, shutdown.clone()));
    tokio::spawn(take_acts(act_sub, poke.clone(), shutdown.clone()));
    nats.subscriber().flush().await?;
    Ok(Intake { replies, others, starts, poke })
}

async fn pull_replies(nats: Nats, mut pull: Pull, out: mpsc::Sender<Work>) {
    while let Some(messages) = pull.next(MAX_REPLIES).await {
        for message in messages {
            let items = match serde_json::from_slice::<Envelope<Reply>>(&message.payload) {
                Ok(envelope) if envelope.v == eventicket_contracts::envelope::VERSION => envelope.items,
                Ok(envelope) => {
                    bury(&nats, &message, &format!("envelope version {} is not known", envelope.v)).await;
                    continue;
                }
                Err(error) => {
                    bury(&nats, &message, &format!("not an envelope of replies: {error}")).await;
                    continue;
                }
            };
            // One more than there are items, so that an empty envelope is acknowledged, too.
            let unacked = Arc::new(Unacked { message, open: AtomicUsize::new(items.len() + 1) });
            for reply in items {
                if out.send(Work::Reply(reply, unacked.clone())).await.is_err() {
                    return;
                }
            }
            unacked.handled().await;
        }
    }
}

async fn bury(nats: &Nats, message: &Message, reason: &str) {
    match dead_letter(nats, REPLY_LETTERS.0, REPLY_LETTERS.1, message, reason).await {
        Ok(()) => {
            let _ = message.ack().await;
        }
        Err(error) => tracing::warn!(%error, "a dead letter was not stored; the message comes again"),
    }
}

async fn take_starts(
    nats: Nats,
    mut sub: async_nats::Subscriber,
    out: mpsc::Sender<Work>,
    shutdown: CancellationToken,
) {
    while let Some(message) = tokio::select! { m = sub.next() => m, () = shutdown.cancelled() => None } {
        let answer = match serde_json::from_slice::<StartSaga>(&message.payload) {
            Ok(start) => match out.try_send(Work::Start(Box::new(start), message.reply.clone())) {
                Ok(()) => continue,
                Err(mpsc::error::TrySendError::Closed(_)) => break,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    StartAnswer::Busy { retry_after_ms: RETRY_AFTER.as_millis() as u64 }
                }
            },
            Err(error) => StartAnswer::Refused { code: "malformed".into(), message: error.to_string() },
        };
        respond(&nats, message.reply, &answer).await;
    }
    let _ = sub.unsubscribe().await;
}

async fn take_acts(mut sub: async_nats::Subscriber, out: mpsc::Sender<Work>, shutdown: CancellationToken) {
    while let Some(message) = tokio::select! { m = sub.next() => m, () = shutdown.cancelled() => None } {
        match serde_json::from_slice::<Act>(&message.payload) {
            Ok(act) => {
                if out.send(Work::Act(act, message.reply)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "an action that cannot be read was dropped"),
        }
    }
}

/// Answers a core NATS request; a lost answer is asked for again.
pub async fn respond(nats: &Nats, to: Option<Subject>, answer: &impl serde::Serialize) {
    let Some(to) = to else { return };
    let payload = serde_json::to_vec(answer).unwrap_or_default();
    if let Err(error) = nats.publisher().publish(to, payload.into()).await {
        tracing::debug!(%error, "an answer was lost");
    }
}
