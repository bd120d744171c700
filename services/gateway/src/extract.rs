//! Extractors whose rejections are problems.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use eventicket_contracts::identity::Idempotency;
use eventicket_kit::{FieldError, Problem};
use futures::StreamExt as _;
use serde::Deserializer;
use serde::de::DeserializeOwned;

use crate::app::Shared;
use crate::idempotency;

/// Most bytes of a request's body.
pub const MAX_BODY: usize = 65_536;
/// Most bytes of an event: it holds the labels of all seats.
pub const MAX_EVENT: usize = 524_288;
/// Most characters of a reason.
const MAX_REASON: usize = 500;
/// Most unknown fields that an answer names.
const MOST_UNKNOWN: usize = 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body of at most `MAX` bytes, with the request's idempotency key; `KEYED` where one is required.
pub struct JsonBody<T, const KEYED: bool = false, const MAX: usize = MAX_BODY> {
    /// The body.
    pub value: T,
    /// The key with the fingerprint of the request, where one was sent.
    pub idempotency: Option<Idempotency>,
}

/// A JSON body of a request that needs an idempotency key.
pub type KeyedBody<T> = JsonBody<T, true>;

/// A JSON body that may be as large as an event.
pub type EventBody<T> = JsonBody<T, false, MAX_EVENT>;

impl<T: DeserializeOwned, const KEYED: bool, const MAX: usize> FromRequest<Shared> for JsonBody<T, KEYED, MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let key = idempotency::key(&parts.headers)?;
        if KEYED && key.is_none() {
            return Err(idempotency::required());
        }
        content_type(&parts.headers)?;
        let bytes = read(&parts.headers, body, MAX).await?;
        let value = parse(&bytes)?;
        let fingerprint = || app.fingerprints.of(&parts.method, parts.uri.path(), &bytes);
        Ok(Self { value, idempotency: key.map(|key| Idempotency { fingerprint: fingerprint(), key }) })
    }
}

/// `application/json`, or another type whose name says that it is JSON.
fn content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be application/json"))
}

async fn read(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > most) {
        return Err(too_large(most));
    }
    let collect = async {
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| malformed("the body ended early"))?;
            if bytes.len() + chunk.len() > most {
                return Err(too_large(most));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, collect).await.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body took too long to arrive"))
    })
}

fn too_large(most: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
        .with_detail(format!("at most {most} bytes"))
}

fn malformed(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", "The body is not JSON").with_detail(why)
}

/// Reads JSON: 400 where it is none, 422 with the field at fault where it is not what it should be.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(&mut json, |path| unknown.push(written(&path)));
    match read.and_then(|value| json.end().map(|()| value)) {
        Ok(value) => known(value, unknown),
        // Read again with its path kept, which the good case need not pay for.
        Err(error) if error.is_data() => {
            let mut again = serde_json::Deserializer::from_slice(bytes);
            match located::<T, _>(&mut again) {
                Err(problem) => Err(problem),
                Ok(_) => Err(malformed(error.to_string())),
            }
        }
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// Reads a value; the problem names the field at fault.
pub fn located<'de, T, D>(from: D) -> Result<T, Problem>
where
    T: serde::Deserialize<'de>,
    D: Deserializer<'de>,
    D::Error: std::fmt::Display,
{
    let (mut track, mut unknown) = (serde_path_to_error::Track::new(), Vec::new());
    let tracked = serde_path_to_error::Deserializer::new(from, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| unknown.push(written(&path)));
    match read {
        Ok(value) => known(value, unknown),
        Err(error) => Err(Problem::validation(vec![at_fault(&track.path().to_string(), &error.to_string())])),
    }
}

/// The value, where every field of it is known. Services ignore what they do not know, so that they can be upgraded one
/// by one; a client that writes a field that does not exist means something that would not happen.
fn known<T>(value: T, unknown: Vec<String>) -> Result<T, Problem> {
    if unknown.is_empty() {
        return Ok(value);
    }
    let error = |field| FieldError::new(field, "unknown_field", "there is no such field");
    Err(Problem::validation(unknown.into_iter().take(MOST_UNKNOWN).map(error).collect()))
}

/// A path as fields are named, as `items[0].more`.
fn written(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => written(parent),
    }
}

/// The field at fault, from serde's words for it.
fn at_fault(path: &str, message: &str) -> FieldError {
    let message = message.split(" at line ").next().unwrap_or(message);
    let quoted = || message.split('`').nth(1).unwrap_or_default();
    let path = if path == "." { "" } else { path };
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if message.starts_with("missing field") {
        FieldError::new(below(quoted()), "required", "must be given")
    } else if message.starts_with("unknown field") {
        // The path may end with the field already.
        let known = path == quoted() || path.ends_with(&format!(".{}", quoted()));
        FieldError::new(if known { path.to_owned() } else { below(quoted()) }, "unknown_field", message)
    } else if message.starts_with("duplicate field") {
        FieldError::new(path, "duplicate", message)
    } else {
        FieldError::new(path, "invalid", message)
    }
}

/// Why an operator acts: 1 to 500 characters of one line.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 500, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", example = "the payment gateway is back")]
pub struct Reason(String);

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let good = !text.trim().is_empty() && text.chars().count() <= MAX_REASON && !text.chars().any(char::is_control);
        if good {
            Ok(Self(text))
        } else {
            Err(format!("1 to {MAX_REASON} characters, none of them a control character"))
        }
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

/// An id in the path; what cannot be one names nothing.
pub struct Id<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, app).await;
        path.map(|p| Self(p.0)).map_err(|_| Problem::not_found())
    }
}

/// The query string; parameters that are not known are refused, since a filter that is ignored answers another question.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri).map(|q| Self(q.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            let (path, message) = text.split_once(": ").unwrap_or(("", text));
            Problem::validation(vec![at_fault(path, message)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        items: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: u32,
        price: Option<Price>,
    }

    /// As it travels between services, where unknown fields are ignored.
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Price {
        amount: u32,
    }

    fn fault(json: &str) -> (u16, String, String) {
        let problem = parse::<Outer>(json.as_bytes()).unwrap_err();
        let first = problem.errors.first();
        let (field, code) = first.map(|e| (e.field.clone(), e.code.clone())).unwrap_or_default();
        (problem.status, field, code)
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let named = |field: &str, code: &str| (422, field.to_owned(), code.to_owned());
        assert_eq!(fault(r#"{"items":[{"count":1},{"count":-1}]}"#), named("items[1].count", "invalid"));
        assert_eq!(fault(r#"{"items":[{}]}"#), named("items[0].count", "required"));
        assert_eq!(fault(r#"{}"#), named("items", "required"));
        assert_eq!(fault(r#"{"items":[{"count":1,"more":2}]}"#), named("items[0].more", "unknown_field"));
        assert_eq!(fault(r#"{"items":[],"more":2}"#), named("more", "unknown_field"));
        let inner = r#"{"items":[{"count":1},{"count":1,"price":{"amount":1,"more":2}}]}"#;
        assert_eq!(fault(inner), named("items[1].price.more", "unknown_field"));
        let inner: serde_json::Value = serde_json::from_str(inner).unwrap();
        let errors = located::<Outer, _>(inner).unwrap_err().errors;
        assert_eq!((errors.len(), errors[0].field.as_str()), (1, "items[1].price.more"));
        assert_eq!(fault("[]"), named("", "invalid"));
        assert_eq!(fault("3"), named("", "invalid"));
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for bad in ["", "{", "{\"items\":[]} x", "{'items':[]}", "nope"] {
            assert_eq!(fault(bad).0, 400, "{bad}");
        }
    }

    #[test]
    fn the_type_of_the_body_must_be_json() {
        let check = |value: &'static str| {
            content_type(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())])).is_ok()
        };
        assert!(
            check("application/json")
                && check("Application/JSON; charset=utf-8")
                && check("application/merge-patch+json")
        );
        assert!(!check("text/plain") && !check("application/x-www-form-urlencoded") && !check(""));
    }
}
