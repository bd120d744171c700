//! Sealed texts: XChaCha20-Poly1305, bound to a customer, under keys that rotate.
//!
//! A sealed text is `1.<key id>.<base64url of nonce and ciphertext>`; the customer's id is its associated data, so that
//! a text copied to another customer does not open.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use eventicket_contracts::CustomerId;

/// Names the algorithm and the layout.
const VERSION: &str = "1";
/// 192 bits.
const NONCE_BYTES: usize = 24;

/// Why keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// The form is wrong.
    #[error("sealing keys are <id>:<base64 of 32 bytes>, separated by commas")]
    Form,
    /// An id is not usable.
    #[error("a sealing key's id is 1 to 32 letters and digits")]
    Id,
    /// Two keys share an id.
    #[error("two sealing keys have the id {0}")]
    Twice(String),
}

/// The keys, current one first.
#[derive(Clone)]
pub struct SealKeys(Vec<(String, XChaCha20Poly1305)>);

impl SealKeys {
    /// Reads `<id>:<base64 of 32 bytes>[,<older>...]`.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        for part in text.split(',') {
            let (id, key) = part.trim().split_once(':').ok_or(BadKeys::Form)?;
            if id.is_empty() || id.len() > 32 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(BadKeys::Id);
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(BadKeys::Twice(id.to_owned()));
            }
            let bytes: [u8; 32] =
                STANDARD.decode(key).map_err(|_| BadKeys::Form)?.try_into().map_err(|_| BadKeys::Form)?;
            keys.push((id.to_owned(), XChaCha20Poly1305::new(&Key::from(bytes))));
        }
        Ok(Self(keys))
    }

    /// One fresh key in the form that [`Self::parse`] reads; put it before the older ones.
    pub fn generate() -> String {
        format!("k{:08x}:{}", rand::random::<u32>(), STANDARD.encode(rand::random::<[u8; 32]>()))
    }

    /// Seals `plain` for `customer` under the current key.
    pub fn seal(&self, customer: CustomerId, plain: &str) -> String {
        let (id, cipher) = &self.0[0]; // parse makes at least one
        let nonce = XNonce::generate();
        let payload = Payload { msg: plain.as_bytes(), aad: customer.0.as_bytes() };
        let sealed = cipher.encrypt(&nonce, payload).expect("fails only beyond 256 GiB");
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        format!("{VERSION}.{id}.{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Opens a text that was sealed for `customer`; `None` where it was changed, is another customer's, or its key is gone.
    pub fn open(&self, customer: CustomerId, sealed: &str) -> Option<String> {
        let mut parts = sealed.split('.');
        let (version, id, body) = (parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let (_, cipher) = self.0.iter().find(|(known, _)| known == id)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).ok()?;
        let (nonce, msg) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        let plain = cipher.decrypt(&nonce, Payload { msg, aad: customer.0.as_bytes() }).ok()?;
        String::from_utf8(plain).ok()
    }
}

/// Never shows a key.
impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_its_customer_only() {
        let keys = SealKeys::parse(&SealKeys::generate()).unwrap();
        let (ada, bob) = (CustomerId::fresh(), CustomerId::fresh());
        let sealed = keys.seal(ada, "tok_visa");
        assert_eq!(keys.open(ada, &sealed).as_deref(), Some("tok_visa"));
        assert_eq!(keys.open(bob, &sealed), None);
        assert!(!sealed.contains("visa"));
        assert_ne!(sealed, keys.seal(ada, "tok_visa"), "each sealing has a nonce of its own");
    }

    #[test]
    fn old_keys_open_and_the_first_one_seals() {
        let (old, new) = (SealKeys::generate(), SealKeys::generate());
        let ada = CustomerId::fresh();
        let before = SealKeys::parse(&old).unwrap().seal(ada, "tok_visa");
        let both = SealKeys::parse(&format!("{new},{old}")).unwrap();
        assert_eq!(both.open(ada, &before).as_deref(), Some("tok_visa"));
        let after = both.seal(ada, "tok_visa");
        assert_eq!(SealKeys::parse(&new).unwrap().open(ada, &after).as_deref(), Some("tok_visa"));
        assert_eq!(SealKeys::parse(&old).unwrap().open(ada, &after), None);
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let keys = SealKeys::parse(&SealKeys::generate()).unwrap();
        let ada = CustomerId::fresh();
        let sealed = keys.seal(ada, "tok_visa");
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open(ada, &String::from_utf8(bytes).unwrap()), None, "byte {at}");
        }
        for bad in ["", ".", "..", "1.k", &sealed[..20], &format!("{sealed}.x")] {
            assert_eq!(keys.open(ada, bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_keys_are_refused() {
        let good = SealKeys::generate();
        for bad in ["", "k", "k:AAAA", &format!("{good},"), &format!("{good},{good}"), "a b:AAAA"] {
            assert!(SealKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
