//! What only tests ask for: settings, and ends of what takes time.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Map, Value};

use crate::form::Operation;
use crate::gateway::{Answer, Gateway, broken};
use crate::http::App;
use crate::intents::{Refusal, Settlement};

pub(crate) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/test/settings", post(settings))
        .route("/test/refunds/{id}/succeed", post(succeed))
        .route("/test/refunds/{id}/fail", post(fail))
        .route("/test/payment_intents/{id}/succeed", post(succeed))
        .route("/test/payment_intents/{id}/fail", post(fail))
}

/// What is given changes; all settings are answered, with the number of the ledger's syncs and of the webhooks that were
/// not taken yet.
async fn settings(State(gateway): App, Json(new): Json<Map<String, Value>>) -> Answer {
    if !new.is_empty() {
        match gateway.set(new).await {
            Some(Ok(())) => {}
            Some(Err(message)) => return gateway.refused(&Refusal::invalid("parameter_invalid", message)),
            None => return broken(),
        }
    }
    let (settings, syncs, unsent) = gateway.figures();
    let mut body = serde_json::to_value(settings).unwrap_or_default();
    body["syncs"] = syncs.into();
    body["unsent_webhooks"] = unsent.into();
    Answer::ok(body)
}

/// A refund, or an intent that is `processing` or `requires_action`, succeeds.
async fn succeed(State(gateway): App, Path(id): Path<String>) -> Answer {
    gateway.settle(Operation::Settle { id, end: Settlement::Succeeds }).await
}

/// The same, but it fails; a refund that has succeeded fails, too.
async fn fail(State(gateway): App, Path(id): Path<String>) -> Answer {
    gateway.settle(Operation::Settle { id, end: Settlement::Fails }).await
}
