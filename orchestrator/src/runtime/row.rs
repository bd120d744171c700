//! A saga as the journal holds it.

use std::collections::BTreeMap;

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_saga::{Saga, Status, Undo};

use super::held::Waits;
use crate::sagas::RowView;

/// A saga with what the journal keeps beside it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its id.
    pub id: SagaId,
    /// The saga.
    pub saga: Saga,
    /// Whose it is.
    pub owner: Option<CustomerId>,
    /// The event it is about; the ordering key of its commands.
    pub event: Option<EventId>,
    /// Unique with the owner.
    pub idempotency: Option<Idempotency>,
    /// W3C `traceparent` of its start.
    pub trace: Option<String>,
    /// Rises with each stored change.
    pub version: i64,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Bytes of its history so far are in the journal; this is what a batch appends.
    pub news: Vec<eventicket_saga::Entry>,
}

impl Row {
    /// For the views of [`crate::sagas::Kind`].
    pub fn view(&self) -> RowView<'_> {
        RowView { id: self.id, saga: &self.saga, version: self.version, updated_at: self.updated_at }
    }

    /// Name of the step that it is at.
    pub fn step<'a>(&self, definition: &'a eventicket_saga::Definition) -> Option<&'a str> {
        definition.steps.get(self.saga.at).map(|s| s.name.as_str())
    }
}

/// The services that a step or an undo of the saga waits for: their breaker is open, or they have no room.
pub fn held(saga: &Saga, definition: &eventicket_saga::Definition) -> BTreeMap<String, Waits> {
    let mut services = BTreeMap::new();
    for (at, step) in saga.steps.iter().enumerate() {
        let Some(command) = definition.command(at) else { continue };
        if step.status == Status::Held {
            services.entry(command.call.service.clone()).or_insert(Waits::Effect);
        }
        if let (Some(undo), Undo::Held) = (&command.undo, step.undo) {
            services.insert(undo.service.clone(), Waits::Undo);
        }
    }
    services
}

/// Commands in flight by service: halves of rounds that were sent and whose end is not recorded.
pub fn outstanding(saga: &Saga, definition: &eventicket_saga::Definition) -> BTreeMap<String, i64> {
    let mut count = BTreeMap::new();
    for (at, step) in saga.steps.iter().enumerate() {
        let Some(command) = definition.command(at) else { continue };
        let sent = matches!(step.status, Status::Sent(_) | Status::Backoff(_)) && step.attempts > 0;
        if sent && !saga.ended() {
            *count.entry(command.call.service.clone()).or_default() += 1;
        }
        if let (Some(undo), Undo::Sent(_) | Undo::Backoff(_)) = (&command.undo, step.undo) {
            *count.entry(undo.service.clone()).or_default() += 1;
        }
    }
    count
}
