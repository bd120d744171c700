//! What answers a request.

use bytes::Bytes;
use eventicket_kit::server::{Whole, status};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

const REPLAYED: &str = "idempotent-replayed";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// An answer, its body as it leaves.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Bytes,
    /// The body's media type.
    pub kind: &'static str,
    /// It was stored before.
    pub replayed: bool,
    /// The connection is to be cut in its place.
    pub unheard: bool,
}

impl Answer {
    /// JSON that is written already.
    pub fn json(status: u16, body: Bytes) -> Self {
        Self { status, body, kind: JSON, replayed: false, unheard: false }
    }

    /// A success.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::json(200, json(body))
    }

    /// A page for people.
    pub fn page(status: u16, html: String) -> Self {
        Self { kind: HTML, ..Self::json(status, html.into()) }
    }

    /// Text.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self { kind: TEXT, ..Self::json(200, text.into()) }
    }

    /// As HTTP; `None` where the connection is to be cut.
    pub fn response(self) -> Option<Whole> {
        if self.unheard {
            return None;
        }
        let mut response = status(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        *response.body_mut() = self.body.into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Some(response)
    }
}

/// What no map with keys that are not texts is part of, so that writing it cannot fail.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
