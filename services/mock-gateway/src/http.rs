//! The routes of the payment gateway.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connections::Unheard;
use crate::form::{self, Operation};
use crate::gateway::{Answer, Change, Gateway, broken, fingerprint};
use crate::intents::{Refund, Refusal};
use crate::{pages, test_routes};

/// Stripe's bounds of a page.
const PAGE: (usize, usize) = (10, 100);
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotent-replayed";

pub(crate) type App = State<Arc<Gateway>>;

/// All routes; each but `/healthz` and the customer's pages wants the key.
pub(crate) fn router(gateway: Arc<Gateway>, key: &str) -> Router {
    let (bearer, asked): (Arc<str>, _) = (format!("Bearer {key}").into(), Arc::clone(&gateway));
    let authorized = move |request: Request, next: Next| {
        let known =
            request.headers().get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == bearer.as_bytes());
        let refused = Arc::clone(&asked);
        async move { if known { next.run(request).await } else { unauthorized(&refused).into_response() } }
    };
    Router::new()
        .route("/v1/payment_intents", post(create).get(list))
        .route("/v1/payment_intents/{id}", get(show))
        .route("/v1/payment_intents/{id}/confirm", post(confirm))
        .route("/v1/payment_intents/{id}/cancel", post(cancel))
        .route("/v1/refunds", post(refund).get(refunds))
        .route("/v1/refunds/{id}", get(show_refund))
        .merge(test_routes::router())
        .fallback(async |State(gateway): App| {
            gateway.refused(&Refusal { status: 404, ..Refusal::invalid("url_invalid", "no such URL") })
        })
        .layer(middleware::from_fn(authorized))
        .route("/healthz", get(async || "ok"))
        .merge(pages::router())
        .with_state(gateway)
}

fn unauthorized(gateway: &Gateway) -> Answer {
    let message = "the secret key is missing or wrong";
    gateway.refused(&Refusal { status: 401, ..Refusal::invalid("api_key_invalid", message) })
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
        Err(refusal) => return gateway.refused(&refusal),
    };
    let key = headers.get(IDEMPOTENCY_KEY).map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    let change = Change { operation, key, fingerprint: fingerprint(path, body) };
    tokio::spawn(async move { gateway.change(change).await }).await.unwrap_or_else(|_| broken())
}

async fn show(State(gateway): App, Path(id): Path<String>) -> Answer {
    gateway.look(|book, base| book.intent(&id).map(|intent| intent.body(base))).await
}

async fn show_refund(State(gateway): App, Path(id): Path<String>) -> Answer {
    gateway.look(|book, _| book.refund(&id).map(|refund| refund.body())).await
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    payment_intent: Option<String>,
}

async fn list(State(gateway): App, Query(page): Query<Page>) -> Answer {
    let limit = page.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    let newest = gateway.look(|book, base| {
        let (intents, more) = book.newest(limit);
        Ok(listed(intents.iter().map(|intent| intent.body(base)).collect(), more))
    });
    newest.await
}

async fn refunds(State(gateway): App, Query(page): Query<Page>) -> Answer {
    let Some(intent) = page.payment_intent else {
        return gateway.refused(&Refusal::invalid("parameter_missing", "payment_intent is missing"));
    };
    let refunds =
        gateway.look(|book, _| Ok(listed(book.refunds_of(&intent).iter().map(Refund::body).collect(), false)));
    refunds.await
}

fn listed(data: Vec<Value>, has_more: bool) -> Value {
    json!({ "object": "list", "data": data, "has_more": has_more })
}

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
