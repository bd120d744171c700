//! `/openapi.json`, and `/docs`: a page that shows it and needs nothing from any other host.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::openapi::openapi;

const PAGE: &str = include_str!("docs.html");
/// Neither changes while the process runs.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| serde_json::to_vec(&openapi()).unwrap_or_default().into());

/// Only the page's own style and script, by their hashes, and the document from here.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (style, script) = (hash("<style>", "</style>"), hash("<script>", "</script>"));
    let policy = format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn hash(open: &str, close: &str) -> String {
    let inside = PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(text, _)| text);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inside)))
}

/// This document
///
/// OpenAPI 3.1. It changes only with a new version of the platform.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "openapi",
    responses((status = 200, description = "The document", body = serde_json::Value,
        example = json!({"openapi": "3.1.0", "info": {"title": "EvenTicket", "version": env!("CARGO_PKG_VERSION")}, "paths": {}}))),
    security(()),
)]
pub async fn document() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::CACHE_CONTROL, CACHE)],
        DOCUMENT.clone(),
    )
}

/// This document as a page
///
/// It needs nothing from any other host.
#[utoipa::path(
    get, path = "/docs", tag = "operations", operation_id = "docs",
    responses((status = 200, description = "The page", body = String, content_type = "text/html",
        example = json!("<!doctype html>..."))),
    security(()),
)]
pub async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, CACHE),
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
    ];
    (headers, PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_no_other_host_and_no_inline_handlers() {
        for bad in ["http://", "https://", "//cdn", " onclick", " style=", "src="] {
            assert!(!PAGE.contains(bad), "{bad}");
        }
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
        assert!(PAGE.contains("<html lang=\"en\">") && PAGE.contains("<title>"));
    }
}
