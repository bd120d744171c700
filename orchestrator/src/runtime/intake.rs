//! What comes in: replies from JetStream, starts and actions as core NATS requests. Each queue has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::Subject;
use eventicket_contracts::envelope::{Envelope, Reply, unreadable};
use eventicket_contracts::sagas::{Act, ActAnswer, Action, AnsweredStart, StartAnswer, StartSaga};
use eventicket_contracts::{SagaId, subjects};
use eventicket_nats::{ConsumerSpec, Message, Nats, Pull, StreamLimits, dead_letter};
use eventicket_saga::Input;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::door::Door;

/// Most starts that wait for a turn; beyond it the asker is told to come back.
pub const MAX_STARTS: usize = 4_096;
/// Most messages of replies that wait for a turn.
const MAX_REPLIES: usize = 512;
/// Most other inputs that wait for a turn.
const MAX_OTHERS: usize = 4_096;
/// When a refused start is worth another try.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How deep the output may nest that an operator brings: much less than what can be shown within other JSON.
const MAX_DEPTH: usize = 64;
/// Queue group of the orchestrator's replicas.
const GROUP: &str = "orchestrator";
/// Service and action under which replies are dead-lettered.
pub const REPLY_LETTERS: (&str, &str) = (GROUP, "reply");

/// One input for a turn. `M` is the message that a reply came in.
#[derive(Debug)]
pub enum Work<M = Arc<Unacked>> {
    /// An item of a message of replies.
    Reply(Reply, M),
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
pub async fn open(
    nats: &Nats,
    limits: &StreamLimits,
    door: Arc<Door>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Intake> {
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
    tokio::spawn(take_starts(nats.clone(), start_sub, start_tx, door, shutdown.clone()));
    tokio::spawn(take_acts(nats.clone(), act_sub, poke.clone(), shutdown.clone()));
    nats.subscriber().flush().await?;
    Ok(Intake { replies, others, starts, poke })
}

async fn pull_replies(nats: Nats, mut pull: Pull, out: mpsc::Sender<Work>) {
    while let Some(messages) = pull.next(MAX_REPLIES).await {
        for message in messages {
            let items = match replies(&message.payload) {
                Ok(items) => items,
                Err(reason) => {
                    bury(&nats, &message, &reason).await;
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

/// The replies of an envelope, or why it cannot be taken.
fn replies(payload: &[u8]) -> Result<Vec<Reply>, String> {
    match serde_json::from_slice::<Envelope<Reply>>(payload) {
        Ok(envelope) => envelope.flaw(payload.len()).map_or(Ok(envelope.items), Err),
        Err(error) => Err(unreadable(payload, "replies", &error)),
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
    door: Arc<Door>,
    shutdown: CancellationToken,
) {
    while let Some(message) = tokio::select! { m = sub.next() => m, () = shutdown.cancelled() => None } {
        door.asked(message.reply.as_ref());
        let (mut flawed, mut refused) = (Vec::new(), Vec::new());
        for start in starts_of(&message.payload) {
            match start {
                Ok(start) if door.lets_in(&start) => {
                    match out.try_send(Work::Start(Box::new(start), message.reply.clone())) {
                        Err(TrySendError::Full(Work::Start(start, _))) => refused.push(*start),
                        Err(TrySendError::Closed(_)) => break,
                        Ok(()) | Err(TrySendError::Full(_)) => {}
                    }
                }
                Ok(start) => refused.push(start),
                Err((id, message)) => {
                    let answer = StartAnswer::Refused { code: "malformed".into(), message };
                    flawed.push(AnsweredStart { id, answer });
                }
            }
        }
        if !flawed.is_empty() {
            respond(&nats, message.reply.clone(), &Envelope::new(flawed)).await;
        }
        if !refused.is_empty() {
            door.refuse(refused, message.reply).await;
        }
    }
    let _ = sub.unsubscribe().await;
}

/// The starts of a message; one that cannot be read does not stop the others.
fn starts_of(payload: &[u8]) -> Vec<Result<StartSaga, (SagaId, String)>> {
    let nameless = |reason: String| vec![Err((SagaId(Uuid::nil()), reason))];
    let (envelope, error) = match serde_json::from_slice::<Envelope<StartSaga>>(payload) {
        Ok(envelope) => match envelope.flaw(payload.len()) {
            None => return envelope.items.into_iter().map(Ok).collect(),
            Some(flaw) => return envelope.items.into_iter().map(|start| Err((start.id, flaw.clone()))).collect(),
        },
        Err(error) => (serde_json::from_slice::<Envelope<Value>>(payload), error),
    };
    let start = |item: Value| {
        let id = SagaId::deserialize(&item["id"]).unwrap_or(SagaId(Uuid::nil()));
        serde_json::from_value(item).map_err(|error| (id, error.to_string()))
    };
    match envelope {
        Ok(envelope) => envelope.items.into_iter().map(start).collect(),
        Err(_) => nameless(unreadable(payload, "starts", &error)),
    }
}

async fn take_acts(nats: Nats, mut sub: async_nats::Subscriber, out: mpsc::Sender<Work>, shutdown: CancellationToken) {
    while let Some(message) = tokio::select! { m = sub.next() => m, () = shutdown.cancelled() => None } {
        match action(&message.payload) {
            Ok(act) => {
                if out.send(Work::Act(act, message.reply)).await.is_err() {
                    return;
                }
            }
            Err(why) => {
                let answer = ActAnswer::Conflict { code: "malformed".into(), message: why };
                respond(&nats, message.reply, &answer).await;
            }
        }
    }
}

/// The action that is asked for, or why it cannot be taken.
fn action(payload: &[u8]) -> Result<Act, String> {
    let act: Act = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    match &act.action {
        Action::Skip { output } if !output.nests_within(MAX_DEPTH).unwrap_or(false) => {
            Err(format!("the output nests deeper than {MAX_DEPTH}"))
        }
        _ => Ok(act),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth)
            .fold(Value::Null, |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "in": inner }) })
    }

    #[test]
    fn an_action_whose_output_no_saga_can_keep_is_refused() {
        let skip = |depth| {
            let skip = json!({ "saga": SagaId::fresh(), "owner": null, "actor": "a", "reason": "b",
                "action": { "skip": { "output": nested(depth) } } });
            action(&serde_json::to_vec(&skip).unwrap()).map(|act| act.action)
        };
        assert_eq!(skip(MAX_DEPTH), Ok(Action::Skip { output: nested(MAX_DEPTH).into() }));
        assert_eq!(skip(MAX_DEPTH + 1), Err("the output nests deeper than 64".to_owned()));
        assert!(action(b"\xff").is_err() && action(b"{}").is_err());
    }

    #[test]
    fn replies_are_taken_from_an_envelope_of_this_version_and_size() {
        let envelope = |v: u32, items: usize| {
            let reply =
                json!({ "key": format!("{}:PAY:1", SagaId::fresh()), "half": "do", "attempt": 1, "answer": "expired" });
            replies(json!({ "v": v, "items": vec![reply; items] }).to_string().as_bytes()).map(|replies| replies.len())
        };
        assert_eq!([envelope(1, 0), envelope(1, 256)], [Ok(0), Ok(256)]);
        assert!(envelope(1, 257).unwrap_err().starts_with("an envelope of 257 items is too large"));
        assert_eq!(envelope(2, 1).unwrap_err(), "envelope version 2 is not known");
        assert!(replies(b"").unwrap_err().starts_with("not an envelope of replies"));
    }
}
