//! `availability.changed`: at most four a second for an event, over all replicas.
//!
//! A batch only notes in memory which events it changed. The announcer takes the event's announcement row, which no
//! booking touches, reads what is true, and writes the event into the outbox where it differs from what was last told.
//! A note that is lost with its process is found by comparing, at the start and now and then.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventicket_contracts::envelope::DomainEvent;
use eventicket_contracts::{Clock, EventId, Timestamp};
use eventicket_nats::outbox::NewEvent;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::{Announced, Store};

/// Least time between two announcements of an event.
const INTERVAL: Duration = Duration::from_millis(250);
/// An announcement that took long is followed by a pause of so many times its length: with many events in a rush, the news
/// are rarer, and bookings come first.
const REST: u32 = 20;
/// Time between two comparisons of all events.
const COMPARE: Duration = Duration::from_secs(60);
/// Events of one transaction.
const EVENTS: usize = 500;

/// Events whose availability may differ from what was announced.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    events: Mutex<HashSet<EventId>>,
    added: Notify,
}

impl Dirty {
    pub fn add(&self, events: impl IntoIterator<Item = EventId>) {
        let mut set = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let before = set.len();
        set.extend(events);
        if set.len() > before {
            self.added.notify_one();
        }
    }

    /// Takes some of them out.
    fn take(&self) -> Vec<EventId> {
        let mut set = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let some: Vec<EventId> = set.iter().copied().take(EVENTS).collect();
        set.retain(|event| !some.contains(event));
        some
    }
}

pub(crate) struct Announcer {
    pub store: Store,
    pub clock: Clock,
    pub dirty: Arc<Dirty>,
    /// The outbox's relay.
    pub relay: Arc<Notify>,
}

impl Announcer {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut compare = tokio::time::interval(COMPARE);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.dirty.added.notified() => {}
                _ = compare.tick() => self.compare().await,
            }
            let begun = Instant::now();
            self.announce().await;
            let pause = INTERVAL.max(begun.elapsed() * REST);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        // What is told too early now is found by the next start's comparison.
        self.announce().await;
    }

    async fn compare(&self) {
        match self.store.unannounced(self.clock.now()).await {
            Ok(events) => self.dirty.add(events),
            Err(error) => tracing::warn!(%error, "announcements cannot be compared now"),
        }
    }

    async fn announce(&self) {
        let events = self.dirty.take();
        if events.is_empty() {
            return;
        }
        match announce(&self.store, &events, self.clock.now()).await {
            Ok(early) => {
                self.relay.notify_one();
                self.dirty.add(early);
            }
            Err(error) => {
                tracing::warn!(%error, "availability cannot be announced now");
                self.dirty.add(events);
            }
        }
    }
}

/// Announces what changed; gives back the events of which the last announcement is too recent.
async fn announce(store: &Store, events: &[EventId], now: Timestamp) -> Result<Vec<EventId>, sqlx::Error> {
    let (mut tx, rows) = store.begin_announcing(events).await?;
    let (early, due): (Vec<Announced>, Vec<Announced>) = rows.into_iter().partition(|row| row.at.plus(INTERVAL) > now);
    let mut current = tx.current(&due.iter().map(|row| row.event.0).collect::<Vec<_>>()).await?;
    let (mut told, mut news) = (Vec::new(), Vec::new());
    for row in due {
        let Some((summary, availability)) = current.remove(&row.event) else { continue };
        if summary == row.summary {
            continue;
        }
        let Ok(data) = serde_json::to_value(&availability) else { continue };
        let (aggregate, version) = (row.event.0, row.version + 1);
        let event = DomainEvent { id: Uuid::now_v7(), aggregate, version, at: now, trace: None, data };
        news.push(NewEvent { aggregate: "availability", what: "changed", event });
        told.push(Announced { version, at: now, summary, ..row });
    }
    tx.finish(&told, news, now).await?;
    Ok(early.into_iter().map(|row| row.event).collect())
}
