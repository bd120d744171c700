//! W3C trace context across messages, over OpenTelemetry's own API; nothing is recorded where nothing is exported.

use std::collections::HashMap;

use opentelemetry::trace::{Link, Span as _, SpanContext, SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};

use crate::command::Delivered;

/// Name of the platform's tracer.
const TRACER: &str = "eventicket";
/// The header's name in W3C's specification.
const TRACEPARENT: &str = "traceparent";

/// The context that a `traceparent` names; empty where it is none.
pub fn context(traceparent: Option<&str>) -> Context {
    let Some(value) = traceparent else { return Context::new() };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), value.to_owned())]);
    global::get_text_map_propagator(|p| p.extract_with_context(&Context::new(), &carrier))
}

/// The `traceparent` of a context; `None` where it has no span.
pub fn traceparent(context: &Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| header(span))
}

fn header(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

fn sampled(traceparent: Option<&str>) -> bool {
    traceparent.is_some_and(|t| t.ends_with("-01"))
}

/// The spans of a batch: one for each traced command, below its step, and one for the batch, linked to them.
pub(crate) struct BatchSpans {
    items: Vec<Option<global::BoxedSpan>>,
    batch: Option<global::BoxedSpan>,
}

impl BatchSpans {
    /// Begins them. `None`s only, and no cost, where nothing of the batch is sampled.
    pub(crate) fn begin(service: &str, batch: &[Delivered]) -> Self {
        if !batch.iter().any(|d| sampled(d.item.trace.as_deref())) {
            return Self { items: Vec::new(), batch: None };
        }
        let tracer = global::tracer(TRACER);
        let begin = |d: &Delivered| {
            let trace = d.item.trace.as_deref();
            sampled(trace).then(|| {
                let attributes = vec![
                    KeyValue::new("eventicket.saga", d.item.key.saga.to_string()),
                    KeyValue::new("eventicket.step", d.item.key.step.clone()),
                    KeyValue::new("eventicket.attempt", i64::from(d.item.attempt)),
                    KeyValue::new("messaging.system", "nats"),
                ];
                let name = format!("{service}.{}", d.action);
                let builder = tracer.span_builder(name).with_kind(SpanKind::Consumer).with_attributes(attributes);
                builder.start_with_context(&tracer, &context(trace))
            })
        };
        let items: Vec<Option<global::BoxedSpan>> = batch.iter().map(begin).collect();
        let links = items.iter().flatten().map(|s| Link::with_context(s.span_context().clone())).collect();
        let size = KeyValue::new("eventicket.batch", i64::try_from(batch.len()).unwrap_or(i64::MAX));
        let builder = tracer.span_builder(format!("{service} batch")).with_links(links).with_attributes([size]);
        let batch = Some(builder.start_with_context(&tracer, &Context::new()));
        Self { items, batch }
    }

    /// The `traceparent` of an item's span.
    pub(crate) fn of(&self, at: usize) -> Option<String> {
        let span = self.items.get(at)?.as_ref()?.span_context();
        span.is_valid().then(|| header(span))
    }

    /// Ends them; an item that failed has an error's text.
    pub(crate) fn end(mut self, failed: impl Fn(usize) -> Option<String>) {
        for (at, span) in self.items.iter_mut().enumerate() {
            let Some(span) = span else { continue };
            if let Some(error) = failed(at) {
                span.set_status(opentelemetry::trace::Status::error(error));
            }
            span.end();
        }
        if let Some(batch) = &mut self.batch {
            batch.end();
        }
    }
}
