//! W3C trace context: taken from the client or made, and handed on to the sagas.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use eventicket_nats::trace::{Span, Telling, TraceId, Traceparent};
use eventicket_nats::trace::{is_exported, new_span_id, new_trace_id, sampling};

/// The trace of a request; an extension of each.
#[derive(Clone, Copy)]
pub struct Trace(Traceparent);

impl Trace {
    /// The request's place in the client's trace, where it sent one, or in a new one, with its span where that is recorded.
    pub fn begin(headers: &HeaderMap, name: impl FnOnce() -> String) -> (Self, Option<Span>) {
        let header = headers.get("traceparent").and_then(|v| v.to_str().ok());
        let given = header.and_then(Traceparent::parse);
        let (trace, span) = (given.map_or_else(new_trace_id, |given| given.trace), new_span_id());
        let sampled = sampling().keeps(trace, given);
        let place = Traceparent { trace, span, sampled };
        // Where nothing is recorded, a client's own place goes on; one that is made serves to find the request's logs and
        // its saga by one id.
        if !is_exported() {
            return (Self(given.unwrap_or(place)), None);
        }
        if !sampled {
            return (Self(given.map_or(place, |given| Traceparent { sampled, ..given })), None);
        }
        let span = match given {
            Some(given) => {
                let parent = Traceparent { sampled, ..given }.to_string();
                Span::below(Some(&parent), Telling::Server, name)
            }
            None => Some(Span::root(place, Telling::Server, name())),
        };
        (Self(span.as_ref().map_or(place, Span::place)), span)
    }

    /// Where whatever the request causes stands.
    pub fn place(&self) -> Traceparent {
        self.0
    }

    /// The trace's id.
    pub fn id(&self) -> TraceId {
        self.0.trace
    }

    /// The `traceparent` for whatever the request causes.
    pub fn traceparent(&self) -> String {
        self.0.to_string()
    }
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().copied();
        Ok(known.unwrap_or_else(|| Self::begin(&HeaderMap::new(), String::new).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_clients_trace_goes_on_and_a_malformed_one_is_replaced() {
        let of = |header: &'static str| {
            let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::from_static(header))]);
            Trace::begin(&headers, String::new).0.traceparent()
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(good), good);
        for bad in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-0af7"] {
            let made = of(bad);
            assert!(Traceparent::parse(&made).is_some_and(|made| !made.sampled), "{made}");
        }
    }
}
