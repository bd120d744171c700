//! Opens the sagas of changes of what is sold: each row of `saga_starts` is sent to the orchestrator until it is answered. The id is
//! fixed, so that a repeat after a lost answer, or of another replica, finds the first.

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::codes;
use eventicket_contracts::events::PublishEvent;
use eventicket_contracts::sagas::{PUBLISH_EVENT, StartAnswer, StartSaga};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Settled, Stored};
use crate::store::SagaStart;
use crate::{Events, lifecycle};

/// How long an answer is waited for; the orchestrator drops starts that are older.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Starts under way at once.
const AT_ONCE: usize = 16;
/// Time to the next try after one without an answer.
const RETRY: Duration = Duration::from_millis(500);
/// Time to the next look where nothing is known to wait: finds what a replica left that died.
const SWEEP: Duration = Duration::from_secs(10);
/// Longest wait that an orchestrator may ask for.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// Runs until shutdown.
pub(crate) async fn run(events: Arc<Events>, shutdown: CancellationToken) {
    loop {
        let passed = tokio::select! {
            () = shutdown.cancelled() => return,
            passed = pass(&events) => passed,
        };
        let wait = match passed {
            Ok(wait) => wait,
            Err(error) => {
                tracing::error!(%error, "sagas cannot be started");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = events.wake_starter.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Sends what is due, once; tells when to look again.
async fn pass(events: &Arc<Events>) -> Result<Duration, sqlx::Error> {
    let due = events.store.starts_due(AT_ONCE).await?;
    let full = due.len() == AT_ONCE;
    let mut tries = JoinSet::new();
    for start in due {
        let events = events.clone();
        tries.spawn(async move { open(&events, start).await });
    }
    let mut waits = Vec::new();
    for tried in tries.join_all().await {
        waits.extend(tried?);
    }
    Ok(waits.into_iter().min().unwrap_or(if full { Duration::ZERO } else { SWEEP }))
}

/// Sends one start; where it was not answered for good, tells when it is worth another try.
async fn open(events: &Events, start: SagaStart) -> Result<Option<Duration>, sqlx::Error> {
    let request = StartSaga {
        id: start.id,
        definition: PUBLISH_EVENT.to_owned(),
        owner: Some(start.organizer),
        idempotency: None,
        event: Some(start.event),
        input: start.input.clone(),
        give_up_at: events.clock.now().plus(TIMEOUT),
        trace: start.trace.clone(),
        blind: true,
    };
    match events.nats.start(&request, TIMEOUT).await {
        Ok(StartAnswer::Started { .. }) => events.store.started(start.id).await.map(|()| None),
        Ok(StartAnswer::Busy { retry_after_ms }) => {
            Ok(Some(Duration::from_millis(retry_after_ms).clamp(RETRY, MOST_WAIT)))
        }
        Ok(StartAnswer::Refused { code, message }) => withdraw(events, &start, &code, &message).await.map(|()| None),
        Ok(StartAnswer::KeyReused) => {
            withdraw(events, &start, codes::KEY_REUSED, "the saga is another one's").await.map(|()| None)
        }
        Err(failure) => {
            tracing::warn!(saga = %start.id, %failure, "a saga was not started: tried again");
            Ok(Some(RETRY))
        }
    }
}

/// The saga will never be: the change is refused, and the event stays as it is.
async fn withdraw(events: &Events, start: &SagaStart, code: &str, message: &str) -> Result<(), sqlx::Error> {
    tracing::error!(saga = %start.id, event = %start.event, code, message, "a saga was refused");
    let now = events.clock.now();
    let version = start.input.read().map(|PublishEvent { offer }| offer.version).ok();
    let mut tx = events.store.begin().await?;
    let stored = tx.lock(start.event).await?;
    if tx.refuse_start(start.id, code).await?
        && let Some((stored, version)) = stored.zip(version)
        && let Some(Settled { event, what }) = lifecycle::settle(stored, version, Some(code), now)
    {
        tx.tell([(what, &event, json!({ "event": event }))], now).await?;
        tx.update(&[Stored { event, next: None }]).await?;
    }
    tx.commit().await?;
    events.wake_relay.notify_one();
    Ok(())
}
