//! Ids of traces and spans: random, or chosen by whoever records a span that others have named as their parent before.

use std::cell::Cell;

use opentelemetry::trace::{SpanId, TraceId};

thread_local! {
    static CHOSEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Runs `begin`, whose first span gets these ids.
pub(super) fn with<T>(trace: TraceId, span: SpanId, begin: impl FnOnce() -> T) -> T {
    CHOSEN.set(Some((trace, span)));
    let begun = begin();
    CHOSEN.set(None);
    begun
}

/// The id of a trace that begins now, for the exporter's generator of ids.
pub fn new_trace_id() -> TraceId {
    CHOSEN.get().map_or_else(|| TraceId::from(rand::random::<u128>().max(1)), |(trace, _)| trace)
}

/// The id of a span that begins now, for the exporter's generator of ids.
pub fn new_span_id() -> SpanId {
    CHOSEN.get().map_or_else(|| SpanId::from(rand::random::<u64>().max(1)), |(_, span)| span)
}
