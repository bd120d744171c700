//! Opens the sagas that stand for refunds which failed: each row of `saga_starts` is sent to the orchestrator until it is
//! answered. The id is fixed, so that a repeat after a lost answer, or of another replica, finds the first.

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::Clock;
use eventicket_contracts::sagas::{FAILED_REFUND, StartAnswer, StartSaga};
use eventicket_nats::Nats;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::store::{SagaStart, Store};

/// How long an answer is waited for; the orchestrator drops starts that are older.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Starts under way at once.
const AT_ONCE: usize = 16;
/// Time to the next try after one without an answer.
const RETRY: Duration = Duration::from_millis(500);
/// Time to the next look where nothing is known to wait: finds what a replica left that died.
const LOOK: Duration = Duration::from_secs(10);
/// Longest wait that an orchestrator may ask for, and the wait where it refuses the saga: nobody else knows of the money,
/// and a later version may take it.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// Sends starts; cheap to clone.
#[derive(Clone)]
pub(crate) struct Starter {
    pub store: Store,
    pub nats: Nats,
    pub clock: Clock,
    pub wake: Arc<Notify>,
}

impl Starter {
    /// Runs until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let passed = tokio::select! {
                () = shutdown.cancelled() => return,
                passed = self.pass() => passed,
            };
            let wait = passed.unwrap_or_else(|error| {
                tracing::error!(%error, "sagas of failed refunds cannot be started");
                RETRY
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sends what is due, once; tells when to look again.
    async fn pass(&self) -> Result<Duration, sqlx::Error> {
        let due = self.store.starts_due(AT_ONCE).await?;
        let full = due.len() == AT_ONCE;
        let mut tries = JoinSet::new();
        for start in due {
            let starter = self.clone();
            tries.spawn(async move { starter.open(start).await });
        }
        let mut waits = Vec::new();
        for tried in tries.join_all().await {
            waits.extend(tried?);
        }
        Ok(waits.into_iter().min().unwrap_or(if full { Duration::ZERO } else { LOOK }))
    }

    /// Sends one start; where it was not answered for good, tells when it is worth another try.
    async fn open(&self, start: SagaStart) -> Result<Option<Duration>, sqlx::Error> {
        let request = StartSaga {
            id: start.id,
            definition: FAILED_REFUND.to_owned(),
            owner: Some(start.customer),
            idempotency: None,
            event: None,
            input: start.input,
            give_up_at: self.clock.now().plus(TIMEOUT),
            trace: start.trace,
            blind: true,
        };
        match self.nats.start(&request, TIMEOUT).await {
            Ok(StartAnswer::Started { .. }) => self.store.started(start.id).await.map(|()| None),
            Ok(StartAnswer::Busy { retry_after_ms }) => {
                Ok(Some(Duration::from_millis(retry_after_ms).clamp(RETRY, MOST_WAIT)))
            }
            Ok(answer) => {
                tracing::error!(saga = %start.id, ?answer, "the saga of a failed refund was refused: tried again");
                Ok(Some(MOST_WAIT))
            }
            Err(failure) => {
                tracing::warn!(saga = %start.id, %failure, "the saga of a failed refund was not started: tried again");
                Ok(Some(RETRY))
            }
        }
    }
}
