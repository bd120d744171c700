//! The keys that sign access tokens, and their rotation.
//!
//! A key is made and published a day before it signs, so that whoever verifies knows it in time, and stays published until
//! the last token that it signed has ended. Which key signs follows from the clock alone: replicas need not agree.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eventicket_contracts::identity::Claims;
use eventicket_contracts::{Clock, CustomerId, Timestamp};
use eventicket_kit::Settings;
use eventicket_kit::seal::SealKeys;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::SecretKey;
use p256::pkcs8::EncodePrivateKey;
use uuid::Uuid;

use crate::store::{KeyRow, Store};

/// How long a key signs.
pub(crate) const ACTIVE: Duration = Duration::from_secs(30 * 86_400);
/// How long before it signs a key is published.
pub(crate) const AHEAD: Duration = Duration::from_secs(86_400);
/// How long at least a key stays published after its successor began to sign, whatever the life of tokens is now.
const KEEP: Duration = Duration::from_secs(86_400);
/// How old the keys in memory may be: far below [`AHEAD`].
const RELOAD: Duration = Duration::from_secs(60);

/// A key as the plan sees it.
struct KeyTimes {
    id: Uuid,
    active_from: Timestamp,
    /// Whether its private half can be opened.
    usable: bool,
}

/// What a rotation does.
#[derive(Debug, PartialEq)]
struct Plan {
    /// Make a key that signs from then on.
    make: Option<Timestamp>,
    /// Keys of which no token is left.
    drop: Vec<Uuid>,
}

fn plan(keys: &[KeyTimes], now: Timestamp, keep: Duration) -> Plan {
    let signing = keys.iter().any(|key| key.usable && key.active_from <= now);
    let newest = keys.iter().filter(|key| key.usable).map(|key| key.active_from).max();
    let make = match newest {
        Some(newest) if signing => {
            let next = newest.plus(ACTIVE);
            (next <= now.plus(AHEAD)).then(|| next.max(now.plus(AHEAD)))
        }
        _ => Some(now),
    };
    let follows = |key: &KeyTimes, next: &KeyTimes| {
        next.usable && next.active_from > key.active_from && next.active_from.plus(keep) <= now
    };
    let over = |key: &&KeyTimes| keys.iter().any(|next| follows(key, next));
    Plan { make, drop: keys.iter().filter(over).map(|key| key.id).collect() }
}

struct SigningKey {
    id: Uuid,
    active_from: Timestamp,
    public: Jwk,
    /// None where the key that sealed it is gone: what it signed is still verified.
    private: Option<EncodingKey>,
}

#[derive(Clone)]
struct Loaded {
    at: Timestamp,
    /// The latest to sign last.
    keys: Arc<[SigningKey]>,
}

/// A key that signs now.
pub(crate) struct Signer {
    keys: Arc<[SigningKey]>,
    at: usize,
}

impl Signer {
    /// The claims as a JWT.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        let key = &self.keys[self.at];
        let private = key.private.as_ref().context("the key cannot sign")?;
        let header = Header { kid: Some(key.id.to_string()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, private)?)
    }
}

/// The keys, from the table and in memory.
pub(crate) struct KeyRing {
    store: Store,
    seal: SealKeys,
    clock: Clock,
    keep: Duration,
    loaded: RwLock<Loaded>,
}

impl KeyRing {
    /// Without any key: [`Self::rotate`] makes the first one and reads them all.
    pub fn new(store: Store, settings: &Settings, clock: Clock) -> anyhow::Result<Self> {
        let seal = SealKeys::parse(&settings.seal_keys)?;
        let keep = KEEP.max(Duration::from_secs(settings.access_token_seconds.into()) + RELOAD);
        let loaded = RwLock::new(Loaded { at: clock.now(), keys: Arc::new([]) });
        Ok(Self { store, seal, clock, keep, loaded })
    }

    /// Does what is due; tells whether a key was made. All replicas may call it at any time.
    pub async fn rotate(&self) -> anyhow::Result<bool> {
        let now = self.clock.now();
        let mut tx = self.store.lock_keys().await?;
        let rows = tx.rows().await?;
        let keys: Vec<KeyTimes> = rows.iter().map(|row| self.times(row)).collect();
        let plan = plan(&keys, now, self.keep);
        if let Some(active_from) = plan.make {
            tx.insert(&self.make(active_from, now)?).await?;
        }
        tx.delete(&plan.drop).await?;
        tx.commit().await?;
        if plan.make.is_some() || !plan.drop.is_empty() {
            tracing::info!(made = plan.make.is_some(), dropped = plan.drop.len(), "signing keys rotated");
        }
        self.load().await?;
        Ok(plan.make.is_some())
    }

    /// The key whose turn it is.
    pub async fn signer(&self) -> anyhow::Result<Signer> {
        let now = self.clock.now();
        let keys = self.fresh(now).await;
        let at = keys.iter().rposition(|key| key.active_from <= now && key.private.is_some());
        Ok(Signer { at: at.context("there is no key that signs")?, keys })
    }

    /// All public keys, as they are in the table now.
    pub async fn jwks(&self) -> anyhow::Result<JwkSet> {
        let keys = self.load().await?;
        Ok(JwkSet { keys: keys.iter().map(|key| key.public.clone()).collect() })
    }

    async fn fresh(&self, now: Timestamp) -> Arc<[SigningKey]> {
        let Loaded { at, keys } = self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone();
        if now.since(at) < RELOAD {
            return keys;
        }
        match self.load().await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%error, "signing keys cannot be read: the known ones go on signing");
                keys
            }
        }
    }

    async fn load(&self) -> anyhow::Result<Arc<[SigningKey]>> {
        let at = self.clock.now();
        let rows = self.store.keys().await?;
        let keys = rows.iter().map(|row| self.read(row)).collect::<anyhow::Result<Arc<[_]>>>()?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Loaded { at, keys: keys.clone() };
        Ok(keys)
    }

    fn times(&self, row: &KeyRow) -> KeyTimes {
        KeyTimes { id: row.id, active_from: row.active_from, usable: self.unseal(row).is_some() }
    }

    fn read(&self, row: &KeyRow) -> anyhow::Result<SigningKey> {
        let public = serde_json::from_str(&row.public).context("a public key cannot be read")?;
        Ok(SigningKey { id: row.id, active_from: row.active_from, public, private: self.unseal(row) })
    }

    fn unseal(&self, row: &KeyRow) -> Option<EncodingKey> {
        let der = STANDARD.decode(self.seal.open(CustomerId(row.id), &row.private)?).ok()?;
        Some(EncodingKey::from_ec_der(&der))
    }

    fn make(&self, active_from: Timestamp, now: Timestamp) -> anyhow::Result<KeyRow> {
        let id = Uuid::now_v7();
        // A scalar beyond the curve's order, or zero, is drawn once in 2^32 times.
        let secret =
            std::iter::repeat_with(rand::random::<[u8; 32]>).find_map(|bytes| SecretKey::from_slice(&bytes).ok());
        let der = secret.context("no key was drawn")?.to_pkcs8_der()?;
        let mut public = Jwk::from_encoding_key(&EncodingKey::from_ec_der(der.as_bytes()), Algorithm::ES256)?;
        public.common.key_id = Some(id.to_string());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(KeyRow {
            id,
            public: serde_json::to_string(&public)?,
            private: self.seal.seal(CustomerId(id), &STANDARD.encode(der.as_bytes())),
            active_from,
            created_at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn key(day: u32, usable: bool) -> KeyTimes {
        KeyTimes { id: Uuid::from_u128(day.into()), active_from: Timestamp(0).plus(DAY * day), usable }
    }

    fn on_day(day: u32, keys: &[KeyTimes]) -> (Option<i64>, Vec<u128>) {
        let plan = plan(keys, Timestamp(0).plus(DAY * day), DAY);
        let days = |at: Timestamp| at.millis() / 86_400_000;
        (plan.make.map(days), plan.drop.iter().map(Uuid::as_u128).collect())
    }

    #[test]
    fn a_key_is_published_a_day_before_it_signs_and_a_day_after() {
        assert_eq!(on_day(5, &[]), (Some(5), vec![]));
        assert_eq!(on_day(28, &[key(0, true)]), (None, vec![]));
        assert_eq!(on_day(29, &[key(0, true)]), (Some(30), vec![]));
        assert_eq!(on_day(29, &[key(0, true), key(30, true)]), (None, vec![]));
        assert_eq!(on_day(30, &[key(0, true), key(30, true)]), (None, vec![]));
        assert_eq!(on_day(31, &[key(0, true), key(30, true)]), (None, vec![0]));
    }

    #[test]
    fn after_a_long_stop_the_old_key_signs_until_the_next_is_known() {
        assert_eq!(on_day(400, &[key(0, true)]), (Some(401), vec![]));
    }

    #[test]
    fn a_key_that_cannot_be_opened_is_replaced_at_once_and_stays_published() {
        assert_eq!(on_day(3, &[key(0, false)]), (Some(3), vec![]));
        assert_eq!(on_day(29, &[key(0, false), key(30, true)]), (Some(29), vec![]));
        assert_eq!(on_day(3, &[key(0, false), key(3, true)]), (None, vec![]));
        assert_eq!(on_day(4, &[key(0, false), key(3, true)]), (None, vec![0]));
    }
}
