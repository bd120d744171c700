//! W3C trace context: taken from the client or made, and handed on to the sagas.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The trace of a request; an extension of each.
#[derive(Clone)]
pub struct Trace {
    span: Span,
    /// What the client sent, where it was well formed.
    given: Option<String>,
}

impl Trace {
    /// Puts the request's span below the client's, where it sent one.
    pub fn begin(span: &Span, headers: &HeaderMap) -> Self {
        let header = headers.get("traceparent").and_then(|v| v.to_str().ok());
        let given = header.filter(|h| well_formed(h)).map(str::to_owned);
        if given.is_some() {
            // Fails only where the span is not recorded.
            let _ = span.set_parent(eventicket_nats::trace::context(given.as_deref()));
        }
        Self { span: span.clone(), given }
    }

    /// The `traceparent` for whatever the request causes.
    pub fn traceparent(&self) -> String {
        if let Some(exported) = eventicket_nats::trace::traceparent(&self.span.context()) {
            return exported;
        }
        // Nothing is exported here: the client's trace goes on, or one is made that is not sampled, so that the
        // request's logs and its saga can still be found by one id.
        self.given.clone().unwrap_or_else(|| {
            let (trace, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
            format!("00-{trace:032x}-{span:016x}-00")
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self { span: Span::current(), given: None }))
    }
}

/// `00-<trace id>-<span id>-<flags>` in lower-case hex, neither id zero.
fn well_formed(header: &str) -> bool {
    let parts: Vec<&str> = header.split('-').collect();
    let hex = |s: &str, len| s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let id = |s: &str, len| hex(s, len) && s.bytes().any(|b| b != b'0');
    matches!(parts[..], ["00", trace, span, flags] if id(trace, 32) && id(span, 16) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_clients_trace_goes_on_and_a_malformed_one_is_replaced() {
        let of = |header: &'static str| {
            let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::from_static(header))]);
            Trace::begin(&Span::none(), &headers).traceparent()
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(good), good);
        for bad in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-0af7"] {
            let made = of(bad);
            assert!(well_formed(&made) && made.ends_with("-00"), "{made}");
        }
    }
}
