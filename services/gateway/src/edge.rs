//! The outermost layer: request id, trace, log, metrics, panics, sizes, and the headers that every answer has.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use eventicket_kit::Problem;
use eventicket_kit::problem::with_request_id;
use eventicket_nats::trace;
use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::{Instrument as _, field};
use uuid::Uuid;

use crate::figures::{self, UnderWay};
use crate::trace::Trace;

/// Longest path with its query.
const MAX_URI: usize = 4_096;
/// Most bytes of all headers together.
const MAX_HEADERS: usize = 16_384;
/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;
/// Route of requests that have none, so that made-up paths make no time series.
const NO_ROUTE: &str = "none";

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps every request.
pub async fn edge(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let (trace, mut recorded) = Trace::begin(request.headers(), || format!("{method} {route}"));
    let (trace_id, request_id) = (trace.id(), &id);
    let span = tracing::info_span!("request", method, route, %request_id, %trace_id, status = field::Empty);
    request.extensions_mut().insert(trace);
    let under_way = UnderWay::begin();

    let handled = trace::within(Some(trace.place()), guarded(request, next).instrument(span.clone()));
    let mut response = with_request_id(id.clone(), handled).await;

    let status = response.status();
    drop(under_way);
    if let Some(recorded) = &mut recorded {
        tell(recorded, method, route, &id, status);
    }
    finish(&span, status, started);
    figures::answered(method, route, status, started.elapsed());
    decorate(response.headers_mut(), &id);
    response
}

/// Refuses what is too long, and answers panics.
async fn guarded(request: Request, next: Next) -> Response {
    if let Some(problem) = too_long(&request) {
        return problem.into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(panic = text.unwrap_or("of another kind"), "a request panicked");
            Problem::internal().into_response()
        }
    }
}

fn too_long(request: &Request) -> Option<Problem> {
    if request.uri().path_and_query().is_some_and(|p| p.as_str().len() > MAX_URI) {
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", "The address is too long"));
    }
    let size: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (size > MAX_HEADERS).then(|| {
        Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The headers are too large")
    })
}

/// The client's own id where it is sane: letters, digits, `-`, `_`, `.`.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(&REQUEST_ID).and_then(|v| v.to_str().ok()).filter(sane);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// As a label: of a bounded number.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        _ => "OTHER",
    }
}

fn finish(span: &tracing::Span, status: StatusCode, started: Instant) {
    span.record("status", status.as_u16());
    let _in_span = span.enter();
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if status.is_server_error() {
        tracing::warn!(duration_ms, "failed");
    } else {
        tracing::debug!(duration_ms, "answered");
    }
}

/// By the names of OpenTelemetry's conventions.
fn tell(span: &mut trace::Span, method: &'static str, route: &str, id: &str, status: StatusCode) {
    span.set("http.request.method", method);
    span.set("http.route", route.to_owned());
    span.set("http.response.status_code", i64::from(status.as_u16()));
    span.set("eventicket.request_id", id.to_owned());
    if status.is_server_error() {
        span.fail(status.as_str());
    }
}

/// The headers that every answer has, where the endpoint did not set its own.
fn decorate(headers: &mut HeaderMap, id: &str) {
    headers.extend(HeaderValue::try_from(id).ok().map(|v| (REQUEST_ID.clone(), v)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}
