//! The text of a trace: `00-<trace id>-<span id>-<flags>`.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

use super::sampling::is_exported;

/// Ending of the text of a trace that is recorded.
const SAMPLED: &str = "-01";

/// A place in a trace, as a `traceparent` of W3C's version 00 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace.
    pub trace: TraceId,
    /// The span that whatever follows is below.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl Traceparent {
    /// The place that a text names; `None` where it is none: lower-case hexadecimal, neither id zero.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(5, '-').collect();
        let hex = |s: &str, len| s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let ["00", trace, span, flags] = parts[..] else { return None };
        if !(hex(trace, 32) && hex(span, 16) && hex(flags, 2)) {
            return None;
        }
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let place = Self { trace, span, sampled: flags.is_sampled() };
        (trace != TraceId::INVALID && span != SpanId::INVALID).then_some(place)
    }

    /// As OpenTelemetry takes a parent from elsewhere.
    pub(super) fn context(self) -> Context {
        Context::new().with_remote_span_context(self.remote())
    }

    /// As OpenTelemetry takes the end of a link.
    pub(super) fn remote(self) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.trace, self.span, flags, true, TraceState::default())
    }

    pub(super) fn of(span: &SpanContext) -> Self {
        Self { trace: span.trace_id(), span: span.span_id(), sampled: span.is_sampled() }
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-0{}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Whether what follows from this text is recorded.
pub fn is_sampled(traceparent: Option<&str>) -> bool {
    traceparent.is_some_and(|text| text.ends_with(SAMPLED)) && is_exported()
}

/// The id of the trace that a text names, for logs.
pub fn trace_id(traceparent: Option<&str>) -> Option<&str> {
    traceparent?.split('-').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_it_is_written_and_a_malformed_one_is_none() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let place = Traceparent::parse(text).unwrap();
        assert!(place.sampled && place.to_string() == text, "{place}");
        assert!(!Traceparent::parse(&text.replace("-01", "-00")).unwrap().sampled);
        let bad = [
            "",
            "00-0-0-01",
            "ff-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "00-0AF7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-x",
        ];
        for bad in bad {
            assert_eq!(Traceparent::parse(bad), None, "{bad}");
        }
    }
}
