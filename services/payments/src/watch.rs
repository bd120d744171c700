//! Refunds that have succeeded are looked at again for some three weeks, at ever longer gaps: one may fail afterwards, and
//! the webhook that tells it may be off.

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::Clock;
use eventicket_contracts::envelope::Key;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::charge::State;
use crate::decide::{Call, Observed, RefundStatus};
use crate::gateway::Gateway;
use crate::recorder::Writes;
use crate::store::{Looked, Store};

/// First gap; each further one is [`GROWTH`] times as long.
const FIRST: Duration = Duration::from_secs(5);
const GROWTH: u32 = 4;
/// Looks at one refund: the last one 20 days after its success.
const LOOKS: u32 = 10;
/// Between two looks for refunds that are due.
const PACE: Duration = Duration::from_secs(1);
/// Refunds that are looked at together.
const AT_ONCE: i64 = 16;
/// Until a look that brought no answer is made again.
const LEASE: Duration = Duration::from_secs(30);
/// How long webhooks are known and starts of sagas kept; gateways repeat a webhook for some days.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Between two deletions of what is older.
const SWEEP: Duration = Duration::from_secs(3_600);

/// The gap behind so many looks.
pub(crate) fn gap(looks: u32) -> Duration {
    FIRST * GROWTH.saturating_pow(looks.min(LOOKS))
}

/// Looks at refunds.
pub(crate) struct Watch {
    pub store: Store,
    pub gateway: Arc<Gateway>,
    pub writes: Writes,
    pub clock: Clock,
}

impl Watch {
    /// Runs until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP);
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = sweep.tick() => {
                    if let Err(error) = self.store.sweep(self.clock.now(), KEEP).await {
                        tracing::warn!(%error, "webhooks and starts cannot be swept");
                    }
                }
                () = tokio::time::sleep(PACE) => {}
            }
            while !shutdown.is_cancelled() {
                match self.pass().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "refunds cannot be looked at now");
                        break;
                    }
                }
            }
        }
    }

    /// Looks at those that are due, at most [`AT_ONCE`]; whether there were so many.
    async fn pass(self: &Arc<Self>) -> Result<bool, sqlx::Error> {
        let now = self.clock.now();
        let due = self.store.take_watches(now, now.plus(LEASE), AT_ONCE).await?;
        let full = due.len() == AT_ONCE as usize;
        let mut looks = JoinSet::new();
        for (key, before) in due {
            let watch = Arc::clone(self);
            looks.spawn(async move { watch.look(&key, before).await });
        }
        looks.join_all().await.into_iter().collect::<Result<(), _>>()?;
        Ok(full)
    }

    async fn look(&self, key: &Key, before: u32) -> Result<(), sqlx::Error> {
        let row = self.store.rows(std::slice::from_ref(key)).await?.remove(key).map(|(charge, _)| charge);
        let Some(charge) = row.filter(|charge| charge.state == State::Refunded && charge.refund.is_some()) else {
            return self.store.looked(key, Looked::Ended).await;
        };
        let looked = match self.gateway.call(&charge, Call::ReadRefund).await {
            Observed::Refund { status: RefundStatus::Failed, reason, .. } => {
                let failed = charge.refund_failed(reason);
                // Where the row has moved on, the next look sees how.
                self.writes.write(charge, failed, None).await.ok().map(|_| Looked::Ended)
            }
            Observed::Refund { .. } if before + 1 >= LOOKS => Some(Looked::Ended),
            Observed::Refund { .. } => Some(Looked::Again(self.clock.now().plus(gap(before + 1)))),
            _ => None,
        };
        match looked {
            Some(looked) => self.store.looked(key, looked).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_look_is_weeks_after_the_refund_and_the_first_seconds() {
        let all: Duration = (0..LOOKS).map(gap).sum();
        assert_eq!((gap(0), all.as_secs() / (24 * 3_600)), (FIRST, 20));
    }
}
