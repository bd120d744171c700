//! Tests of the whole router: [`document`] and [`manners`] need no service, the others have hand-made ones behind a real NATS.

mod bookings;
mod document;
mod events;
mod manners;
mod operators;
mod platform;
mod services;
mod unknown;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use eventicket_contracts::identity::{AUDIENCE, Claims, ISSUER, Role};
use eventicket_contracts::{Clock, CustomerId, Timestamp};
use eventicket_kit::Settings;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::app::App;
use crate::backend::Backend;

/// Signs tokens as identity does.
pub struct Issuer {
    key: EncodingKey,
    document: Value,
    kid: String,
}

impl Issuer {
    pub fn new(kid: &str) -> Self {
        let secret = p256::SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
        let mut jwk: Value = serde_json::from_str(&secret.public_key().to_jwk_string()).unwrap();
        jwk["kid"] = json!(kid);
        let key = EncodingKey::from_ec_der(secret.to_pkcs8_der().unwrap().as_bytes());
        Self { key, document: json!({"keys": [jwk]}), kid: kid.to_owned() }
    }

    pub fn document(&self) -> Value {
        self.document.clone()
    }

    pub fn sign(&self, claims: &Claims) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

pub fn claims(sub: CustomerId, roles: &[Role], now: Timestamp, seconds: i64) -> Claims {
    let iat = now.millis() / 1000;
    Claims { iss: ISSUER.into(), aud: AUDIENCE.into(), sub, iat, exp: iat + seconds, roles: roles.to_vec() }
}

/// A gateway with an issuer whose keys it knows.
pub struct Gateway {
    pub app: Arc<App>,
    issuer: Issuer,
    router: Router,
}

impl Gateway {
    /// Nobody behind it.
    pub fn alone(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::development("postgres://nowhere", "nats://nowhere");
        change(&mut settings);
        let app = App::over(Backend::nobody(), &settings, Clock::system(), CancellationToken::new()).unwrap();
        Self::of(app, Router::new())
    }

    pub fn of(app: App, more: Router<Arc<App>>) -> Self {
        let (app, issuer) = (Arc::new(app), Issuer::new("test"));
        assert!(app.auth.learn(issuer.document()));
        let router = crate::router::layered(app.clone(), more);
        Self { app, issuer, router }
    }

    pub fn token(&self, id: CustomerId, roles: &[Role]) -> String {
        self.issuer.sign(&claims(id, roles, self.app.clock.now(), 600))
    }

    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4000))));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        let text = String::from_utf8(bytes.into()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Asserts a problem in its full form.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status.as_u16(), self.header("content-type")),
            (status, "application/problem+json"),
            "{}",
            self.text
        );
        let json = self.json();
        assert_eq!((json["code"].as_str(), json["status"].as_u64()), (Some(code), Some(u64::from(status))), "{json}");
        assert_eq!(json["type"], format!("urn:eventicket:problem:{code}"));
        assert_eq!(json["request_id"], self.header("x-request-id"));
        json
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value)).body(body.into()).unwrap()
}

pub fn post(path: &str, token: &str, more: &[(&str, &str)], body: &Value) -> Request<Body> {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("content-type", "application/json")];
    if !token.is_empty() {
        headers.push(("authorization", &bearer));
    }
    headers.extend(more);
    request("POST", path, &headers, body.to_string())
}

pub fn get(path: &str, token: &str) -> Request<Body> {
    if token.is_empty() {
        return request("GET", path, &[], "");
    }
    request("GET", path, &[("authorization", &format!("Bearer {token}"))], "")
}
