//! The queries of the service over NATS, with PostgreSQL.

use std::time::Duration;

use eventicket_contracts::identity::{
    AUDIENCE, Claims, ISSUER, Idempotency, JWKS, LOGIN, Login, REFRESH, REGISTER, Refresh, Register, Role, SERVICE,
    Tokens, UPDATE_USER, USERS, UpdateUser, User,
};
use eventicket_contracts::text::Email;
use eventicket_contracts::{Clock, CustomerId, Timestamp, codes, subjects};
use eventicket_identity::{DATABASE, MIGRATOR, SeedUser, account_id, load_customers, rotate, seed};
use eventicket_kit::Context;
use eventicket_nats::{QueryError, QueryFailure};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::{JoinHandle, JoinSet};

const START: Timestamp = Timestamp(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

struct Service {
    ctx: Context,
    pool: PgPool,
    running: JoinHandle<anyhow::Result<()>>,
}

/// A migrated database without any row, and the context of a process.
async fn place() -> (Context, PgPool) {
    let world = eventicket_testkit::world().await;
    let url = world.database(DATABASE, &MIGRATOR).await;
    let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
    let mut ctx = ctx.with_settings(|settings| settings.database_prefix.clone_from(&world.prefix));
    ctx.clock = Clock::manual(START);
    (ctx, PgPool::connect(&url).await.unwrap())
}

impl Service {
    async fn start() -> Self {
        let (ctx, pool) = place().await;
        let running = tokio::spawn(eventicket_identity::run(ctx.clone()));
        let service = Self { ctx, pool, running };
        while service.ask::<JwkSet>(JWKS, &Value::Null).await.is_err_and(|e| e == QueryFailure::NobodyAnswers) {
            assert!(!service.running.is_finished(), "the service ended");
            tokio::task::yield_now().await;
        }
        service
    }

    async fn stop(self) {
        self.ctx.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    async fn ask<A: DeserializeOwned>(&self, name: &str, query: &impl Serialize) -> Result<A, QueryFailure> {
        self.ctx.nats.query(SERVICE, name, query).await
    }

    async fn register(&self, email: &str, key: Option<(&str, &str)>) -> Result<User, QueryFailure> {
        let idempotency = key.map(|(key, print)| Idempotency { key: key.into(), fingerprint: print.into() });
        let register =
            Register { email: address(email), password: "a password".into(), name: "Ada".into(), idempotency };
        self.ask(REGISTER, &register).await
    }

    async fn login(&self, email: &str, password: &str) -> Result<Tokens, QueryFailure> {
        self.ask(LOGIN, &Login { email: address(email), password: password.into() }).await
    }

    async fn refresh(&self, token: &str) -> Result<Tokens, QueryFailure> {
        self.ask(REFRESH, &Refresh { refresh_token: token.into() }).await
    }

    async fn jwks(&self) -> JwkSet {
        self.ask(JWKS, &Value::Null).await.unwrap()
    }
}

fn address(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn refused(failure: QueryFailure) -> QueryError {
    match failure {
        QueryFailure::Refused(error) => error,
        other => panic!("not a refusal: {other}"),
    }
}

fn code<T>(answer: Result<T, QueryFailure>) -> String {
    refused(answer.err().expect("a refusal")).code
}

/// Verifies as the gateway does, but for the time, which is the test's own.
fn verified(token: &str, jwks: &JwkSet) -> Option<(String, Claims)> {
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(jwks.find(&kid)?).unwrap();
    Some((kid, jsonwebtoken::decode(token, &key, &validation).unwrap().claims))
}

#[tokio::test]
async fn an_account_is_made_once() {
    let service = Service::start().await;
    let first = service.register("Ada@example.org", Some(("k1", "f1"))).await.unwrap();
    assert_eq!((first.email.as_str(), &first.roles[..], first.version), ("ada@example.org", &[Role::Customer][..], 1));
    let again = service.register("ada@example.org", Some(("k1", "f1"))).await.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(code(service.register("ada@example.org", Some(("k1", "f2"))).await), codes::KEY_REUSED);
    assert_eq!(code(service.register("ada@example.org", Some(("k2", "f1"))).await), codes::EMAIL_TAKEN);
    assert_eq!(code(service.register("ADA@example.org", None).await), codes::EMAIL_TAKEN);

    // A refused registration leaves its key free, and after a day a key can be used again.
    service.register("bob@example.org", Some(("k2", "f3"))).await.unwrap();
    service.ctx.clock.advance(DAY);
    let later = service.register("eve@example.org", Some(("k1", "f2"))).await.unwrap();
    let all: Vec<User> = service.ask(USERS, &[first.id, CustomerId::fresh(), later.id]).await.unwrap();
    assert_eq!(all.iter().map(|user| user.id).collect::<Vec<_>>(), [first.id, later.id]);

    let events: Vec<(String, String)> =
        sqlx::query_as("SELECT subject, payload FROM outbox ORDER BY id").fetch_all(&service.pool).await.unwrap();
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|(subject, _)| *subject == subjects::event("user", "registered")));
    assert!(events[0].1.contains(&first.id.to_string()) && !events[0].1.contains("example.org"));
    service.stop().await;
}

#[tokio::test]
async fn simultaneous_registrations_with_one_key_make_one_account() {
    let service = std::sync::Arc::new(Service::start().await);
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let service = service.clone();
        all.spawn(async move { service.register("ada@example.org", Some(("k", "f"))).await.unwrap().id });
    }
    let ids = all.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]));
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&service.pool).await.unwrap();
    assert_eq!(count, 1);
    std::sync::Arc::into_inner(service).unwrap().stop().await;
}

#[tokio::test]
async fn what_is_not_acceptable_is_named_by_field() {
    let service = Service::start().await;
    let register = Register { email: address("a@b.co"), password: "short".into(), name: " ".into(), idempotency: None };
    let error = refused(service.ask::<User>(REGISTER, &register).await.err().unwrap());
    assert_eq!(error.code, codes::VALIDATION);
    let fields = error.details.unwrap();
    let fields: Vec<_> = fields.as_array().unwrap().iter().map(|e| (e["field"].as_str(), e["code"].as_str())).collect();
    assert_eq!(fields, [(Some("name"), Some("required")), (Some("password"), Some("too_short"))]);
    service.stop().await;
}

#[tokio::test]
async fn signing_in_gives_a_token_that_the_jwks_verify_and_failures_tell_nothing() {
    let service = Service::start().await;
    let user = service.register("ada@example.org", None).await.unwrap();
    let tokens = service.login("ADA@example.org", "a password").await.unwrap();
    assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("Bearer", 900));
    let (_, claims) = verified(&tokens.access_token, &service.jwks().await).unwrap();
    assert_eq!((claims.sub, claims.iat, claims.exp), (user.id, 1_800_000_000, 1_800_000_900));
    assert_eq!(claims.roles, [Role::Customer]);

    let wrong = refused(service.login("ada@example.org", "another password").await.err().unwrap());
    let unknown = refused(service.login("eve@example.org", "a password").await.err().unwrap());
    assert_eq!(wrong.code, codes::INVALID_CREDENTIALS);
    assert_eq!(wrong, unknown);
    service.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_return_ends_the_session() {
    let service = Service::start().await;
    let user = service.register("ada@example.org", None).await.unwrap();
    let first = service.login("ada@example.org", "a password").await.unwrap();
    let other = service.login("ada@example.org", "a password").await.unwrap();

    // Roles are read anew with each refresh.
    sqlx::query("UPDATE users SET roles = '{customer,organizer}'").execute(&service.pool).await.unwrap();
    let second = service.refresh(&first.refresh_token).await.unwrap();
    let (_, claims) = verified(&second.access_token, &service.jwks().await).unwrap();
    assert_eq!((claims.sub, &claims.roles[..]), (user.id, &[Role::Customer, Role::Organizer][..]));
    let third = service.refresh(&second.refresh_token).await.unwrap();

    assert_eq!(code(service.refresh(&first.refresh_token).await), codes::INVALID_TOKEN);
    assert_eq!(code(service.refresh(&third.refresh_token).await), codes::INVALID_TOKEN, "the session has ended");
    assert_eq!(code(service.refresh("nonsense").await), codes::INVALID_TOKEN);

    // Another session lives on, until its token's time is over.
    let other = service.refresh(&other.refresh_token).await.unwrap();
    service.ctx.clock.advance(DAY * 30);
    assert_eq!(code(service.refresh(&other.refresh_token).await), codes::INVALID_TOKEN);

    // What is stored opens nothing.
    let hashes: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT hash FROM refresh_tokens").fetch_all(&service.pool).await.unwrap();
    assert_eq!(hashes.len(), 5);
    assert!(hashes.iter().all(|hash| hash.len() == 32 && hash != other.refresh_token.as_bytes()));
    service.stop().await;
}

#[tokio::test]
async fn two_uses_of_a_refresh_token_at_once_give_one_pair() {
    let service = std::sync::Arc::new(Service::start().await);
    service.register("ada@example.org", None).await.unwrap();
    let tokens = service.login("ada@example.org", "a password").await.unwrap();
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (service, token) = (service.clone(), tokens.refresh_token.clone());
        all.spawn(async move { service.refresh(&token).await.is_ok() });
    }
    assert_eq!(all.join_all().await.into_iter().filter(|good| *good).count(), 1);
    std::sync::Arc::into_inner(service).unwrap().stop().await;
}

#[tokio::test]
async fn keys_are_published_before_they_sign_and_until_their_tokens_have_ended() {
    let service = Service::start().await;
    service.register("ada@example.org", None).await.unwrap();
    let settings = &service.ctx.settings;
    let clock = &service.ctx.clock;
    let before = service.login("ada@example.org", "a password").await.unwrap().access_token;
    assert!(!rotate(settings, clock).await.unwrap(), "a new key is not due");
    assert_eq!(service.jwks().await.keys.len(), 1);

    clock.advance(DAY * 29);
    assert!(rotate(settings, clock).await.unwrap());
    assert!(!rotate(settings, clock).await.unwrap(), "one is enough");
    assert_eq!(service.jwks().await.keys.len(), 2);
    let still = service.login("ada@example.org", "a password").await.unwrap().access_token;

    clock.advance(DAY);
    let after = service.login("ada@example.org", "a password").await.unwrap().access_token;
    let jwks = service.jwks().await;
    let kid = |token: &str| verified(token, &jwks).expect("its key is published").0;
    assert_eq!(kid(&before), kid(&still));
    assert_ne!(kid(&before), kid(&after));

    clock.advance(DAY);
    assert!(!rotate(settings, clock).await.unwrap());
    let jwks = service.jwks().await;
    assert_eq!((jwks.keys.len(), verified(&before, &jwks).is_none()), (1, true));
    assert!(verified(&after, &jwks).is_some());

    // Neither the JWKS nor the table shows a private key.
    assert!(!serde_json::to_string(&jwks).unwrap().contains("\"d\""));
    let private: String =
        sqlx::query_scalar("SELECT private FROM signing_keys").fetch_one(&service.pool).await.unwrap();
    assert!(private.starts_with("1.k"), "sealed");
    service.stop().await;
}

#[tokio::test]
async fn replicas_that_start_at_once_make_one_key() {
    let (ctx, pool) = place().await;
    let mut all = JoinSet::new();
    for _ in 0..4 {
        let (settings, clock) = (ctx.settings.clone(), ctx.clock.clone());
        all.spawn(async move { rotate(&settings, &clock).await.unwrap() });
    }
    assert_eq!(all.join_all().await.into_iter().filter(|made| *made).count(), 1);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM signing_keys").fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn beyond_the_places_sign_ins_are_told_to_come_again() {
    let service = std::sync::Arc::new(Service::start().await);
    let mut all = JoinSet::new();
    let places = std::thread::available_parallelism().unwrap().get() * 17;
    for _ in 0..places + 60 {
        let service = service.clone();
        all.spawn(async move { refused(service.login("eve@example.org", "x").await.err().unwrap()) });
    }
    let errors = all.join_all().await;
    let busy: Vec<_> = errors.iter().filter(|error| error.code == codes::BUSY).collect();
    assert!(!busy.is_empty());
    assert!(busy.iter().all(|error| error.details.as_ref().unwrap()["retry_after_ms"].is_u64()));
    assert!(errors.iter().all(|error| [codes::BUSY, codes::INVALID_CREDENTIALS].contains(&error.code.as_str())));
    std::sync::Arc::into_inner(service).unwrap().stop().await;
}

#[tokio::test]
async fn an_edit_needs_the_version_that_was_read() {
    let service = Service::start().await;
    let user = service.register("ada@example.org", None).await.unwrap();
    let edit = |version, name: &str| UpdateUser { id: user.id, version, name: Some(name.into()) };
    let edited: Option<User> = service.ask(UPDATE_USER, &edit(1, "Ada L.")).await.unwrap();
    let edited = edited.unwrap();
    assert_eq!((edited.version, edited.name.as_str()), (2, "Ada L."));
    assert_eq!(code(service.ask::<Option<User>>(UPDATE_USER, &edit(1, "Eve")).await), codes::VERSION_CONFLICT);
    assert_eq!(code(service.ask::<Option<User>>(UPDATE_USER, &edit(2, "")).await), codes::VALIDATION);
    let unknown = UpdateUser { id: CustomerId::fresh(), version: 1, name: Some("Eve".into()) };
    assert!(service.ask::<Option<User>>(UPDATE_USER, &unknown).await.unwrap().is_none());
    service.stop().await;
}

#[tokio::test]
async fn seeds_take_root_in_an_empty_table_only() {
    let service = Service::start().await;
    let settings = &service.ctx.settings;
    let seeds = [("admin@demo.test", Role::Admin), ("organizer@demo.test", Role::Organizer)].map(|(email, role)| {
        SeedUser { email: email.into(), password: "demo-password".into(), name: "Demo".into(), roles: vec![role] }
    });
    assert!(seed(settings, &seeds).await.unwrap());
    assert!(!seed(settings, &seeds).await.unwrap());
    let tokens = service.login("admin@demo.test", "demo-password").await.unwrap();
    let (_, claims) = verified(&tokens.access_token, &service.jwks().await).unwrap();
    assert_eq!(account_id(settings, "admin@demo.test").await.unwrap(), Some(claims.sub));
    assert_eq!(claims.roles, [Role::Admin]);
    let bad = [SeedUser { password: "short".into(), ..seeds[0].clone() }];
    sqlx::query("DELETE FROM users").execute(&service.pool).await.unwrap();
    assert!(seed(settings, &bad).await.is_err());
    service.stop().await;
}

#[tokio::test]
async fn load_customers_are_made_once_and_have_tokens_each() {
    let service = Service::start().await;
    let first = load_customers(&service.ctx.settings, 600).await.unwrap();
    let again = load_customers(&service.ctx.settings, 600).await.unwrap();
    let jwks = service.jwks().await;
    let users = |tokens: &[String]| tokens.iter().map(|t| verified(t, &jwks).unwrap().1.sub).collect::<Vec<_>>();
    assert_eq!(users(&first).len(), 600);
    assert_eq!(users(&first), users(&again));
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&service.pool).await.unwrap();
    assert_eq!(count, 600);
    service.stop().await;
}
