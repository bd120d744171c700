//! A saga as the journal holds it.

use std::collections::BTreeMap;

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_saga::{Phase, Saga, Status, Undo};

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
    /// Its history so far is in the journal; this is what a batch adds to it.
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

/// The services that a step, an undo or a fence of the saga waits for: their breaker is open, or they have no room. While
/// a step's fence is under way, and once the saga is given up, nothing else of it is sent.
pub fn held(saga: &Saga, definition: &eventicket_saga::Definition) -> BTreeMap<String, Waits> {
    let mut services = BTreeMap::new();
    let given_up = matches!(saga.phase, Phase::Abandoning | Phase::Abandoned);
    for (at, step) in saga.steps.iter().enumerate() {
        let Some(command) = definition.command(at) else { continue };
        if let Some(fence) = &step.fence {
            if fence.held {
                services.insert(command.call.service.clone(), Waits::Undo);
            }
            continue;
        }
        if given_up {
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_saga::definition::{Call, Command, Step};
    use eventicket_saga::{Definition, Fence, Json, Purpose};
    use serde_json::json;

    #[test]
    fn rule_18_a_fence_that_is_put_off_waits_and_nothing_else_of_its_step_does() {
        let call = |action: &str| Call::new("desk", action, |_| Ok(Json::NULL));
        let undo = Call::new("vault", "give_back", |_| Ok(Json::NULL));
        let steps = vec![Step::command("OPEN", Command::new(call("open")).undo(undo))];
        let definition = Definition { name: "d".into(), version: 1, steps, deadlines: vec![] };
        let fence = |held| Some(Fence { purpose: Purpose::Abandon, due: 1, attempts: 0, held, stands: false });
        let (effect, undo) = (("desk", Waits::Effect), ("vault", Waits::Undo));
        for (phase, status, undoing, fence, expected) in [
            (Phase::Forward, Status::Held, Undo::None, None, vec![effect]),
            (Phase::Unwinding, Status::Done, Undo::Held, None, vec![undo]),
            (Phase::Forward, Status::Held, Undo::None, fence(false), vec![]),
            (Phase::Forward, Status::Held, Undo::None, fence(true), vec![("desk", Waits::Undo)]),
            (Phase::Unwinding, Status::Done, Undo::Held, fence(true), vec![("desk", Waits::Undo)]),
            (Phase::Abandoning, Status::Held, Undo::None, None, vec![]),
            (Phase::Abandoned, Status::Done, Undo::Held, None, vec![]),
            (Phase::Abandoned, Status::Done, Undo::GaveUp, fence(true), vec![("desk", Waits::Undo)]),
        ] {
            let mut saga = Saga::new(uuid::Uuid::nil(), &definition, json!({}).into(), 0);
            (saga.phase, saga.steps[0].status, saga.steps[0].undo, saga.steps[0].fence) =
                (phase, status, undoing, fence);
            let expected: BTreeMap<String, Waits> = expected.into_iter().map(|(s, w)| (s.to_owned(), w)).collect();
            assert_eq!(held(&saga, &definition), expected, "{saga:?}");
        }
    }
}
