//! The routes, and the connections that carry them.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::form::{self, Operation};
use crate::gateway::{Answer, Change, Gateway, broken, fingerprint};
use crate::intents::{Intent, Refund, Refusal};

/// How long requests under way may take after shutdown.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Before the next try to accept, where the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Stripe's bounds of a page.
const PAGE: (usize, usize) = (10, 100);
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotent-replayed";

type App = State<Arc<Gateway>>;

/// All routes; each but `/healthz` wants the key.
pub(crate) fn router(gateway: Arc<Gateway>, key: &str) -> Router {
    let bearer: Arc<str> = format!("Bearer {key}").into();
    let authorized = move |request: Request, next: Next| {
        let known =
            request.headers().get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == bearer.as_bytes());
        async move { if known { next.run(request).await } else { unauthorized().into_response() } }
    };
    Router::new()
        .route("/v1/payment_intents", post(create).get(list))
        .route("/v1/payment_intents/{id}", get(show))
        .route("/v1/payment_intents/{id}/confirm", post(confirm))
        .route("/v1/payment_intents/{id}/cancel", post(cancel))
        .route("/v1/refunds", post(refund).get(refunds))
        .route("/v1/refunds/{id}", get(show_refund))
        .route("/test/settings", post(settings))
        .fallback(async || Answer::from(Refusal { status: 404, ..Refusal::invalid("url_invalid", "no such URL") }))
        .layer(middleware::from_fn(authorized))
        .route("/healthz", get(async || "ok"))
        .with_state(gateway)
}

fn unauthorized() -> Answer {
    Refusal { status: 401, ..Refusal::invalid("api_key_invalid", "the secret key is missing or wrong") }.into()
}

async fn create(State(gateway): App, headers: HeaderMap, body: Bytes) -> Answer {
    change(gateway, &headers, "payment_intents", &body, form::create(&body)).await
}

async fn confirm(State(gateway): App, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    change(gateway, &headers, &format!("{id}/confirm"), &body, form::confirm(id, &body)).await
}

async fn cancel(State(gateway): App, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    change(gateway, &headers, &format!("{id}/cancel"), &body, form::cancel(id, &body)).await
}

async fn refund(State(gateway): App, headers: HeaderMap, body: Bytes) -> Answer {
    change(gateway, &headers, "refunds", &body, form::refund(&body)).await
}

/// Makes the change in a task of its own: an asker who hangs up does not stop it half way.
async fn change(
    gateway: Arc<Gateway>,
    headers: &HeaderMap,
    path: &str,
    body: &[u8],
    operation: Result<Operation, Refusal>,
) -> Answer {
    let operation = match operation {
        Ok(operation) => operation,
        Err(refusal) => return refusal.into(),
    };
    let key = headers.get(IDEMPOTENCY_KEY).map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    let change = Change { operation, key, fingerprint: fingerprint(path, body) };
    tokio::spawn(async move { gateway.change(change).await }).await.unwrap_or_else(|_| broken())
}

async fn show(State(gateway): App, Path(id): Path<String>) -> Answer {
    found(gateway.look(|book| book.intent(&id).map(|intent| intent.body())).await)
}

async fn show_refund(State(gateway): App, Path(id): Path<String>) -> Answer {
    found(gateway.look(|book| book.refund(&id).map(|refund| refund.body())).await)
}

fn found(found: Option<Result<Value, Refusal>>) -> Answer {
    match found {
        Some(Ok(body)) => Answer::ok(body),
        Some(Err(refusal)) => refusal.into(),
        None => broken(),
    }
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    payment_intent: Option<String>,
}

async fn list(State(gateway): App, Query(page): Query<Page>) -> Answer {
    let limit = page.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    let Some((intents, more)) = gateway.look(|book| book.newest(limit)).await else { return broken() };
    Answer::ok(listed(intents.iter().map(Intent::body).collect(), more))
}

async fn refunds(State(gateway): App, Query(page): Query<Page>) -> Answer {
    let Some(intent) = page.payment_intent else {
        return Refusal::invalid("parameter_missing", "payment_intent is missing").into();
    };
    let Some(refunds) = gateway.look(|book| book.refunds_of(&intent)).await else { return broken() };
    Answer::ok(listed(refunds.iter().map(Refund::body).collect(), false))
}

fn listed(data: Vec<Value>, has_more: bool) -> Value {
    json!({ "object": "list", "data": data, "has_more": has_more })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSettings {
    latency_ms: Option<u64>,
    failure_rate: Option<f64>,
}

/// For tests: what is given changes; all settings are answered, with the number of the ledger's syncs.
async fn settings(State(gateway): App, Json(new): Json<NewSettings>) -> Answer {
    let faults = gateway.set_faults(|faults| {
        faults.latency = new.latency_ms.map_or(faults.latency, Duration::from_millis);
        faults.failure_rate = new.failure_rate.map_or(faults.failure_rate, |rate| rate.clamp(0.0, 1.0));
    });
    let latency = u64::try_from(faults.latency.as_millis()).unwrap_or(u64::MAX);
    Answer::ok(json!({ "latency_ms": latency, "failure_rate": faults.failure_rate, "syncs": gateway.syncs() }))
}

/// Marks a response whose connection is cut in its place.
#[derive(Clone)]
struct Unheard;

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body)).into_response();
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if self.unheard {
            response.extensions_mut().insert(Unheard);
        }
        response
    }
}

/// Serves until shutdown, then lets requests under way end. Dropping it cuts every connection.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_REQUESTS, ended).await;
}

async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move {
            let response =
                router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never: Infallible| match never {});
            // An error in place of a response closes the connection without one.
            if response.extensions().get::<Unheard>().is_some() { Err(Cut) } else { Ok(response) }
        }
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the answer is lost on purpose")]
struct Cut;
