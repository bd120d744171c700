//! W3C trace context across messages, over OpenTelemetry's own API.
//!
//! A trace travels as the text of its `traceparent`. Whether it is recorded is decided once, at the edge ([`Sampling`]),
//! and stands in the text's flags; everybody behind it looks at the flags, so that what is not recorded costs no more
//! than that look. Nothing is recorded where nothing is exported ([`is_exported`]).

mod batch;
mod ids;
mod sampling;
mod span;
mod traceparent;
mod within;

pub use ids::{new_span_id, new_trace_id};
pub use opentelemetry::trace::{SpanId, TraceId};
pub use sampling::{Sampling, export, is_exported, sampling};
pub use span::{Past, Span, Telling};
pub use traceparent::{Traceparent, is_sampled, trace_id};
pub use within::{here, within};

pub(crate) use batch::BatchSpans;
pub(crate) use within::asked;
