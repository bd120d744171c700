//! The page on which a customer does what a payment asks for; `next_action` of its intent leads here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};

use crate::form::Operation;
use crate::gateway::Gateway;
use crate::http::App;
use crate::intents::{Intent, Settlement, Status};

type Page = (StatusCode, Html<String>);

/// Nobody but the customer knows an intent's id.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/authenticate/{id}", get(show))
        .route("/authenticate/{id}/complete", post(complete))
        .route("/authenticate/{id}/fail", post(fail))
}

async fn show(State(gateway): App, Path(id): Path<String>) -> Page {
    match gateway.intent(&id).await {
        Some(intent) if intent.status == Status::RequiresAction => asks(&intent),
        Some(_) => page(StatusCode::OK, "<p>There is nothing to do for this payment.</p>"),
        None => page(StatusCode::NOT_FOUND, "<p>There is no such payment.</p>"),
    }
}

async fn complete(State(gateway): App, Path(id): Path<String>) -> Page {
    end(&gateway, id, Settlement::Succeeds, "<p>Thank you: the payment is made. You can close this page.</p>").await
}

async fn fail(State(gateway): App, Path(id): Path<String>) -> Page {
    end(&gateway, id, Settlement::Fails, "<p>The payment was not made. You can close this page.</p>").await
}

async fn end(gateway: &Gateway, id: String, end: Settlement, told: &str) -> Page {
    let acts = gateway.intent(&id).await.is_some_and(|intent| intent.status == Status::RequiresAction);
    if acts && gateway.settle(Operation::Settle { id, end }).await.status == 200 {
        page(StatusCode::OK, told)
    } else {
        page(StatusCode::CONFLICT, "<p>There is nothing to do for this payment any more.</p>")
    }
}

fn asks(intent: &Intent) -> Page {
    let (id, currency) = (&intent.id, intent.currency.to_uppercase());
    let amount = format!("{}.{:02}", intent.amount / 100, intent.amount % 100);
    let body = format!(
        "<p>Do you want to pay {amount} {currency}?</p>
<form method=\"post\"><button formaction=\"/authenticate/{id}/complete\">Pay</button>
<button formaction=\"/authenticate/{id}/fail\">Refuse</button></form>"
    );
    page(StatusCode::OK, &body)
}

fn page(status: StatusCode, body: &str) -> Page {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Test bank</title><h1>Test bank</h1>{body}</html>"
    );
    (status, Html(html))
}
