//! Changes of bookings as the orchestrator broadcasts them: hints that wake those who wait, and which may be lost.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use eventicket_contracts::sagas::BookingStatus;
use eventicket_contracts::{SagaId, subjects};
use eventicket_nats::Nats;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the connection was a new one, which may have missed hints.
const LOOK: Duration = Duration::from_secs(1);

/// The part of a [`eventicket_contracts::sagas::StatusChange`] that is of use here, read without a copy.
#[derive(Deserialize)]
struct Hint<'a> {
    id: SagaId,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    view: Option<&'a RawValue>,
}

/// What is known to have happened since the wait began.
#[derive(Clone, Default)]
struct Seen {
    /// A status other than `pending`, or something that was perhaps missed.
    settled: bool,
    /// The booking as the last hint shows it: a [`eventicket_contracts::sagas::BookingView`] as JSON.
    booking: Option<Bytes>,
}

/// Those who wait, by saga.
#[derive(Default)]
pub struct Status(Mutex<HashMap<SagaId, watch::Sender<Seen>>>);

impl Status {
    fn waiters(&self) -> MutexGuard<'_, HashMap<SagaId, watch::Sender<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for changes of `id`; what was hinted at before is not seen.
    pub fn wait(self: &Arc<Self>, id: SagaId) -> Waiter {
        let seen = self.waiters().entry(id).or_insert_with(|| watch::channel(Seen::default()).0).subscribe();
        Waiter { status: self.clone(), id, seen }
    }

    /// Takes a broadcast.
    fn hear(&self, payload: &Bytes) {
        let Ok(hints) = serde_json::from_slice::<Vec<Hint<'_>>>(payload) else {
            return tracing::warn!("a broadcast of changes cannot be read");
        };
        let waiters = self.waiters();
        for hint in hints {
            if let Some(waiter) = waiters.get(&hint.id) {
                let settles = hint.status != BookingStatus::Pending.name();
                let booking = hint.view.map(|view| payload.slice_ref(view.get().as_bytes()));
                waiter.send_modify(|seen| {
                    seen.settled |= settles;
                    seen.booking = booking;
                });
            }
        }
    }

    /// Wakes everybody, to read for themselves.
    fn wake_all(&self) {
        self.waiters().values().for_each(|w| w.send_modify(|seen| seen.settled = true));
    }

    /// Hears broadcasts until shutdown.
    pub async fn follow(self: Arc<Self>, nats: Nats, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            match nats.subscriber().subscribe(subjects::STATUS).await {
                Ok(subscription) => self.listen(&nats, subscription.map(|m| m.payload), &shutdown).await,
                Err(error) => tracing::warn!(%error, "changes of bookings cannot be heard"),
            }
            self.wake_all();
            shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        }
    }

    async fn listen<M>(&self, nats: &Nats, mut subscription: M, shutdown: &CancellationToken)
    where
        M: futures::Stream<Item = Bytes> + Unpin,
    {
        let connects = || nats.subscriber().statistics().connects.load(Ordering::Relaxed);
        let (mut known, mut look) = (connects(), tokio::time::interval(LOOK));
        loop {
            tokio::select! {
                message = subscription.next() => match message {
                    Some(message) => self.hear(&message),
                    None => return,
                },
                _ = look.tick() => {
                    if connects() != known {
                        known = connects();
                        self.wake_all();
                    }
                }
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// Waits for changes of one saga; forgotten when it is dropped.
pub struct Waiter {
    status: Arc<Status>,
    id: SagaId,
    seen: watch::Receiver<Seen>,
}

impl Waiter {
    /// Until something changed since the last call.
    pub async fn changed(&mut self) {
        // Its sender lives as long as this.
        let _ = self.seen.changed().await;
    }

    /// Until it is worth a look whether the booking is still pending; the booking where the hint brought it.
    pub async fn settled(&mut self) -> Option<Bytes> {
        self.seen.wait_for(|seen| seen.settled).await.ok()?.booking.clone()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.status.waiters();
        if waiters.get(&self.id).is_some_and(|w| w.receiver_count() <= 1) {
            waiters.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::sagas::StatusChange;

    fn tell(status: &Status, id: SagaId, name: &str) {
        let change = StatusChange { id, status: name.into(), version: 2, view: None };
        status.hear(&serde_json::to_vec(&[change]).unwrap().into());
    }

    #[tokio::test]
    async fn a_wait_ends_at_any_status_but_pending() {
        let (status, id) = (Arc::new(Status::default()), SagaId::fresh());
        let mut waiter = status.wait(id);
        tell(&status, id, "pending");
        tell(&status, SagaId::fresh(), "confirmed");
        assert!(futures::FutureExt::now_or_never(waiter.settled()).is_none());
        tell(&status, id, "confirmed");
        assert!(futures::FutureExt::now_or_never(waiter.settled()).is_some());
    }

    #[tokio::test]
    async fn everybody_who_waits_for_a_booking_is_told_and_then_forgotten() {
        let (status, id) = (Arc::new(Status::default()), SagaId::fresh());
        let (mut first, mut second) = (status.wait(id), status.wait(id));
        tell(&status, id, "pending");
        first.changed().await;
        second.changed().await;
        drop(first);
        assert_eq!(status.waiters().len(), 1);
        drop(second);
        assert!(status.waiters().is_empty());
    }

    #[tokio::test]
    async fn what_was_perhaps_missed_wakes_everybody() {
        let status = Arc::new(Status::default());
        let mut waiter = status.wait(SagaId::fresh());
        status.wake_all();
        waiter.settled().await;
        status.hear(&Bytes::from_static(b"not json"));
    }
}
