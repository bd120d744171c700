//! Frees holds whose grace has run out. The saga releases its hold at the hold's end; this is for those that do not come.
//!
//! A pass looks only at ends of grace that have come since the one before, by an index that knows nothing of states (see
//! the table). Passes overlap, since a row is seen after its commit only; a deep one overlaps by far more.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{Clock, SagaId, Timestamp, codes};
use eventicket_nats::Fault;
use tokio_util::sync::CancellationToken;

use crate::allocation::Phase;
use crate::desk::Desk;
use crate::needs::Needs;
use crate::store::Store;

/// Longest time between two passes, and how far one looks ahead for the next end.
const PASS: Duration = Duration::from_secs(1);
/// Shortest time between two passes.
const REST: Duration = Duration::from_millis(50);
/// Overlap of passes. A hold is missed only where its batch took this and its whole grace longer to commit.
const OVERLAP: Duration = Duration::from_secs(2);
/// Time between deep passes.
const DEEP_EVERY: Duration = Duration::from_secs(60);
/// Overlap of a deep pass, and of the first one with what a former process has seen.
const DEEP: Duration = Duration::from_secs(180);
/// Holds freed in one transaction.
const BATCH: usize = 256;

pub(crate) struct Sweep {
    store: Store,
    desk: Desk,
    clock: Clock,
    /// Everything before is swept; none before the first pass.
    from: Option<Timestamp>,
    deep_at: Timestamp,
}

impl Sweep {
    pub fn new(store: Store, desk: Desk, clock: Clock) -> Self {
        Self { store, desk, clock, from: None, deep_at: Timestamp(0) }
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let wait = match self.pass().await {
                Ok(wait) => wait.clamp(REST, PASS),
                Err(error) => {
                    tracing::warn!(%error, "holds cannot be swept now");
                    PASS
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Frees what is due; gives the time to the next end.
    async fn pass(&mut self) -> Result<Duration, Fault> {
        let now = self.clock.now();
        let deep = now.since(self.deep_at) >= DEEP_EVERY;
        let from = match self.from {
            None => earlier(self.store.swept().await?, DEEP),
            Some(from) => earlier(from, if deep { DEEP } else { OVERLAP }),
        };
        // Those that stay held, which nobody behind them waits for.
        let mut skipped: HashSet<Key> = HashSet::new();
        let next = loop {
            let most = BATCH + skipped.len();
            let found = self.store.due(from, now.plus(PASS), most).await?;
            let full = found.len() == most;
            let (due, ahead): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, end)| *end <= now);
            let next = ahead.first().map_or(PASS, |(_, end)| end.since(now));
            let keys: Vec<Key> = due.into_iter().map(|(key, _)| key).filter(|key| !skipped.contains(key)).collect();
            skipped.extend(self.free_all(&keys, now).await?);
            if !full || keys.is_empty() {
                break next;
            }
        };
        self.from = Some(now);
        if deep {
            self.store.set_swept(now).await?;
            self.deep_at = now;
        }
        Ok(next)
    }

    /// Frees what can be freed; what the data is to blame for (rule 9) is halved until it stands alone, and is skipped.
    async fn free_all(&self, keys: &[Key], now: Timestamp) -> Result<Vec<Key>, Fault> {
        let (mut parts, mut skipped) = (vec![keys], Vec::new());
        while let Some(part) = parts.pop() {
            match (self.free(part, now).await.map_err(Fault::from), part) {
                (Ok(()), _) => {}
                (Err(Fault::Broken(reason)), [alone]) => {
                    tracing::error!(saga = %alone.saga, reason, "a hold cannot be freed");
                    skipped.push(alone.clone());
                }
                (Err(Fault::Broken(_)), more) => {
                    let (first, second) = more.split_at(more.len() / 2);
                    parts.extend([second, first]);
                }
                (Err(transient), _) => return Err(transient),
            }
        }
        Ok(skipped)
    }

    /// Frees those that are still held once their sagas' locks are held, as a command would.
    async fn free(&self, keys: &[Key], now: Timestamp) -> Result<(), sqlx::Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let sagas: Vec<SagaId> = keys.iter().map(|key| key.saga).collect();
        let (mut tx, mut books) = self.desk.begin(&sagas).await?;
        let events: BTreeSet<_> = keys.iter().filter_map(|key| Some(books.held(key)?.0)).collect();
        books.add_events(tx.lock_events(&events).await?);
        let mut needs = Needs::default();
        keys.iter().for_each(|key| needs.hold(key, &books));
        tx.supply(&mut books, &needs).await?;
        for key in keys {
            if books.end(key, Phase::Expired, codes::HOLD_EXPIRED, None) {
                tracing::info!(saga = %key.saga, "a hold was freed after its grace");
            }
        }
        self.desk.commit(tx, books, now).await
    }
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.millis().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
