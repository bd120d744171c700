//! Versions as entity tags: `ETag`, `If-Match`, `If-None-Match`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use eventicket_contracts::codes;
use eventicket_kit::Problem;

/// May be kept by the client, but asked for again with `If-None-Match` before each use.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

fn tag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The answer with its version's tag, or 304 where the client has that version.
pub fn answer(request: &HeaderMap, version: i64, body: impl IntoResponse) -> Response {
    let tag = tag(version);
    let mut response =
        if known(request, &tag) { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    put(response.headers_mut(), &tag);
    response.headers_mut().insert(header::CACHE_CONTROL, REVALIDATE);
    response
}

/// The answer to a write with the new version's tag.
pub fn tagged(version: i64, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    put(response.headers_mut(), &tag(version));
    response
}

fn put(headers: &mut HeaderMap, tag: &str) {
    headers.extend(HeaderValue::try_from(tag).ok().map(|v| (header::ETAG, v)));
}

/// Whether `If-None-Match` has this tag; compared weakly, as RFC 9110 has it.
fn known(request: &HeaderMap, tag: &str) -> bool {
    let values = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag)
}

/// `If-Match`, compared strongly.
#[derive(Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Not sent.
    Absent,
    /// `*`.
    Any,
    /// One of these versions; tags that are not ours match nothing.
    Versions(Vec<i64>),
}

impl IfMatch {
    /// 428 where it was not sent.
    pub fn required(self) -> Result<Self, Problem> {
        if self != Self::Absent {
            return Ok(self);
        }
        Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition_required",
            "Say with If-Match which version is meant",
        ))
    }

    /// 412 where it is about another version.
    pub fn check(&self, version: i64) -> Result<(), Problem> {
        match self {
            Self::Versions(versions) if !versions.contains(&version) => Err(Problem::new(
                StatusCode::PRECONDITION_FAILED,
                codes::VERSION_CONFLICT,
                "It was changed since it was read",
            )),
            _ => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if !parts.headers.contains_key(header::IF_MATCH) {
            return Ok(Self::Absent);
        }
        let values = parts.headers.get_all(header::IF_MATCH).iter().filter_map(|v| v.to_str().ok());
        let tags: Vec<&str> = values.flat_map(|v| v.split(',')).map(str::trim).collect();
        if tags.contains(&"*") {
            return Ok(Self::Any);
        }
        let version = |t: &&str| t.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
        Ok(Self::Versions(tags.iter().filter_map(version).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    async fn if_match(value: Option<&str>) -> IfMatch {
        let request = Request::builder();
        let request = value.into_iter().fold(request, |r, v| r.header(header::IF_MATCH, v));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        IfMatch::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn only_the_version_that_was_read_passes() {
        assert_eq!(if_match(None).await.required().unwrap_err().status, 428);
        assert!(if_match(Some("*")).await.check(7).is_ok());
        assert!(if_match(Some("\"6\", \"7\"")).await.check(7).is_ok());
        for bad in ["\"6\"", "W/\"7\"", "7", "\"x\"", ""] {
            assert_eq!(if_match(Some(bad)).await.required().unwrap().check(7).unwrap_err().status, 412, "{bad}");
        }
    }

    #[test]
    fn a_known_version_is_not_sent_again() {
        let asked =
            |value: &'static str| HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
        for (value, status) in [("\"7\"", 304), ("W/\"7\"", 304), ("*", 304), ("\"1\", \"7\"", 304), ("\"8\"", 200)] {
            let response = answer(&asked(value), 7, "body");
            assert_eq!(
                (response.status().as_u16(), response.headers()[header::ETAG].as_bytes()),
                (status, &b"\"7\""[..])
            );
        }
    }
}
