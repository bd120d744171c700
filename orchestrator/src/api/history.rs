//! Query `history`: what happened to a saga, oldest first.

use eventicket_contracts::sagas::HistoryEntry;
use eventicket_contracts::{SagaId, Timestamp};
use eventicket_nats::QueryError;
use eventicket_saga::Entry;

use super::{Reader, failed, trace_id};
use crate::runtime::journal;

/// `None` where there is no such saga.
pub async fn get(reader: Reader, id: SagaId) -> Result<Option<Vec<HistoryEntry>>, QueryError> {
    let Some(row) = journal::load(&reader.pool, &[id]).await.map_err(|e| failed(&e))?.pop() else {
        return Ok(None);
    };
    let entries = journal::history(&reader.pool, id).await.map_err(|e| failed(&e))?.unwrap_or_default();
    let trace = row.trace.as_deref().and_then(trace_id);
    Ok(Some(entries.into_iter().map(|e| shown(e, trace.clone())).collect()))
}

fn shown(entry: Entry, trace_id: Option<String>) -> HistoryEntry {
    let what = serde_json::to_value(entry.what).ok();
    let about_step = entry.step.is_some();
    HistoryEntry {
        seq: entry.seq,
        at: Timestamp(entry.at),
        what: what.and_then(|w| w.as_str().map(str::to_owned)).unwrap_or_default(),
        round: entry.round.or(about_step.then_some(1)),
        attempt: entry.attempt.or(about_step.then_some(1)),
        step: entry.step,
        error: entry.error,
        duration_ms: entry.duration.and_then(|d| u64::try_from(d).ok()),
        actor: entry.actor,
        reason: entry.reason,
        trace_id,
    }
}
