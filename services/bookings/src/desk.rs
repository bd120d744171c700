//! The way of a batch: begun with its locks, ended with one commit that carries effects and events.

use std::collections::HashMap;
use std::sync::Arc;

use eventicket_contracts::bookings::{BookingConfirmed, BookingEnded, BookingHeld};
use eventicket_contracts::envelope::{DomainEvent, Key};
use eventicket_contracts::{EventId, SagaId, Timestamp};
use eventicket_nats::outbox::NewEvent;
use eventicket_planted::Fault;
use serde::Serialize;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::allocation::{Books, Change, Changes, Content, Phase, Record, What};
use crate::announce::Dirty;
use crate::store::{Batch, Store};
use crate::tickets::tickets;

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

    /// A transaction that holds the locks of its sagas, with all that is recorded of them.
    pub async fn begin(&self, sagas: &[SagaId]) -> Result<(Batch, Books), sqlx::Error> {
        let mut tx = self.store.begin().await?;
        let mut early = None;
        if Fault::LookBeforeLock.is_planted() {
            early = Some(tx.records(sagas).await?);
        }
        tx.lock_sagas(sagas).await?;
        // A statement of its own: it sees what the former holder of a lock committed.
        let records = match early {
            Some(records) => records,
            None => tx.records(sagas).await?,
        };
        Ok((tx, Books::new(records)))
    }

    /// Writes what the batch decided, with its events, and tells who waits for it.
    pub async fn commit(&self, mut tx: Batch, books: Books, now: Timestamp) -> Result<(), sqlx::Error> {
        let changes = books.finish();
        let records = changes.records();
        let (mut events, mut made) = (Vec::new(), Vec::new());
        for change in &changes.happened {
            let Some(record) = records.get(&change.key) else { continue };
            events.extend(event(change, record, now));
            made.extend(tickets(change, record));
        }
        tx.write(&changes, now).await?;
        tx.write_tickets(made, now).await?;
        tx.write_events(events, now).await?;
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

/// What the others are told of a change.
fn event(change: &Change, record: &Record, now: Timestamp) -> Option<NewEvent> {
    let Content::Hold(hold) = &record.content else { return None };
    let (event_id, customer_id) = (record.event, hold.customer);
    let (tickets, reserved) = (hold.tickets(), &hold.reserved);
    let (what, data) = match &change.what {
        What::Held => {
            let (total, hold_until) = (reserved.total, reserved.hold_until);
            ("held", json(BookingHeld { event_id, customer_id, tickets, total, hold_until })?)
        }
        What::Confirmed => {
            let (lines, total) = (reserved.lines.clone(), reserved.total);
            ("confirmed", json(BookingConfirmed { event_id, customer_id, lines, total })?)
        }
        What::Ended(phase, reason) => {
            let what = if *phase == Phase::Expired { "expired" } else { "cancelled" };
            (what, json(BookingEnded { event_id, customer_id, tickets, reason: reason.clone() })?)
        }
        What::Refused | What::Tombstone => return None,
    };
    let version = i64::from(change.changes) + i64::from(STATES) * i64::from(change.key.round.saturating_sub(1));
    let aggregate = change.key.saga.0;
    let event = DomainEvent { id: Uuid::now_v7(), aggregate, version, at: now, trace: change.trace.clone(), data };
    Some(NewEvent { aggregate: "booking", what, event })
}

fn json(data: impl Serialize) -> Option<serde_json::Value> {
    serde_json::to_value(data).ok()
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
        metrics::counter!("eventicket_bookings_holds_total", "outcome" => outcome).increment(n);
    }
}
