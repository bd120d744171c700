//! The spans of sagas, made from what is recorded in their history; nothing of them is kept between two turns.
//!
//! The id of a span follows from its round, so that a service can name the step as its command's parent before the step
//! has ended and is recorded. A saga outside of the sample that goes wrong is kept all the same: its past is read from the
//! journal, and from then on it counts as sampled.

use std::time::Duration;

use eventicket_contracts::SagaId;
use eventicket_contracts::metrics as names;
use eventicket_nats::trace::{Span, Telling, Traceparent, is_exported, is_sampled, trace_id};
use eventicket_saga::{Entry, Half, Saga, Send, Status, Undo, What};
use metrics::{Counter, counter};
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::intake::Work;
use super::journal;
use super::row::Row;

mod story;

use story::{Story, half_id, start_id};

/// Failed sagas whose past waits to be read; of more that fail at once the spans are lost.
const WAITING: usize = 1_000;
/// Sagas that are read together, and the pause behind it: a storm of refusals costs no more than this.
const BATCH: usize = 100;
const PAUSE: Duration = Duration::from_millis(200);

/// Records what becomes of sagas.
pub(super) struct Spans {
    failed: mpsc::Sender<Failed>,
    lost: Counter,
}

/// A saga whose spans need its whole history.
struct Failed {
    saga: SagaId,
    definition: String,
    trace: Traceparent,
    /// Sequence numbers of the entries that are news, first and last.
    news: (u32, u32),
}

/// The `traceparent` of a command: below its step where that is recorded.
pub(super) fn of_command(row: &Row, send: &Send) -> Option<String> {
    let text = row.trace.as_deref()?;
    let kept = if is_kept(row) { Traceparent::parse(text) } else { None };
    let Some(trace) = kept else { return Some(text.to_owned()) };
    let span = match send.half {
        // It belongs to an operator's action, not to the step's own course.
        Half::Fence => start_id(row.id),
        half => half_id(row.id, &send.step, send.round, half == Half::Undo),
    };
    Some(Traceparent { span, sampled: true, ..trace }.to_string())
}

/// The span of a turn's transaction, linked to the sagas that it serves.
pub(super) fn transaction<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<Span> {
    if !is_exported() {
        return None;
    }
    let place = |row: &Row| {
        let trace = row.trace.as_deref().and_then(Traceparent::parse)?;
        Some(Traceparent { span: start_id(row.id), sampled: true, ..trace })
    };
    Span::linked("orchestrator turn", rows.filter(|row| is_kept(row)).filter_map(place))
}

fn is_kept(row: &Row) -> bool {
    is_exported() && (is_sampled(row.trace.as_deref()) || went_wrong(&row.saga))
}

fn went_wrong(saga: &Saga) -> bool {
    let wrong = |step: &eventicket_saga::StepState| {
        step.rejections > 0 || step.status == Status::Unknown || step.undo == Undo::GaveUp
    };
    saga.reason.is_some() || !saga.attention.is_empty() || saga.steps.iter().any(wrong)
}

/// Whether it tells of something that went wrong, or of the way back from it.
fn is_wrong(entry: &Entry) -> bool {
    use What::{Abandoned, Attention, Compensated, Dead, Rejected, Replaced, Skipped, Unknown, Unwinding};
    use What::{UndoDispatched, UndoGaveUp, Undone};
    matches!(entry.what, Abandoned | Attention | Compensated | Dead | Rejected | Replaced | Skipped | Unknown)
        || matches!(entry.what, Unwinding | UndoDispatched | UndoGaveUp | Undone)
}

impl Spans {
    /// Its reader of pasts ends with it.
    pub fn new(pool: PgPool) -> Self {
        let (failed, waiting) = mpsc::channel(WAITING);
        if is_exported() {
            tokio::spawn(read_pasts(pool, waiting));
        }
        Self { failed, lost: counter!(names::TRACES_LOST) }
    }

    /// Records actions that a saga took: a request of a trace of its own each, linked to the saga's.
    pub fn acted(&self, row: &Row, works: &[Work]) {
        for work in works {
            let Work::Act(act, _) = work else { continue };
            let name = || format!("{} acted upon", row.saga.definition);
            let Some(mut span) = Span::below(act.trace.as_deref(), Telling::Consumer, name) else { continue };
            span.set("eventicket.saga", row.id.to_string());
            if let Some(trace) = row.trace.as_deref().and_then(Traceparent::parse) {
                span.link(Traceparent { span: start_id(row.id), ..trace });
            }
        }
    }

    /// Records what the news of a saga, which are stored, have ended.
    pub fn tell(&self, row: &Row) {
        let Row { id: saga, trace, .. } = row;
        tracing::debug!(%saga, trace_id = trace_id(trace.as_deref()), state = row.saga.state().name(), "stored");
        if !is_kept(row) {
            return;
        }
        let trace = row.trace.as_deref().and_then(Traceparent::parse);
        let (Some(trace), Some(first), Some(last)) = (trace, row.news.first(), row.news.last()) else { return };
        let (saga, definition, news) = (row.id, &row.saga.definition, (first.seq, last.seq));
        if row.news.iter().any(is_wrong) {
            let failed = Failed { saga, definition: definition.clone(), trace, news };
            if self.failed.try_send(failed).is_err() {
                self.lost.increment(1);
            }
            return;
        }
        let story = Story { saga, definition, trace, entries: &row.news };
        story.spans(first.seq).into_iter().for_each(|span| span.record());
    }
}

async fn read_pasts(pool: PgPool, mut waiting: mpsc::Receiver<Failed>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let ids: Vec<SagaId> = batch.iter().map(|failed| failed.saga).collect();
        match journal::histories(&pool, &ids).await {
            Ok(histories) => {
                for failed in batch.drain(..) {
                    let Some(history) = histories.get(&failed.saga) else { continue };
                    failed.spans(history).into_iter().for_each(|span| span.record());
                }
            }
            Err(error) => {
                tracing::warn!(%error, sagas = batch.len(), "spans of failed sagas are lost");
                batch.clear();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Failed {
    /// Everything that ended in the news; of a saga outside of the sample also everything before its first failure.
    fn spans(&self, history: &[Entry]) -> Vec<eventicket_nats::trace::Past> {
        let (first, last) = self.news;
        let until = history.partition_point(|entry| entry.seq <= last);
        let entries = &history[..until];
        let was_kept = self.trace.sampled || entries.iter().any(|entry| entry.seq < first && is_wrong(entry));
        let Self { saga, definition, trace, .. } = self;
        let story = Story { saga: *saga, definition, trace: *trace, entries };
        story.spans(if was_kept { first } else { 0 })
    }
}

#[cfg(test)]
mod tests;
