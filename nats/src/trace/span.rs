//! Spans: those that are under way, and those that are recorded once all is known of them.

use std::time::SystemTime;

use opentelemetry::trace::{Link, Span as _, SpanId, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue, global};

use super::ids;
use super::sampling::is_exported;
use super::traceparent::{Traceparent, is_sampled};

/// Name of the platform's tracer.
pub(super) const TRACER: &str = "eventicket";

/// What a span tells of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Something is done for whoever asked and waits.
    Server,
    /// Something is asked of another process, and its answer is waited for.
    Client,
    /// A message is handled.
    Consumer,
    /// A message leaves.
    Producer,
    /// Nothing crosses the process.
    Internal,
}

impl Telling {
    pub(super) fn kind(self) -> SpanKind {
        match self {
            Self::Server => SpanKind::Server,
            Self::Client => SpanKind::Client,
            Self::Consumer => SpanKind::Consumer,
            Self::Producer => SpanKind::Producer,
            Self::Internal => SpanKind::Internal,
        }
    }
}

/// A span under way; it ends when it is dropped.
pub struct Span(global::BoxedSpan);

impl Span {
    /// A span below `parent`; `None`, and no cost, where that is not recorded.
    pub fn below(parent: Option<&str>, telling: Telling, name: impl FnOnce() -> String) -> Option<Self> {
        let parent = parent.filter(|text| is_sampled(Some(text))).and_then(Traceparent::parse)?;
        Some(Self::begin(parent.context(), telling, name()))
    }

    /// A span that begins a trace.
    pub fn root(trace: Traceparent, telling: Telling, name: String) -> Self {
        ids::with(trace.trace, trace.span, || Self::begin(Context::new(), telling, name))
    }

    /// A span of work done for many traces at once, linked to these places; `None` where there are none.
    pub fn linked(name: &'static str, places: impl IntoIterator<Item = Traceparent>) -> Option<Self> {
        let links: Vec<Link> = places.into_iter().map(|place| Link::with_context(place.remote())).collect();
        if links.is_empty() || !is_exported() {
            return None;
        }
        let tracer = global::tracer(TRACER);
        let builder = tracer.span_builder(name).with_links(links);
        Some(Self(builder.start_with_context(&tracer, &Context::new())))
    }

    fn begin(parent: Context, telling: Telling, name: String) -> Self {
        let tracer = global::tracer(TRACER);
        let builder = tracer.span_builder(name).with_kind(telling.kind());
        Self(builder.start_with_context(&tracer, &parent))
    }

    /// Its place, for whatever is below it.
    pub fn place(&self) -> Traceparent {
        Traceparent::of(self.0.span_context())
    }

    /// Adds what is known of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    /// Links it to another place, as one that it brings something about at.
    pub fn link(&mut self, place: Traceparent) {
        self.0.add_link(place.remote(), Vec::new());
    }

    /// It failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.0.set_status(Status::error(why.into()));
    }
}

/// A span that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Its own place, which others may have named as their parent already.
    pub place: Traceparent,
    /// The span that it is below; none where that was not recorded.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: String,
    /// From when until when.
    pub time: (SystemTime, SystemTime),
    /// What else is known of it.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Past {
    /// Records it.
    pub fn record(self) {
        let Self { place, parent, name, time: (begin, end), attributes, error } = self;
        let above = parent.map(|span| Traceparent { span, sampled: true, ..place }.context()).unwrap_or_default();
        let tracer = global::tracer(TRACER);
        let attributes = attributes.into_iter().map(|(name, value)| KeyValue::new(name, value));
        let builder = tracer.span_builder(name).with_start_time(begin).with_attributes(attributes);
        let mut span = ids::with(place.trace, place.span, || builder.start_with_context(&tracer, &above));
        if let Some(error) = error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(end);
    }
}
