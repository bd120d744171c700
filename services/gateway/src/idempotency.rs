//! `Idempotency-Key`: a repeated request finds the first one's result, kept by whoever owns the effect.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use eventicket_kit::Problem;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Says in an answer that it is the first request's.
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key.
pub const MAX_KEY: usize = 255;

/// The key of a request, where it has one: 1 to 255 visible ASCII characters.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let valid =
        (1..=MAX_KEY).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) && values.next().is_none();
    match value.to_str() {
        Ok(text) if valid => Ok(Some(text.to_owned())),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_invalid",
            "An Idempotency-Key is 1 to 255 visible ASCII characters, sent once",
        )),
    }
}

/// 400: the operation needs a key.
pub fn required() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "idempotency_key_required", "This request needs an Idempotency-Key")
}

/// Marks an answer to a repeated request.
pub fn replayed(headers: &mut HeaderMap) {
    headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
}

/// Makes the keyed hash of a request by which a key's reuse for another one is found, without keeping its body.
pub struct Fingerprints(Hmac<Sha256>);

impl Fingerprints {
    /// Under this key, in base64.
    pub fn new(key: &str) -> anyhow::Result<Self> {
        Ok(Self(Hmac::new_from_slice(&STANDARD.decode(key)?)?))
    }

    /// Of method, path and the body as it was sent.
    pub fn of(&self, method: &Method, path: &str, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        for part in [method.as_str().as_bytes(), path.as_bytes()] {
            mac.update(part);
            mac.update(&[0]);
        }
        mac.update(body);
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_ascii() {
        let read =
            |bytes: &[u8]| key(&HeaderMap::from_iter([(HEADER.clone(), HeaderValue::from_bytes(bytes).unwrap())]));
        assert_eq!(read(b"k-1").unwrap().as_deref(), Some("k-1"));
        assert!(read(&[b'x'; 255]).is_ok());
        for bad in [&b""[..], b"a b", &[b'x'; 256], "\u{e9}".as_bytes()] {
            assert_eq!(read(bad).unwrap_err().code, "idempotency_key_invalid");
        }
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_fingerprint_is_of_method_path_and_body() {
        let prints = Fingerprints::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
        let first = prints.of(&Method::POST, "/a", b"1");
        assert_eq!(first, prints.of(&Method::POST, "/a", b"1"));
        for other in [
            prints.of(&Method::PUT, "/a", b"1"),
            prints.of(&Method::POST, "/b", b"1"),
            prints.of(&Method::POST, "/a", b"2"),
        ] {
            assert_ne!(first, other);
        }
    }
}
