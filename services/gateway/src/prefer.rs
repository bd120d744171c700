//! `Prefer: wait=N` (RFC 7240).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Longest wait that is granted.
const MAX_WAIT: u32 = 30;

static PREFER: HeaderName = HeaderName::from_static("prefer");
/// Answers which preferences were honoured.
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a client would wait for a result, in seconds. What cannot be read is no preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Option<u32>);

impl Wait {
    /// The time, where one was named.
    pub fn duration(self) -> Option<Duration> {
        self.0.map(|s| Duration::from_secs(u64::from(s)))
    }

    /// Says in the answer that it was honoured.
    pub fn applied(self, headers: &mut HeaderMap) {
        let value = self.0.and_then(|s| HeaderValue::try_from(format!("wait={s}")).ok());
        headers.extend(value.map(|v| (PREFERENCE_APPLIED.clone(), v)));
    }
}

impl<S: Sync> FromRequestParts<S> for Wait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let values = parts.headers.get_all(&PREFER).iter().filter_map(|v| v.to_str().ok());
        Ok(Self(values.flat_map(|v| v.split([',', ';'])).find_map(seconds)))
    }
}

fn seconds(preference: &str) -> Option<u32> {
    let (name, value) = preference.split_once('=')?;
    let named = name.trim().eq_ignore_ascii_case("wait");
    named.then(|| value.trim().trim_matches('"').parse::<u32>().ok()).flatten().map(|s| s.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wait_is_found_and_bounded() {
        for (header, wait) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=10", Some(10)),
            ("Wait = \"5\"", Some(5)),
            ("wait=999", Some(30)),
            ("wait=0", Some(0)),
            ("wait=-1", None),
            ("wait", None),
            ("handling=strict", None),
        ] {
            let (mut parts, ()) =
                axum::http::Request::builder().header("prefer", header).body(()).unwrap().into_parts();
            assert_eq!(Wait::from_request_parts(&mut parts, &()).await, Ok(Wait(wait)), "{header}");
        }
    }
}
