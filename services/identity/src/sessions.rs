//! Refresh tokens: one use each, all of one sign-in in a session that ends where a used one comes again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventicket_contracts::Timestamp;
use sha2::{Digest, Sha256};

/// How long a refresh token is good.
pub(crate) const REFRESH_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// The SHA-256 of a refresh token, which is all that is stored of it. The token has 256 random bits: no salt is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Of a token as a client brings it.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// A fresh token with its hash.
pub(crate) fn fresh_token() -> (String, TokenHash) {
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let hash = TokenHash::of(&token);
    (token, hash)
}

/// What is stored of a token that came.
pub(crate) struct StoredToken {
    pub used: bool,
    pub expires_at: Timestamp,
    pub session_ended: bool,
}

/// What a token that came is good for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new pair of tokens.
    Good,
    /// Nothing.
    Refused,
    /// It came before: one of the two that had it is not its owner, so the whole session ends.
    Reused,
}

pub(crate) fn judge(token: &StoredToken, now: Timestamp) -> Verdict {
    match token {
        StoredToken { session_ended: true, .. } => Verdict::Refused,
        StoredToken { used: true, .. } => Verdict::Reused,
        StoredToken { expires_at, .. } if *expires_at <= now => Verdict::Refused,
        _ => Verdict::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_in_its_time() {
        let verdict = |used, session_ended, expires_at| {
            judge(&StoredToken { used, session_ended, expires_at: Timestamp(expires_at) }, Timestamp(1000))
        };
        assert_eq!(verdict(false, false, 1001), Verdict::Good);
        assert_eq!(verdict(false, false, 1000), Verdict::Refused);
        assert_eq!(verdict(true, false, 1001), Verdict::Reused);
        assert_eq!(verdict(true, false, 1000), Verdict::Reused);
        assert_eq!(verdict(true, true, 1001), Verdict::Refused);
        assert_eq!(verdict(false, true, 1001), Verdict::Refused);
    }

    #[test]
    fn tokens_differ_and_hash_alike() {
        let (token, hash) = fresh_token();
        assert_eq!((token.len(), TokenHash::of(&token)), (43, hash));
        assert_ne!(token, fresh_token().0);
    }
}
