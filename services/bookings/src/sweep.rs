//! Frees holds whose grace has run out. The saga releases its hold at the hold's end; this is for those that do not come.
//!
//! Each batch leaves a row a moment at which holds of it end (the table `hold_ends`). A row goes once none of its holds is
//! held any more, so that nothing is looked at twice, and nothing is missed, however late it was committed.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{Clock, SagaId, Timestamp, codes};
use eventicket_nats::Fault;
use tokio_util::sync::CancellationToken;

use crate::allocation::Phase;
use crate::desk::Desk;
use crate::needs::Needs;
use crate::store::{End, Place, Store};

/// Longest time between two passes.
const PASS: Duration = Duration::from_secs(1);
/// Shortest time between two passes.
const REST: Duration = Duration::from_millis(50);
/// Ends looked at together; each is of one batch.
const ENDS: i64 = 16;
/// Holds freed in one transaction.
const BATCH: usize = 256;

pub(crate) struct Sweep {
    store: Store,
    desk: Desk,
    clock: Clock,
}

impl Sweep {
    pub fn new(store: Store, desk: Desk, clock: Clock) -> Self {
        Self { store, desk, clock }
    }

    pub async fn run(self, shutdown: CancellationToken) {
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

    /// Frees what is due; gives the time to the next end. What stays held is passed by, and tried again by the next pass.
    async fn pass(&self) -> Result<Duration, Fault> {
        let (now, mut after) = (self.clock.now(), Place::default());
        loop {
            let ends = self.store.ends(after, now, ENDS).await?;
            let Some(last) = ends.last() else {
                let next = self.store.next_end(now).await?;
                return Ok(next.map_or(PASS, |next| next.since(now)));
            };
            after = last.at;
            let sagas: Vec<SagaId> = ends.iter().flat_map(|end| &end.sagas).copied().collect();
            let mut stuck = HashSet::new();
            for keys in self.store.overdue(&sagas, now).await?.chunks(BATCH) {
                stuck.extend(self.free_all(keys, now).await?.into_iter().map(|key| key.saga));
            }
            let is_over = |end: &End| !end.sagas.iter().any(|saga| stuck.contains(saga));
            let over: Vec<End> = ends.into_iter().filter(is_over).collect();
            self.store.forget_ends(&over).await?;
        }
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
        let (mut tx, mut books) = self.desk.begin(&sagas, &BTreeSet::new()).await?;
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
