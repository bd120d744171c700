//! Commits what was seen at the gateway: whatever is ready in one transaction for steps of charges' ways and one for the rest,
//! then the replies leave.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::envelope::{DomainEvent, Key, Reply};
use eventicket_contracts::payments::FailedRefund;
use eventicket_contracts::{Clock, Json, Money, SagaId, Timestamp};
use eventicket_nats::outbox::{NewEvent, Rows};
use eventicket_nats::{Fault, Nats};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::charge::{Charge, State};
use crate::settled::Settled;
use crate::store::{Batch, SagaStart, Store, recorded};
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
    written: oneshot::Sender<Result<Charge, Unwritten>>,
}

/// Why a change is not written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Unwritten {
    /// Somebody else has changed the row, or the process ends.
    Moved,
    /// The database refuses what is to be written, and will do so again; the row is as before.
    Broken(Box<Charge>),
}

impl Write {
    /// A step of every charge's way, of which at most an event follows: no saga, no watch.
    fn is_step(&self) -> bool {
        self.webhook.is_none() && self.after.state != State::Refunded && self.after.is_step_from(&self.before)
    }

    /// The saga that it opens.
    fn saga(&self) -> Option<SagaStart> {
        let (id, input) = failed_refund(&self.before, &self.after)?;
        let trace = recorded(&self.after).map(str::to_owned);
        // It holds no map whose keys are not texts, so that writing it cannot fail.
        Some(SagaStart { id, customer: input.customer, input: Json::of(&input).unwrap_or_default(), trace })
    }

    /// What others are told of it.
    fn event(&self, now: Timestamp) -> Option<NewEvent<Payment<'_>>> {
        Some(event(what_happened(&self.before, &self.after)?, &self.after, now))
    }
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
        let sent = self.0.send(Write { before, after, webhook, written }).await;
        sent.map_err(|_| Unwritten::Moved)?;
        answer.await.unwrap_or(Err(Unwritten::Moved))
    }
}

/// Where the recorder takes changes from.
pub(crate) struct Written(mpsc::Receiver<Write>);

pub(crate) struct Recorder {
    pub store: Store,
    pub clock: Clock,
    pub writes: Written,
    pub replies: mpsc::Sender<Vec<(String, Reply)>>,
    /// Told what is done.
    pub settled: Arc<Settled>,
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
                let (steps, others): (Vec<_>, Vec<_>) =
                    first_of_each_row(&mut waiting).into_iter().partition(Write::is_step);
                if !steps.is_empty() {
                    let ends = self.persist_steps(&steps).await;
                    self.tell(steps, ends);
                }
                if !others.is_empty() {
                    let ends = self.persist(&others, false).await;
                    self.tell(others, ends);
                }
            }
        }
    }

    fn tell(&self, batch: Vec<Write>, ends: Vec<End>) {
        let written = || batch.iter().zip(&ends).filter(|(_, end)| **end == End::Written).map(|(write, _)| write);
        let replies: Vec<_> = written().flat_map(|write| write.after.replies(&write.before)).collect();
        if !replies.is_empty() && self.replies.try_send(replies).is_err() {
            tracing::warn!("replies are not sent: too many wait already");
        }
        self.settled.note(written().map(|write| &write.after));
        if batch.iter().any(|write| what_happened(&write.before, &write.after).is_some()) {
            self.wake.notify_one();
        }
        if batch.iter().any(|write| write.after.failed_refund.is_some() && write.before.failed_refund.is_none()) {
            self.wake_starter.notify_one();
        }
        for (Write { before, after, written: answer, .. }, end) in batch.into_iter().zip(ends) {
            let told = match end {
                End::Written => Ok(after),
                End::Moved => Err(Unwritten::Moved),
                End::Broken => Err(Unwritten::Broken(Box::new(before))),
            };
            let _ = answer.send(told); // the driver may have been stopped
        }
    }

    /// Commits steps in one statement, or as anything else where somebody else has changed one of their rows.
    async fn persist_steps(&self, steps: &[Write]) -> Vec<End> {
        let now = self.clock.now();
        let rows: Vec<&Charge> = steps.iter().map(|write| &write.after).collect();
        let events = Rows::of(steps.iter().filter_map(|write| write.event(now)));
        match self.store.advance(&rows, events, now).await {
            Ok(true) => vec![End::Written; steps.len()],
            Ok(false) => self.persist(steps, false).await,
            Err(error) => {
                tracing::debug!(%error, "steps of charges could not be recorded at once");
                self.persist(steps, true).await
            }
        }
    }

    /// Commits, however often it takes: what was seen at the gateway must not be lost while this process lives. What the
    /// data is to blame for (rule 9) is halved until it stands alone, so that it stops nobody else. An end for each change.
    /// `unsure`: as in [`Self::transaction`].
    async fn persist(&self, batch: &[Write], unsure: bool) -> Vec<End> {
        let (mut ends, mut last_tries) = (vec![End::Moved; batch.len()], 0);
        let mut parts = vec![(0..batch.len(), unsure)];
        while let Some((part, unsure)) = parts.pop() {
            match self.transaction(&batch[part.clone()], unsure).await.map_err(Fault::from) {
                Ok(Some(written)) => {
                    for (end, _) in ends[part].iter_mut().zip(written).filter(|(_, written)| *written) {
                        *end = End::Written;
                    }
                    continue;
                }
                Err(Fault::Broken(reason)) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    tracing::debug!(reason, changes = part.len(), "a batch of changes is split");
                    parts.extend([(middle..part.end, unsure), (part.start..middle, unsure)]);
                    continue;
                }
                Err(Fault::Broken(reason)) => {
                    let charge = &batch[part.start].after.key;
                    tracing::error!(%charge, reason, "a change of a charge cannot be recorded");
                    ends[part.start] = End::Broken;
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

    /// Whether each change was written. `unsure`: a former try may have been committed without our knowledge; what then
    /// stands there already counts.
    async fn transaction(&self, batch: &[Write], unsure: bool) -> Result<Option<Vec<bool>>, sqlx::Error> {
        let Some(mut tx) = self.store.begin_record(batch.iter().map(|write| &write.after.key)).await? else {
            return Ok(None);
        };
        let (now, mut written) = (self.clock.now(), vec![false; batch.len()]);
        let (new, old): (Vec<usize>, Vec<usize>) = (0..batch.len()).partition(|at| batch[*at].before.version == 0);
        // Rarely is there any.
        for at in new {
            written[at] = tx.insert(&[&batch[at].after], now).await? > 0;
        }
        let rows: Vec<&Charge> = old.iter().map(|at| &batch[*at].after).collect();
        tx.update(&rows, now).await?.into_iter().for_each(|at| written[old[at]] = true);
        let new: Vec<&Write> = batch.iter().zip(&written).filter(|(_, new)| **new).map(|(write, _)| write).collect();
        aftermath(&mut tx, &new, now).await?;
        if unsure && new.len() < batch.len() {
            let keys: Vec<Key> = batch.iter().map(|write| write.after.key.clone()).collect();
            let there = tx.rows(&keys).await?;
            for (Write { after: row, .. }, written) in batch.iter().zip(&mut written) {
                *written |= there.get(&row.key).is_some_and(|(found, mine)| {
                    *mine && (found.version, found.state, &found.intent) == (row.version, row.state, &row.intent)
                });
            }
        }
        tx.commit().await?;
        Ok(Some(written))
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Written,
    Moved,
    Broken,
}

/// Takes the first change of each row: a second one of the same row must see what became of the first.
fn first_of_each_row(waiting: &mut Vec<Write>) -> Vec<Write> {
    let are_distinct = {
        let mut rows = HashSet::with_capacity(waiting.len());
        waiting.iter().all(|write| rows.insert(&write.after.key))
    };
    if are_distinct {
        return std::mem::take(waiting);
    }
    let mut rows = HashSet::new();
    let is_first = |write: &mut Write| rows.insert(write.after.key.clone());
    waiting.extract_if(.., is_first).collect()
}

/// Writes what follows from the changes beside their rows.
async fn aftermath(tx: &mut Batch, written: &[&Write], now: Timestamp) -> Result<(), sqlx::Error> {
    tx.events(written.iter().filter_map(|write| write.event(now)).collect(), now).await?;
    let starts: Vec<SagaStart> = written.iter().filter_map(|write| write.saga()).collect();
    tx.start_sagas(&starts, now).await?;
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

/// What an event of a payment says.
#[derive(Serialize)]
struct Payment<'a> {
    booking: SagaId,
    step: &'a str,
    round: u32,
    amount: Option<Money>,
    intent: Option<&'a str>,
}

fn event<'a>(what: &'static str, after: &'a Charge, now: Timestamp) -> NewEvent<Payment<'a>> {
    let Key { saga, step, round } = &after.key;
    let amount = after.terms.as_ref().map(|terms| terms.amount);
    let event = DomainEvent {
        id: Uuid::now_v7(),
        aggregate: saga.0,
        // A round begins after the former one ended.
        version: (i64::from(*round) << 32) | i64::from(after.version),
        at: now,
        trace: after.trace.clone(),
        data: Payment { booking: *saga, step, round: *round, amount, intent: after.intent.as_deref() },
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
