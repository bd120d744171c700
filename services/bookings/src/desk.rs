//! The way of a batch: begun with its locks, ended with one commit that carries effects and events.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use eventicket_contracts::bookings::{BookingConfirmed, BookingEnded, BookingHeld};
use eventicket_contracts::envelope::{DomainEvent, Key};
use eventicket_contracts::{EventId, SagaId, Timestamp};
use eventicket_nats::outbox::{NewEvent, Rows};
use eventicket_planted::Fault;
use serde::Serialize;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::allocation::{Books, Change, Changes, Content, Phase, Record, What};
use crate::announce::Dirty;
use crate::store::{Batch, Store};

/// Most changes of state of one hold: each round's versions begin behind those of the round before.
const STATES: u32 = 2;

/// Where commands and the sweep bring their batches.
#[derive(Clone)]
pub(crate) struct Desk {
    store: Store,
    dirty: Arc<Dirty>,
    relay: Arc<Notify>,
}

impl Desk {
    pub fn new(store: Store, dirty: Arc<Dirty>, relay: Arc<Notify>) -> Self {
        Self { store, dirty, relay }
    }

    /// A transaction that holds the locks of its sagas, and then of these events, with all that is recorded of both.
    pub async fn begin(&self, sagas: &[SagaId], events: &BTreeSet<EventId>) -> Result<(Batch, Books), sqlx::Error> {
        if Fault::LookBeforeLock.is_planted() {
            let early = self.store.records(sagas).await?;
            let (tx, _) = self.store.begin(sagas, &BTreeSet::new()).await?;
            return Ok((tx, Books::new(early)));
        }
        self.store.begin(sagas, events).await
    }

    /// Writes what the batch decided, with its events, and tells who waits for it.
    pub async fn commit(&self, mut tx: Batch, books: Books, now: Timestamp) -> Result<(), sqlx::Error> {
        let changes = books.finish();
        let records = changes.records();
        let events = changes.happened.iter().filter_map(|change| event(change, records.get(&change.key)?, now));
        tx.write(&changes, Rows::of(events), now).await?;
        tx.commit().await?;

        count(&changes.happened);
        self.dirty.add(changes.touched());
        if !changes.happened.is_empty() {
            self.relay.notify_one();
        }
        Ok(())
    }
}

impl Changes {
    /// The records that changed, as they are now.
    fn records(&self) -> HashMap<&Key, &Record> {
        self.inserted.iter().chain(&self.updated).map(|(key, record)| (key, record)).collect()
    }

    /// The events of which something else is available now.
    fn touched(&self) -> impl Iterator<Item = EventId> {
        self.offered.iter().map(|event| event.id).chain(self.left.iter().map(|left| left.event))
    }
}

/// What an event says of its booking.
#[derive(Serialize)]
#[serde(untagged)]
enum Told {
    Held(BookingHeld),
    Confirmed(BookingConfirmed),
    Ended(BookingEnded),
}

/// What the others are told of a change.
fn event(change: &Change, record: &Record, now: Timestamp) -> Option<NewEvent<Told>> {
    let Content::Hold(hold) = &record.content else { return None };
    let (event_id, customer_id) = (record.event, hold.customer);
    let (tickets, reserved) = (hold.tickets(), &hold.reserved);
    let (what, data) = match &change.what {
        What::Held => {
            let (total, hold_until) = (reserved.total, reserved.hold_until);
            ("held", Told::Held(BookingHeld { event_id, customer_id, tickets, total, hold_until }))
        }
        What::Confirmed => {
            let (lines, total) = (reserved.lines.clone(), reserved.total);
            ("confirmed", Told::Confirmed(BookingConfirmed { event_id, customer_id, lines, total }))
        }
        What::Ended(phase, reason) => {
            let what = if *phase == Phase::Expired { "expired" } else { "cancelled" };
            (what, Told::Ended(BookingEnded { event_id, customer_id, tickets, reason: reason.clone() }))
        }
        What::Refused | What::Tombstone => return None,
    };
    let version = i64::from(change.changes) + i64::from(STATES) * i64::from(change.key.round.saturating_sub(1));
    let aggregate = change.key.saga.0;
    let event = DomainEvent { id: Uuid::now_v7(), aggregate, version, at: now, trace: change.trace.clone(), data };
    Some(NewEvent { aggregate: "booking", what, event })
}

fn count(happened: &[Change]) {
    let mut counts: HashMap<&'static str, u64> = HashMap::new();
    for change in happened {
        let outcome = match &change.what {
            What::Held => "held",
            What::Refused => "refused",
            What::Confirmed => "confirmed",
            What::Ended(Phase::Expired, _) => "expired",
            What::Ended(..) => "released",
            What::Tombstone => "tombstone",
        };
        *counts.entry(outcome).or_default() += 1;
    }
    for (outcome, n) in counts {
        metrics::counter!(eventicket_contracts::metrics::HOLDS, "outcome" => outcome).increment(n);
    }
}
