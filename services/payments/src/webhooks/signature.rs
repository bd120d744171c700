//! Stripe's signature of webhooks: `t=<unix>,v1=<hex>`, where `v1` is the HMAC-SHA-256 of `<unix>.<body>` and may stand
//! there several times, once for each secret in use.

use eventicket_contracts::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// How far the time of a signature may be from ours, in seconds: an older one may be a recording.
const TOLERANCE: u64 = 300;

/// Whether the body was signed with the secret, about now.
pub(super) fn is_signed(header: &str, body: &[u8], secret: &str, now: Timestamp) -> bool {
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let Some(at) = parts().find(|(name, _)| *name == "t").and_then(|(_, at)| at.parse::<i64>().ok()) else {
        return false;
    };
    if (now.millis() / 1000).abs_diff(at) > TOLERANCE {
        return false;
    }
    // A key of any length is taken.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    let mac = mac.chain_update(format!("{at}.")).chain_update(body);
    let signatures = parts().filter(|(name, _)| *name == "v1").filter_map(|(_, hex)| bytes(hex));
    // In constant time.
    signatures.into_iter().any(|signature| mac.clone().verify_slice(&signature).is_ok())
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_test_secret";
    /// Of another implementation of HMAC, for the body `{}`.
    const SIGNED: &str = "53140ab8fa70c511cc40d5c9198af7dde7bbaee877038c056d8250c3bd3b2e11";
    const AT: i64 = 1_492_774_577;

    #[test]
    fn rule_06_only_what_was_signed_with_the_secret_a_moment_ago_is_taken() {
        let is_taken =
            |header: &str, body: &str, now: i64| is_signed(header, body.as_bytes(), SECRET, Timestamp(now * 1000));
        let header = format!("t={AT},v1={SIGNED}");
        let old = format!("v1={},v1={SIGNED},t={AT},v0=00", "ab".repeat(32));
        for (header, body, now, expected) in [
            (header.as_str(), "{}", AT, true),
            (&header, "{}", AT + 300, true),
            (&header, "{}", AT - 300, true),
            (&header, "{}", AT + 301, false),
            (&header, "{}", AT - 301, false),
            (&header, "{ }", AT, false),
            (&old, "{}", AT, true),
            (&format!("t={},v1={SIGNED}", AT + 1), "{}", AT, false),
            (&format!("t={AT},v1={}", &SIGNED[2..]), "{}", AT, false),
            (&format!("t={AT},v1=é{SIGNED}"), "{}", AT, false),
            (&format!("v1={SIGNED}"), "{}", AT, false),
            (&format!("t={AT}"), "{}", AT, false),
            ("", "{}", AT, false),
        ] {
            assert_eq!(is_taken(header, body, now), expected, "{header} at {now}");
        }
        assert!(!is_signed(&header, b"{}", "whsec_other", Timestamp(AT * 1000)));
    }
}
