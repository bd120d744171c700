//! Commits what the drivers saw: whatever is ready in one transaction, then the replies leave.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::envelope::{DomainEvent, Key, Reply};
use eventicket_contracts::{Clock, Timestamp};
use eventicket_nats::Nats;
use eventicket_nats::outbox::NewEvent;
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::charge::{Charge, State};
use crate::store::Store;

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

/// A change of a row; it is answered with whether it was committed, which it is not where the row has moved on.
pub(crate) struct Write {
    pub before: Charge,
    pub after: Charge,
    pub written: oneshot::Sender<bool>,
}

pub(crate) struct Recorder {
    pub store: Store,
    pub clock: Clock,
    pub writes: mpsc::Receiver<Write>,
    pub replies: mpsc::Sender<Vec<(String, Reply)>>,
    /// The outbox relay's.
    pub wake: Arc<Notify>,
    /// After it, a database that is away is not waited for much longer.
    pub shutdown: CancellationToken,
}

impl Recorder {
    /// Runs until all drivers are gone.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.writes.recv_many(&mut batch, BATCH).await > 0 {
            let written = self.persist(&batch).await;
            let is_written = |write: &&Write| written.contains(&write.after.key);
            let replies: Vec<_> =
                batch.iter().filter(is_written).flat_map(|write| write.after.replies(&write.before)).collect();
            if !replies.is_empty() && self.replies.try_send(replies).is_err() {
                tracing::warn!("replies are not sent: too many wait already");
            }
            if batch.iter().any(|write| what_happened(&write.before, &write.after).is_some()) {
                self.wake.notify_one();
            }
            for Write { after, written: answer, .. } in batch.drain(..) {
                let _ = answer.send(written.contains(&after.key)); // the driver may have been stopped
            }
        }
    }

    /// Commits, however often it takes: what was seen at the gateway must not be lost while this process lives.
    async fn persist(&self, batch: &[Write]) -> HashSet<Key> {
        let (mut unsure, mut last_tries) = (false, 0);
        while last_tries < LAST_TRIES {
            match self.transaction(batch, unsure).await {
                Ok(Some(written)) => return written,
                Ok(None) => tracing::warn!("this replica was taken for dead; its next beat revives it"),
                Err(error) => tracing::warn!(%error, "charges cannot be recorded now"),
            }
            unsure = true;
            last_tries += u32::from(self.shutdown.is_cancelled());
            tokio::time::sleep(RETRY).await;
        }
        HashSet::new()
    }

    /// `unsure`: a former try may have been committed without our knowledge; what then stands there already counts.
    async fn transaction(&self, batch: &[Write], unsure: bool) -> Result<Option<HashSet<Key>>, sqlx::Error> {
        let Some(mut tx) = self.store.begin(batch.iter().map(|write| &write.after.key)).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let rows: Vec<&Charge> = batch.iter().map(|write| &write.after).collect();
        let mut written = tx.update(&rows, now).await?;
        let new = batch.iter().filter(|write| written.contains(&write.after.key));
        let event = |write: &Write| Some(event(what_happened(&write.before, &write.after)?, &write.after, now));
        tx.events(new.filter_map(event).collect(), now).await?;
        if unsure && written.len() < rows.len() {
            let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
            let there = tx.rows(&keys).await?;
            let same = |row: &&&Charge| {
                there.get(&row.key).is_some_and(|(found, mine)| {
                    *mine && (found.version, found.state, &found.intent) == (row.version, row.state, &row.intent)
                })
            };
            written.extend(rows.iter().filter(same).map(|row| row.key.clone()));
        }
        tx.commit().await?;
        Ok(Some(written))
    }
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
