//! Bearer tokens: JWTs of identity, verified here against its public keys, and what their bearers may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use eventicket_contracts::events::Viewer;
use eventicket_contracts::identity::{AUDIENCE, Claims, ISSUER, JWKS, Role};
use eventicket_contracts::{Clock, CustomerId, Timestamp};
use eventicket_kit::Problem;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::Shared;
use crate::backend::{Backend, IDENTITY};

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(5);
/// Shortest time between two fetches of the keys, so that made-up key ids are no load for identity.
const REFETCH: Duration = Duration::from_secs(3);
/// How often the keys are fetched anyway, so that one that was withdrawn is forgotten.
const FRESH: Duration = Duration::from_secs(60);
/// How often they are asked for while there are none.
const FIRST: Duration = Duration::from_millis(250);
/// Shards of the cache of tokens, so that requests seldom meet at a lock.
const SHARDS: usize = 16;
/// Most tokens of a shard: all together some 15 MB.
const SHARD_TOKENS: usize = 8_192;

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub id: CustomerId,
    /// A bit for each role.
    roles: u8,
    /// End of the token.
    until: Timestamp,
}

impl Caller {
    fn has(self, any: &[Role]) -> bool {
        self.roles & bits(any) != 0
    }

    /// Whose bookings may be read: the caller's own, or `None` for everybody's.
    pub fn reads(self) -> Option<CustomerId> {
        (!self.has(&[Role::Operator, Role::Admin])).then_some(self.id)
    }

    /// Which events are seen and edited.
    pub fn viewer(self) -> Viewer {
        if self.has(&[Role::Admin]) {
            Viewer::Admin
        } else if self.has(&[Role::Organizer]) {
            Viewer::Organizer(self.id)
        } else {
            Viewer::Public
        }
    }
}

fn bits(roles: &[Role]) -> u8 {
    roles.iter().fold(0, |bits, role| bits | 1 << *role as u8)
}

/// What the `Authorization` of a request amounts to; an extension of each request that was admitted.
#[derive(Clone)]
pub enum Bearer {
    /// There is none.
    Nobody,
    /// A token that holds.
    Caller(Caller),
    /// A token that does not hold, or that cannot be looked at now.
    Denied(Denied),
}

/// Why there is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The token does not hold.
    Invalid(&'static str),
    /// Identity does not answer for its keys.
    NoKeys,
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Invalid(why) => Self::unauthorized().with_detail(why),
            Denied::NoKeys => Self::unavailable(REFETCH).with_detail("tokens cannot be verified now"),
        }
    }
}

fn visitor(parts: &Parts) -> Result<Option<Caller>, Problem> {
    match parts.extensions.get::<Bearer>() {
        Some(Bearer::Caller(caller)) => Ok(Some(*caller)),
        Some(Bearer::Denied(denied)) => Err((*denied).into()),
        Some(Bearer::Nobody) | None => Ok(None),
    }
}

fn allowed(parts: &Parts, any: &[Role]) -> Result<Caller, Problem> {
    let caller = visitor(parts)?.ok_or_else(Problem::unauthorized)?;
    if caller.has(any) { Ok(caller) } else { Err(Problem::forbidden()) }
}

/// Anybody; a token that does not hold is still an error.
pub struct Visitor(pub Option<Caller>);

impl Visitor {
    /// Which events are seen.
    pub fn viewer(&self) -> Viewer {
        self.0.map_or(Viewer::Public, Caller::viewer)
    }
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        visitor(parts).map(Self)
    }
}

/// Anybody who is signed in: each role includes what customers may.
impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        allowed(parts, &[Role::Customer, Role::Organizer, Role::Operator, Role::Admin])
    }
}

/// An organizer or administrator.
pub struct Organizer(pub Caller);

impl FromRequestParts<Shared> for Organizer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        allowed(parts, &[Role::Organizer, Role::Admin]).map(Self)
    }
}

/// An operator or administrator.
pub struct Operator(pub Caller);

impl Operator {
    /// As the history of sagas names who acted.
    pub fn actor(&self) -> String {
        format!("operator:{}", self.0.id)
    }
}

impl FromRequestParts<Shared> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        allowed(parts, &[Role::Operator, Role::Admin]).map(Self)
    }
}

/// Identity's public keys.
struct Keys {
    by_id: HashMap<String, DecodingKey>,
    document: Value,
}

/// Verifies tokens.
pub struct Verifier {
    keys: RwLock<Option<Arc<Keys>>>,
    /// When the keys were asked for, and whether they came.
    fetched: tokio::sync::Mutex<Option<(Instant, bool)>>,
    cache: Cache,
    validation: Validation,
    clock: Clock,
}

impl Verifier {
    /// Without keys yet.
    pub fn new(clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_exp = false; // by the clock that is passed in
        Self {
            keys: RwLock::default(),
            fetched: tokio::sync::Mutex::default(),
            cache: Cache::default(),
            validation,
            clock,
        }
    }

    /// The bearer of `token`.
    pub async fn verify(&self, token: &str, backend: &Backend) -> Result<Caller, Denied> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = self.clock.now();
        if let Some(caller) = self.cache.get(&digest, now) {
            return Ok(caller);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::Invalid("this is no token"))?;
        let kid =
            header.kid.filter(|_| header.alg == Algorithm::ES256).ok_or(Denied::Invalid("this is no token of ours"))?;
        let keys = self.keys_with(&kid, backend).await?;
        let key = keys.by_id.get(&kid).ok_or(Denied::Invalid("the token's key is not known"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|_| Denied::Invalid("the token is not signed for this API"))?
            .claims;
        let until = seconds(claims.exp).plus(LEEWAY);
        if until <= now {
            return Err(Denied::Invalid("the token has expired"));
        }
        if seconds(claims.iat) > now.plus(LEEWAY) {
            return Err(Denied::Invalid("the token is not valid yet"));
        }
        let caller = Caller { id: claims.sub, roles: bits(&claims.roles), until };
        self.cache.put(digest, caller, now);
        Ok(caller)
    }

    /// The keys, fetched anew where `kid` is not among them and they were not just fetched.
    async fn keys_with(&self, kid: &str, backend: &Backend) -> Result<Arc<Keys>, Denied> {
        if let Some(keys) = self.keys().filter(|k| k.by_id.contains_key(kid)) {
            return Ok(keys);
        }
        let mut fetched = self.fetched.lock().await;
        // Whoever held the lock may have brought it.
        if let Some(keys) = self.keys().filter(|k| k.by_id.contains_key(kid)) {
            return Ok(keys);
        }
        let came = match *fetched {
            Some((at, came)) if at.elapsed() < REFETCH => came,
            _ => {
                let came = self.fetch(backend).await;
                *fetched = Some((Instant::now(), came));
                came
            }
        };
        self.keys().filter(|_| came).ok_or(Denied::NoKeys)
    }

    fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetch(&self, backend: &Backend) -> bool {
        match backend.ask::<Value>(IDENTITY, JWKS, &()).await {
            Ok(document) => self.learn(document),
            Err(error) => {
                // At the start identity may come up later than this; `/readyz` tells so.
                if self.has_keys() {
                    tracing::warn!(%error, "identity's keys cannot be fetched");
                } else {
                    tracing::debug!(%error, "identity's keys cannot be fetched yet");
                }
                false
            }
        }
    }

    /// Takes these keys for all there are; false where the document has none.
    pub fn learn(&self, document: Value) -> bool {
        let set: JwkSet = serde_json::from_value(document.clone()).unwrap_or(JwkSet { keys: Vec::new() });
        let usable =
            set.keys.iter().filter_map(|jwk| Some((jwk.common.key_id.clone()?, DecodingKey::from_jwk(jwk).ok()?)));
        let by_id: HashMap<_, _> = usable.collect();
        if by_id.is_empty() {
            tracing::error!("identity's key set has no key that can be used");
            return false;
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Keys { by_id, document }));
        true
    }

    /// Whether tokens can be verified.
    pub fn has_keys(&self) -> bool {
        self.keys().is_some()
    }

    /// The key set as identity gave it.
    pub async fn document(&self, backend: &Backend) -> Result<Value, Problem> {
        if !self.has_keys() {
            self.keys_with("", backend).await?;
        }
        self.keys().map(|k| k.document.clone()).ok_or_else(|| Denied::NoKeys.into())
    }

    /// Fetches the keys now and again until shutdown.
    pub async fn keep_fresh(&self, backend: &Backend, shutdown: CancellationToken) {
        loop {
            if backend.is_connected() {
                self.fetch(backend).await;
            }
            let pause = if self.has_keys() { FRESH } else { FIRST };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

fn seconds(numeric_date: i64) -> Timestamp {
    Timestamp(numeric_date.saturating_mul(1000))
}

/// Tokens that were verified, by their SHA-256, until they end.
#[derive(Default)]
struct Cache([Mutex<HashMap<[u8; 32], Caller>>; SHARDS]);

impl Cache {
    fn shard(&self, digest: &[u8; 32]) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Caller>> {
        self.0[digest[0] as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, digest: &[u8; 32], now: Timestamp) -> Option<Caller> {
        self.shard(digest).get(digest).copied().filter(|c| c.until > now)
    }

    fn put(&self, digest: [u8; 32], caller: Caller, now: Timestamp) {
        let mut shard = self.shard(&digest);
        if shard.len() >= SHARD_TOKENS {
            shard.retain(|_, c| c.until > now);
        }
        if shard.len() >= SHARD_TOKENS {
            shard.clear(); // costs a verification each, no more
        }
        shard.insert(digest, caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Issuer, claims};

    fn verifier(clock: &Clock, issuer: &Issuer) -> Verifier {
        let verifier = Verifier::new(clock.clone());
        assert!(verifier.learn(issuer.document()));
        verifier
    }

    #[tokio::test]
    async fn a_token_holds_until_it_ends() {
        let (clock, issuer, backend) =
            (Clock::manual(Timestamp(1_800_000_000_000)), Issuer::new("k1"), Backend::nobody());
        let verifier = verifier(&clock, &issuer);
        let token = issuer.sign(&claims(CustomerId::fresh(), &[Role::Customer], clock.now(), 60));
        assert!(verifier.verify(&token, &backend).await.is_ok());
        clock.advance(Duration::from_secs(64));
        assert!(verifier.verify(&token, &backend).await.is_ok(), "within the leeway, from the cache");
        clock.advance(Duration::from_secs(2));
        assert_eq!(verifier.verify(&token, &backend).await, Err(Denied::Invalid("the token has expired")));
    }

    #[tokio::test]
    async fn tokens_of_others_do_not_hold() {
        let (clock, issuer, backend) = (Clock::system(), Issuer::new("k1"), Backend::nobody());
        let verifier = verifier(&clock, &issuer);
        let good = claims(CustomerId::fresh(), &[Role::Admin], clock.now(), 60);
        let forged = Issuer::new("k1").sign(&good);
        let elsewhere = issuer.sign(&Claims { aud: "another".into(), ..good.clone() });
        let stranger = issuer.sign(&Claims { iss: "another".into(), ..good.clone() });
        let early = issuer.sign(&claims(good.sub, &[Role::Admin], clock.now().plus(Duration::from_secs(60)), 60));
        let unsigned = format!("{}.", issuer.sign(&good).rsplit_once('.').unwrap().0);
        for bad in [&forged, &elsewhere, &stranger, &early, &unsigned, "", "a.b.c"] {
            assert!(matches!(verifier.verify(bad, &backend).await, Err(Denied::Invalid(_))), "{bad}");
        }
        assert!(verifier.verify(&issuer.sign(&good), &backend).await.is_ok());
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_fetched_is_our_fault() {
        let (clock, issuer) = (Clock::system(), Issuer::new("k1"));
        let token = issuer.sign(&claims(CustomerId::fresh(), &[Role::Customer], clock.now(), 60));
        let verifier = Verifier::new(clock);
        assert_eq!(verifier.verify(&token, &Backend::nobody()).await, Err(Denied::NoKeys));
    }

    #[test]
    fn the_cache_is_bounded() {
        let (cache, now) = (Cache::default(), Timestamp(0));
        let caller = Caller { id: CustomerId::fresh(), roles: 1, until: Timestamp(1) };
        for n in 0..SHARD_TOKENS + 2 {
            let mut digest = [0; 32];
            digest[8..16].copy_from_slice(&n.to_be_bytes());
            cache.put(digest, caller, now);
        }
        assert_eq!(cache.shard(&[0; 32]).len(), 2);
    }

    #[test]
    fn operators_and_administrators_read_everything() {
        let caller = |roles: &[Role]| Caller { id: CustomerId::fresh(), roles: bits(roles), until: Timestamp(0) };
        let ada = caller(&[Role::Customer, Role::Organizer]);
        assert_eq!((ada.reads(), ada.viewer()), (Some(ada.id), Viewer::Organizer(ada.id)));
        let operator = caller(&[Role::Operator]);
        assert_eq!((operator.reads(), operator.viewer()), (None, Viewer::Public));
        assert_eq!(caller(&[Role::Admin]).viewer(), Viewer::Admin);
    }
}
