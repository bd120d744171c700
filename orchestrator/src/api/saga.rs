//! Query `saga`: one saga with its steps.

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{SagaDetail, SagaStep};
use eventicket_nats::QueryError;
use eventicket_saga::{Status, StepState, Undo};

use super::{Reader, failed, summary};
use crate::runtime::journal;

/// `None` where there is no such saga.
pub async fn get(reader: Reader, id: SagaId) -> Result<Option<SagaDetail>, QueryError> {
    let Some(row) = journal::load(&reader.pool, &[id]).await.map_err(|e| failed(&e))?.pop() else {
        return Ok(None);
    };
    let definition = reader.catalogue.registry.get(&row.saga.definition, row.saga.version);
    let named = |at: usize| definition.and_then(|d| d.steps.get(at)).map_or_else(|| at.to_string(), |s| s.name.clone());
    let steps = row.saga.steps.iter().enumerate().map(|(at, step)| SagaStep {
        name: named(at),
        state: state(step).to_owned(),
        round: step.round,
        attempts: step.attempts,
        output: step.output.value(),
        error: step.error.as_ref().map(|(code, _)| code.clone()),
    });
    Ok(Some(SagaDetail {
        summary: summary(&reader.catalogue, &row),
        input: row.saga.input.value(),
        steps: steps.collect(),
    }))
}

fn state(step: &StepState) -> &'static str {
    match (step.undo, step.status) {
        (Undo::Done, _) => "undone",
        (Undo::Resolved, _) => "resolved",
        (Undo::GaveUp, _) => "undo_gave_up",
        (Undo::Queued | Undo::Held | Undo::Sent(_) | Undo::Backoff(_) | Undo::Pending(_), _) => "undoing",
        (Undo::None, Status::Idle) => "idle",
        (Undo::None, Status::Held) => "held",
        (Undo::None, Status::Sent(_)) => "dispatched",
        (Undo::None, Status::Backoff(_)) => "retrying",
        (Undo::None, Status::Pending(_)) => "pending",
        (Undo::None, Status::Waiting(_)) => "waiting",
        (Undo::None, Status::Done) => "done",
        (Undo::None, Status::Rejected) => "rejected",
        (Undo::None, Status::Unknown) => "unknown",
        (Undo::None, Status::Omitted) => "omitted",
        (Undo::None, Status::Skipped) => "skipped",
    }
}
