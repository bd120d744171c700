//! What operations share: the headers of their answers, and the errors that follow from what they take.

use eventicket_kit::{FieldError, Problem};
use serde_json::{Value, json};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, Header, Object, ObjectBuilder, Ref, RefOr, Response, Schema, Type,
};

use crate::idempotency::MAX_KEY;
use crate::paging::MAX_CURSOR;

/// The media type of errors.
pub const PROBLEM_JSON: &str = "application/problem+json";

const REQUEST_ID: &str = "X-Request-Id";
const RETRY_AFTER: &str = "Retry-After";
const AUTHENTICATE: &str = "WWW-Authenticate";
const PREFERENCE: &str = "Preference-Applied";
/// Where a client stands with its rate.
const RATES: [&str; 3] = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];

/// Routes that are asked when nothing else is right: without a rate.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Routes that need no service.
const PAGES: [&str; 2] = ["/docs", "/openapi.json"];

/// What an operation takes.
#[derive(Clone, Copy)]
struct Takes {
    body: bool,
    key: bool,
    preference: bool,
    path: bool,
    query: bool,
    token: bool,
    /// It counts for the rate of its client.
    rate: bool,
    /// Services answer for it.
    services: bool,
}

impl Takes {
    fn of(path: &str, operation: &Operation) -> Self {
        let parameters = || {
            operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                RefOr::T(parameter) => Some(parameter),
                RefOr::Ref(_) => None,
            })
        };
        let has = |place: ParameterIn| parameters().any(|p| p.parameter_in == place);
        let scheme = |needed| serde_json::to_value(needed).is_ok_and(|scheme| scheme != json!({}));
        let rate = !HEALTH.contains(&path);
        Self {
            body: operation.request_body.is_some(),
            key: parameters().any(|p| p.name == "Idempotency-Key"),
            preference: parameters().any(|p| p.name == "Prefer"),
            path: has(ParameterIn::Path),
            query: has(ParameterIn::Query),
            token: operation.security.iter().flatten().any(scheme),
            rate,
            services: rate && !PAGES.contains(&path),
        }
    }
}

/// An error that many operations have.
struct Common {
    /// Its name among the components.
    name: &'static str,
    status: u16,
    /// The first code is the example's.
    description: &'static str,
    /// Whether it comes from behind the count of requests, and so tells where that stands.
    counted: bool,
    applies: fn(Takes) -> bool,
}

/// An error from behind the count of requests.
const fn counted(name: &'static str, status: u16, description: &'static str, applies: fn(Takes) -> bool) -> Common {
    Common { name, status, description, counted: true, applies }
}

/// An error that may come before requests are counted.
const fn uncounted(name: &'static str, status: u16, description: &'static str) -> Common {
    Common { name, status, description, counted: false, applies: |_| true }
}

const COMMON: [Common; 14] = [
    counted("MalformedBody", 400, "`malformed_json`: the body is not JSON", |takes| takes.body && !takes.key),
    counted(
        "MalformedBodyOrKey",
        400,
        "`malformed_json`: the body is not JSON; or `idempotency_key_invalid`: the key is no key",
        |takes| takes.body && takes.key,
    ),
    counted("Unauthorized", 401, "`unauthorized`: no token, or one that does not hold", |takes| takes.token),
    counted("Forbidden", 403, "`forbidden`: this needs another role", |takes| takes.token),
    counted("NotFound", 404, "`not_found`: there is no such thing, or not for the asker", |takes| takes.path),
    counted("BodyTooSlow", 408, "`request_timeout`: the body took too long to arrive", |takes| takes.body),
    counted("BodyTooLarge", 413, "`body_too_large`: the body is too large", |takes| takes.body),
    uncounted("UriTooLong", 414, "`uri_too_long`: path and query are longer than 4,096 bytes"),
    counted("NotJson", 415, "`unsupported_media_type`: the body must be JSON", |takes| takes.body),
    counted("Invalid", 422, "`validation`: some fields are not valid", |takes| takes.body || takes.query),
    counted("RateLimited", 429, "`rate_limited`: too many requests", |takes| takes.rate),
    uncounted("HeadersTooLarge", 431, "`headers_too_large`: all headers together have more than 16 KiB"),
    uncounted("Internal", 500, "`internal`: something went wrong on our side"),
    counted("Unavailable", 503, "`unavailable`: a part of the platform does not answer", |takes| takes.services),
];

/// The components that [`complete`] refers to.
pub fn components() -> Components {
    let mut components = ComponentsBuilder::new()
        .header(REQUEST_ID, header(text(), "The request's id, as it was sent or made"))
        .header(RETRY_AFTER, header(integer(), "Seconds until another try is worth it"))
        .header(AUTHENTICATE, header(text(), "The scheme that is asked for"))
        .header(PREFERENCE, header(text(), "The wait that was granted, where one was asked for"))
        .header(RATES[0], header(integer(), "Requests that may come at once"))
        .header(RATES[1], header(integer(), "Those of them that are left"))
        .header(RATES[2], header(integer(), "Seconds until all are left again"));
    for common in &COMMON {
        let mut response = Response::new(common.description);
        finish(&mut response, common.status, common.counted);
        components = components.response(common.name, response);
    }
    components.build()
}

/// Adds the errors that follow from what an operation takes, gives every answer its headers and every error its body, and
/// says what parameters of a common name may be.
pub fn complete(path: &str, operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(schema) = parameter_schema(parameter)
        {
            parameter.schema = Some(schema.into());
        }
    }
    let takes = Takes::of(path, operation);
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let (Ok(status), RefOr::T(response)) = (status.parse(), response) {
            finish(response, status, takes.rate);
            if takes.preference && status < 300 {
                response.headers.insert(PREFERENCE.to_owned(), reference(PREFERENCE));
            }
        }
    }
    for common in COMMON.iter().filter(|common| (common.applies)(takes)) {
        let reference = || Ref::from_response_name(common.name).into();
        responses.entry(common.status.to_string()).or_insert_with(reference);
    }
}

/// What a header may be, and a cursor; a header that is not sent is absent, and never null.
fn parameter_schema(parameter: &Parameter) -> Option<Schema> {
    let (pattern, most) = match (parameter.name.as_str(), &parameter.parameter_in) {
        ("Idempotency-Key", _) => (Some("^[!-~]+$"), Some(MAX_KEY)),
        ("cursor", _) => (Some("^[A-Za-z0-9_-]+$"), Some(MAX_CURSOR)),
        (_, ParameterIn::Header) => (None, None),
        _ => return None,
    };
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(pattern);
    Some(text.min_length(most.map(|_| 1)).max_length(most).into())
}

/// Gives an answer the headers that it has by its status, and an error its body.
fn finish(response: &mut Response, status: u16, counted: bool) {
    let by_status = match status {
        401 => Some(AUTHENTICATE),
        429 | 503 => Some(RETRY_AFTER),
        _ => None,
    };
    let rates = RATES.into_iter().filter(|_| counted);
    for name in [REQUEST_ID].into_iter().chain(rates).chain(by_status) {
        response.headers.insert(name.to_owned(), reference(name));
    }
    if status >= 400 && response.content.is_empty() {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).example(Some(example(status, &response.description)));
        response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content.build()));
    }
}

fn reference(header: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{header}")))
}

fn example(status: u16, description: &str) -> Value {
    let code = description.split('`').nth(1).unwrap_or("internal");
    let text = description.split("`: ").nth(1).and_then(|t| t.split(';').next()).unwrap_or(description);
    let status_code = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    let mut problem = Problem::new(status_code, code, text);
    problem.request_id = Some("01936f0e-8f4e-7cc2-9a56-0242ac120002".to_owned());
    if code == "validation" {
        problem.errors.push(FieldError::new("name", "out_of_range", "1 to 100 characters"));
    }
    serde_json::to_value(problem).unwrap_or_default()
}

fn header(schema: Object, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Schema::Object(schema))).description(Some(description)).build()
}

fn text() -> Object {
    Object::with_type(Type::String)
}

fn integer() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).build()
}
