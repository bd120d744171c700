//! Commits what was seen at the gateway: whatever is ready in one transaction, then the replies leave.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::envelope::{DomainEvent, Key, Reply};
use eventicket_contracts::payments::FailedRefund;
use eventicket_contracts::{Clock, SagaId, Timestamp};
use eventicket_nats::outbox::NewEvent;
use eventicket_nats::{Fault, Nats};
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::charge::{Charge, State};
use crate::store::{Batch, Store};
use crate::watch;

/// Changes that may wait for the next transaction.
pub(crate) const WAITING: usize = 4_096;
/// Most changes of one transaction.
const BATCH: usize = 512;
/// Batches of replies that may wait to leave; beyond them the orchestrator has to ask again.
pub(crate) const REPLIES: usize = 256;
/// Between two tries of a transaction.
const RETRY: Duration = Duration::from_millis(100);
/// Tries after shutdown; the next start asks the gateway again.
const LAST_TRIES: u32 = 3;

/// The aggregate's name in events.
const PAYMENT: &str = "payment";

/// A change of a row, or a new one.
struct Write {
    before: Charge,
    after: Charge,
    /// The webhook that told it.
    webhook: Option<String>,
    written: oneshot::Sender<Result<(), Unwritten>>,
}

/// Why a change is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// Somebody else has changed the row, or the process ends.
    Moved,
    /// The database refuses what is to be written, and will do so again.
    Broken,
}

/// The way to the recorder; cheap to clone.
#[derive(Clone)]
pub(crate) struct Writes(mpsc::Sender<Write>);

impl Writes {
    pub fn new() -> (Self, Written) {
        let (writes, written) = mpsc::channel(WAITING);
        (Self(writes), Written(written))
    }

    /// The row as it is committed. A row of version 0 is made.
    /// What follows from the new state for fences and failed refunds is written with it.
    pub async fn write(&self, before: Charge, after: Charge, webhook: Option<String>) -> Result<Charge, Unwritten> {
        let after = after.with_fence_answered().with_saga(SagaId::fresh());
        let (written, answer) = oneshot::channel();
        let sent = self.0.send(Write { before, after: after.clone(), webhook, written }).await;
        sent.map_err(|_| Unwritten::Moved)?;
        answer.await.unwrap_or(Err(Unwritten::Moved)).map(|()| after)
    }
}

/// Where the recorder takes changes from.
pub(crate) struct Written(mpsc::Receiver<Write>);

pub(crate) struct Recorder {
    pub store: Store,
    pub clock: Clock,
    pub writes: Written,
    pub replies: mpsc::Sender<Vec<(String, Reply)>>,
    /// The outbox relay's.
    pub wake: Arc<Notify>,
    /// The starter's.
    pub wake_starter: Arc<Notify>,
    /// After it, a database that is away is not waited for much longer.
    pub shutdown: CancellationToken,
}

impl Recorder {
    /// Runs until all who write are gone.
    pub async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.writes.0.recv_many(&mut waiting, BATCH).await > 0 {
            while !waiting.is_empty() {
                let batch = first_of_each_row(&mut waiting);
                let ends = self.persist(&batch).await;
                self.tell(batch, &ends);
            }
        }
    }

    fn tell(&self, batch: Vec<Write>, ends: &Ends) {
        let is_written = |write: &&Write| ends.written.contains(&write.after.key);
        let replies: Vec<_> =
            batch.iter().filter(is_written).flat_map(|write| write.after.replies(&write.before)).collect();
        if !replies.is_empty() && self.replies.try_send(replies).is_err() {
            tracing::warn!("replies are not sent: too many wait already");
        }
        if batch.iter().any(|write| what_happened(&write.before, &write.after).is_some()) {
            self.wake.notify_one();
        }
        if batch.iter().any(|write| failed_refund(&write.before, &write.after).is_some()) {
            self.wake_starter.notify_one();
        }
        for Write { after, written: answer, .. } in batch {
            let _ = answer.send(ends.of(&after.key)); // the driver may have been stopped
        }
    }

    /// Commits, however often it takes: what was seen at the gateway must not be lost while this process lives. What the
    /// data is to blame for (rule 9) is halved until it stands alone, so that it stops nobody else.
    async fn persist(&self, batch: &[Write]) -> Ends {
        let (mut ends, mut last_tries) = (Ends::default(), 0);
        let mut parts = vec![(batch, false)];
        while let Some((part, unsure)) = parts.pop() {
            match self.transaction(part, unsure).await.map_err(Fault::from) {
                Ok(Some(written)) => {
                    ends.written.extend(written);
                    continue;
                }
                Err(Fault::Broken(reason)) => {
                    match part {
                        [] => {}
                        [alone] => {
                            let charge = &alone.after.key;
                            tracing::error!(%charge, reason, "a change of a charge cannot be recorded");
                            ends.broken.insert(charge.clone());
                        }
                        more => {
                            let (first, second) = more.split_at(more.len() / 2);
                            parts.extend([(second, unsure), (first, unsure)]);
                        }
                    }
                    continue;
                }
                Ok(None) => tracing::warn!("this replica was taken for dead; its next beat revives it"),
                Err(Fault::Transient(error)) => tracing::warn!(error, "charges cannot be recorded now"),
            }
            last_tries += u32::from(self.shutdown.is_cancelled());
            if last_tries >= LAST_TRIES {
                break;
            }
            parts.push((part, true));
            tokio::time::sleep(RETRY).await;
        }
        ends
    }

    /// `unsure`: a former try may have been committed without our knowledge; what then stands there already counts.
    async fn transaction(&self, batch: &[Write], unsure: bool) -> Result<Option<HashSet<Key>>, sqlx::Error> {
        let Some(mut tx) = self.store.begin(batch.iter().map(|write| &write.after.key)).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let rows = |new: bool| batch.iter().filter(move |w| (w.before.version == 0) == new).map(|w| &w.after);
        let mut written = tx.insert(&rows(true).collect::<Vec<_>>(), now).await?;
        written.extend(tx.update(&rows(false).collect::<Vec<_>>(), now).await?);
        let new: Vec<&Write> = batch.iter().filter(|write| written.contains(&write.after.key)).collect();
        aftermath(&mut tx, &new, now).await?;
        if unsure && written.len() < batch.len() {
            let keys: Vec<Key> = batch.iter().map(|write| write.after.key.clone()).collect();
            let there = tx.rows(&keys).await?;
            let same = |row: &&Charge| {
                there.get(&row.key).is_some_and(|(found, mine)| {
                    *mine && (found.version, found.state, &found.intent) == (row.version, row.state, &row.intent)
                })
            };
            written.extend(batch.iter().map(|write| &write.after).filter(same).map(|row| row.key.clone()));
        }
        tx.commit().await?;
        Ok(Some(written))
    }
}

/// What became of a batch; what is in neither was not written.
#[derive(Default)]
struct Ends {
    written: HashSet<Key>,
    broken: HashSet<Key>,
}

impl Ends {
    fn of(&self, key: &Key) -> Result<(), Unwritten> {
        if self.written.contains(key) {
            return Ok(());
        }
        Err(if self.broken.contains(key) { Unwritten::Broken } else { Unwritten::Moved })
    }
}

/// Takes the first change of each row: a second one of the same row must see what became of the first.
fn first_of_each_row(waiting: &mut Vec<Write>) -> Vec<Write> {
    let mut rows = HashSet::new();
    let is_first = |write: &mut Write| rows.insert(write.after.key.clone());
    waiting.extract_if(.., is_first).collect()
}

/// Writes what follows from the changes beside their rows.
async fn aftermath(tx: &mut Batch, written: &[&Write], now: Timestamp) -> Result<(), sqlx::Error> {
    let event = |write: &&Write| Some(event(what_happened(&write.before, &write.after)?, &write.after, now));
    tx.events(written.iter().filter_map(event).collect(), now).await?;
    let starts = written.iter().filter_map(|write| failed_refund(&write.before, &write.after));
    tx.start_sagas(starts.collect(), now).await?;
    let given = |write: &&&Write| write.after.state == State::Refunded && write.after.refund.is_some();
    tx.watch(written.iter().filter(given).map(|write| &write.after.key), now.plus(watch::gap(0))).await?;
    tx.seen_webhooks(written.iter().filter_map(|write| write.webhook.clone()).collect(), now).await
}

/// Sends replies as they are committed, many together where they pile up.
pub(crate) async fn send_replies(nats: Nats, mut replies: mpsc::Receiver<Vec<(String, Reply)>>) {
    let mut batches = Vec::new();
    while replies.recv_many(&mut batches, REPLIES).await > 0 {
        nats.send_replies(batches.drain(..).flatten().collect()).await;
    }
}

/// `payment.captured` once the money is known to be taken, also where an undo came meanwhile; `payment.refunded`.
fn what_happened(before: &Charge, after: &Charge) -> Option<&'static str> {
    match (before.state, after.state) {
        (_, State::Done) | (State::Closing, State::Refunding) => Some("captured"),
        (_, State::Refunded) => Some("refunded"),
        _ => None,
    }
}

fn event(what: &'static str, after: &Charge, now: Timestamp) -> NewEvent {
    let Key { saga, step, round } = &after.key;
    let amount = after.terms.as_ref().map(|terms| terms.amount);
    let event = DomainEvent {
        id: Uuid::now_v7(),
        aggregate: saga.0,
        // A round begins after the former one ended.
        version: (i64::from(*round) << 32) | i64::from(after.version),
        at: now,
        trace: after.trace.clone(),
        data: json!({ "booking": saga, "step": step, "round": round, "amount": amount, "intent": after.intent }),
    };
    NewEvent { aggregate: PAYMENT, what, event }
}

/// The saga that a change opens.
pub(crate) fn failed_refund(before: &Charge, after: &Charge) -> Option<(SagaId, FailedRefund)> {
    let id = after.failed_refund.filter(|_| before.failed_refund.is_none())?;
    let (Key { saga, step, round }, terms) = (after.key.clone(), after.terms.as_ref()?);
    let input = FailedRefund {
        booking: saga,
        step,
        round,
        customer: terms.customer,
        amount: terms.amount,
        intent: after.intent.clone().unwrap_or_default(),
        refund: after.refund.clone().unwrap_or_default(),
        reason: after.refund_error.clone().unwrap_or_default(),
    };
    Some((id, input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_changes_of_one_row_the_second_waits_for_what_became_of_the_first() {
        let key = |round| Key { saga: SagaId(Uuid::nil()), step: "PAY".into(), round };
        let write = |round, version| {
            let before = Charge { version, ..Charge::new(key(round), None) };
            Write { after: before.next(State::Void), before, webhook: None, written: oneshot::channel().0 }
        };
        let mut waiting = vec![write(1, 4), write(2, 7), write(1, 5), write(1, 4)];
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            let batch = first_of_each_row(&mut waiting);
            batches.push(batch.iter().map(|write| (write.after.key.round, write.before.version)).collect::<Vec<_>>());
        }
        assert_eq!(batches, [vec![(1, 4), (2, 7)], vec![(1, 5)], vec![(1, 4)]]);
    }
}
