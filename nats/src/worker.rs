//! The batch worker of a service: pulls the envelopes that are ready, has their items handled in one transaction, sends
//! the replies, acknowledges.
//!
//! A batch that cannot be handled is split until the poison stands alone; that item is dead-lettered with its reason and
//! answered `dead`, and the others proceed. An envelope is acknowledged when each of its items is handled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use eventicket_contracts::Clock;
use eventicket_contracts::envelope::{Answer, Envelope, Item, Reply, unreadable};
use eventicket_contracts::subjects;
use eventicket_planted::Fault as Planted;
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::command::{Commands, Delivered, Fault, Handled};
use crate::dead::{dead_item, dead_letter};
use crate::figures::Figures;
use crate::pace::Pace;
use crate::publish::reply_messages;
use crate::pull::{ConsumerSpec, Message, Pull};
use crate::trace::{BatchSpans, trace_id};
use crate::{Nats, SetupError, StreamLimits};

/// Messages taken at once.
const MESSAGES: usize = 256;
/// Batches whose replies may be on their way while the next one is handled.
const FINISHING: usize = 4;
/// First and longest delay between two tries of a batch whose dependency is away.
const DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// When a message comes again whose replies were not stored, doubled with each delivery up to the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A message that was delivered so often without an end takes its process down with it; it is dead-lettered unseen.
const DELIVERIES: u64 = 20;

/// Bounds of a worker.
#[derive(Clone, Debug)]
pub struct WorkerLimits {
    /// Sizes of the streams, should one have to be made again.
    pub limits: StreamLimits,
    /// Most items of one batch, an envelope that is begun included whole.
    pub batch: usize,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { limits: StreamLimits::default(), batch: 512 }
    }
}

/// Works off a service's commands until shutdown, then finishes what it holds.
///
/// # Errors
/// Stream or consumer cannot be set up at the start.
pub async fn run_worker<C: Commands>(
    nats: Nats,
    commands: Arc<C>,
    limits: WorkerLimits,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), SetupError> {
    let spec = ConsumerSpec {
        stream: C::SERVICE.stream(),
        durable: C::SERVICE.name().to_owned(),
        filter: C::SERVICE.commands(),
        ..ConsumerSpec::default()
    };
    let mut pull = Pull::open(nats.clone(), spec, limits.limits.clone(), shutdown.clone()).await?;
    let (finishing, figures) = (Arc::new(Semaphore::new(FINISHING)), Arc::new(Figures::new(C::SERVICE)));
    let mut pace = Pace::default();
    while let Some(messages) = pull.next(MESSAGES).await {
        let mut letters = Vec::new();
        for message in messages {
            letters.extend(open::<C>(&nats, message).await);
        }
        pace.took(letters.iter().map(|letter| letter.items.len()).sum());
        for batch in batches(letters, limits.batch) {
            let started = clock.now();
            let Some(done) = handle(&*commands, batch, &figures, &shutdown).await else { break };
            figures.seconds.record(clock.now().since(started).as_secs_f64());
            let Ok(permit) = finishing.clone().acquire_owned().await else { return Ok(()) };
            let (nats, figures) = (nats.clone(), Arc::clone(&figures));
            tokio::spawn(async move {
                finish::<C>(&nats, done, &figures).await;
                drop(permit);
            });
        }
        shutdown.run_until_cancelled(pace.begin()).await;
    }
    // The replies that are on their way.
    let _ = finishing.acquire_many(FINISHING as u32).await;
    Ok(())
}

/// An envelope that was opened.
struct Letter {
    message: Message,
    items: Vec<Delivered>,
}

/// A batch that was handled.
struct Done {
    /// The messages, each with the number of its items.
    messages: Vec<(Message, usize)>,
    /// In the messages' order.
    items: Vec<Delivered>,
    /// One an item.
    handled: Vec<Handled>,
    spans: BatchSpans,
}

/// Reads an envelope. One that cannot be read, or whose action or shard the service does not know, is dead-lettered whole.
async fn open<C: Commands>(nats: &Nats, message: Message) -> Option<Letter> {
    let service = C::SERVICE;
    let parsed = subjects::parse_command(&message.subject).map(|(_, action, shard)| (action.to_owned(), shard));
    let action = parsed.as_ref().map_or("unknown", |(a, _)| a.as_str()).to_owned();
    let deliveries = message.info().map_or(1, |i| u64::try_from(i.delivered).unwrap_or(1));
    let known = parsed.is_some_and(|(a, shard)| service.actions().contains(&a.as_str()) && shard < service.shards());
    let envelope = serde_json::from_slice::<Envelope<Item>>(&message.payload);
    let header = message.headers.as_ref().and_then(|h| h.get(subjects::HEADER_REPLY)).map(ToString::to_string);
    // A reply that no stream takes would keep its whole batch from being acknowledged.
    let (reply_to, astray) = match header {
        Some(subject) if !subjects::is_reply(&subject) => (None, Some(subject)),
        header => (header, None),
    };
    let reply_to = reply_to.unwrap_or_else(|| subjects::reply(0));
    let (items, reason) = match envelope {
        Err(error) => (Vec::new(), Some(unreadable(&message.payload, "commands", &error))),
        Ok(envelope) => {
            let reason = if !known {
                Some(format!("{} takes no {action} on {}", service.name(), message.subject))
            } else if let Some(flaw) = envelope.flaw(message.payload.len()) {
                Some(flaw)
            } else if deliveries > DELIVERIES {
                Some(format!("delivered {deliveries} times without an end"))
            } else {
                astray.map(|subject| format!("no answer goes to {subject}"))
            };
            (envelope.items, reason)
        }
    };
    let delivered = |item| Delivered { action: action.clone(), item, reply_to: reply_to.clone(), deliveries };
    let items: Vec<Delivered> = items.into_iter().map(delivered).collect();
    let Some(reason) = reason else { return Some(Letter { message, items }) };
    match dead_letter(nats, service.name(), &action, &message, &reason).await {
        Ok(()) => {
            nats.send_replies(items.into_iter().map(|d| reply(d, Answer::Dead(reason.clone()), None)).collect()).await;
            ack(&message).await;
        }
        Err(error) => tracing::warn!(%error, "the message comes again"),
    }
    None
}

/// Groups letters into batches of about `most` items.
fn batches(letters: Vec<Letter>, most: usize) -> Vec<Vec<Letter>> {
    let mut batches: Vec<Vec<Letter>> = Vec::new();
    let mut size = usize::MAX;
    for letter in letters {
        if size >= most {
            batches.push(Vec::new());
            size = 0;
        }
        size += letter.items.len().max(1);
        if let Some(last) = batches.last_mut() {
            last.push(letter);
        }
    }
    batches
}

/// `None`: shutdown came while a dependency was away; the messages go to another replica.
async fn handle<C: Commands>(
    commands: &C,
    letters: Vec<Letter>,
    figures: &Figures,
    shutdown: &CancellationToken,
) -> Option<Done> {
    let (mut messages, mut items) = (Vec::with_capacity(letters.len()), Vec::new());
    for letter in letters {
        messages.push((letter.message, letter.items.len()));
        items.extend(letter.items);
    }
    figures.items.record(items.len() as f64);
    let spans = BatchSpans::begin(C::SERVICE.name(), &mut items);
    let handled = if items.is_empty() { Some(Vec::new()) } else { split(commands, &items, figures, shutdown).await };
    let Some(handled) = handled else {
        give_back(messages.into_iter().map(|(message, _)| message).collect(), |_| None).await;
        return None;
    };
    Some(Done { messages, items, handled, spans })
}

/// Handles a batch; where it is broken, its halves, down to the item that is to blame.
fn split<'a, C: Commands>(
    commands: &'a C,
    batch: &'a [Delivered],
    figures: &'a Figures,
    shutdown: &'a CancellationToken,
) -> std::pin::Pin<Box<dyn Future<Output = Option<Vec<Handled>>> + Send + 'a>> {
    Box::pin(async move {
        let reason = match attempt(commands, batch, figures, shutdown).await? {
            Ok(handled) => return Some(handled),
            Err(reason) => reason,
        };
        if let [_] = batch {
            return Some(vec![Handled::Dead(reason)]);
        }
        figures.splits.increment(1);
        tracing::warn!(service = C::SERVICE.name(), reason, items = batch.len(), "a batch is split");
        let (left, right) = batch.split_at(batch.len() / 2);
        let mut handled = split(commands, left, figures, shutdown).await?;
        handled.extend(split(commands, right, figures, shutdown).await?);
        Some(handled)
    })
}

/// One batch, tried again as long as its dependencies are away; the error says why it is broken. A panic breaks the batch,
/// not the worker.
async fn attempt<C: Commands>(
    commands: &C,
    batch: &[Delivered],
    figures: &Figures,
    shutdown: &CancellationToken,
) -> Option<Result<Vec<Handled>, String>> {
    let mut delay = DELAY.0;
    loop {
        let outcome = AssertUnwindSafe(commands.handle(batch)).catch_unwind().await;
        match outcome {
            Ok(Ok(handled)) if handled.len() == batch.len() => return Some(Ok(handled)),
            Ok(Ok(handled)) => {
                return Some(Err(format!("{} of {} items were answered", handled.len(), batch.len())));
            }
            Ok(Err(Fault::Broken(reason))) => return Some(Err(reason)),
            Err(panic) => return Some(Err(Fault::of_panic(&*panic).to_string())),
            Ok(Err(Fault::Transient(reason))) if Planted::FaultsAreSplit.is_planted() => return Some(Err(reason)),
            Ok(Err(Fault::Transient(reason))) => {
                figures.retries.increment(1);
                tracing::warn!(service = C::SERVICE.name(), reason, items = batch.len(), "a batch is tried again");
                shutdown.run_until_cancelled(tokio::time::sleep(delay)).await?;
                delay = (delay * 2).min(DELAY.1);
            }
        }
    }
}

/// Dead-letters what must be, sends the replies, acknowledges. A letter of which something was not stored comes again.
async fn finish<C: Commands>(nats: &Nats, done: Done, figures: &Figures) {
    let Done { messages, items, handled, spans } = done;
    figures.count(&items, &handled);
    let traces: Vec<Option<String>> = (0..items.len()).map(|at| spans.of(at)).collect();
    spans.end(|at| match handled.get(at) {
        Some(Handled::Dead(reason)) => Some(reason.clone()),
        Some(Handled::Answer(Answer::Retry(code))) => Some(code.clone()),
        _ => None,
    });
    let mut replies = Vec::with_capacity(items.len());
    let (mut acks, mut unburied) = (Vec::with_capacity(messages.len()), Vec::new());
    let mut answered = items.into_iter().zip(handled).zip(traces);
    for (message, number) in messages {
        let mut whole = true;
        for ((delivered, handled), trace) in answered.by_ref().take(number) {
            let Item { key, trace: given, .. } = &delivered.item;
            tracing::debug!(saga = %key.saga, step = key.step, trace_id = trace_id(given.as_deref()), "handled");
            match handled {
                Handled::Answer(answer) => replies.push(reply(delivered, answer, trace)),
                Handled::Later => {}
                Handled::Dead(reason) => {
                    let (service, action) = (C::SERVICE.name(), &delivered.action);
                    match dead_item(nats, service, action, &message, &delivered.item, &reason).await {
                        Ok(()) => replies.push(reply(delivered, Answer::Dead(reason), trace)),
                        Err(error) => {
                            tracing::warn!(%error, "the envelope comes again");
                            whole = false;
                        }
                    }
                }
            }
        }
        if whole { acks.push(message) } else { unburied.push(message) }
    }
    give_back(unburied, again).await;
    for result in nats.publish_all(reply_messages(replies)).await {
        if let Err(error) = result {
            // The commands come again, and their recorded answers with them.
            tracing::warn!(%error, "replies were not stored; their commands come again");
            give_back(acks, again).await;
            return;
        }
    }
    for message in acks {
        ack(&message).await;
    }
}

/// Has messages come again after a time that follows from their deliveries, or at once; not only when their time to be
/// acknowledged is over.
async fn give_back(messages: Vec<Message>, after: fn(i64) -> Option<Duration>) {
    for message in messages {
        let deliveries = message.info().map_or(1, |info| info.delivered);
        if let Err(error) = message.ack_with(AckKind::Nak(after(deliveries))).await {
            tracing::debug!(%error, "a message was not given back; it comes again by itself");
            return;
        }
    }
}

fn again(deliveries: i64) -> Option<Duration> {
    let doublings = u32::try_from(deliveries - 1).unwrap_or(0).min(16);
    Some((AGAIN.0 * 2_u32.pow(doublings)).min(AGAIN.1))
}

fn reply(to: Delivered, answer: Answer, trace: Option<String>) -> (String, Reply) {
    let Item { key, half, attempt, .. } = to.item;
    (to.reply_to, Reply { key, half, attempt, answer, trace })
}

async fn ack(message: &Message) {
    if let Err(error) = message.ack().await {
        tracing::debug!(%error, "an acknowledgement was lost; the message comes again");
    }
}
