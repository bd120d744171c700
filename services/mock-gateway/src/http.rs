//! The routes of the payment gateway.

use std::sync::Arc;

use bytes::Bytes;
use eventicket_kit::prometheus;
use eventicket_kit::server::{Answers, Whole};
use eventicket_kit::trace::{Span, Telling};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use serde::Serialize;

use crate::answer::{Answer, json};
use crate::finished::Finished;
use crate::form::{self, Operation};
use crate::gateway::{Change, Gateway, fingerprint};
use crate::intents::{Refund, Refusal};
use crate::{pages, test_routes};

/// Stripe's bounds of a page.
const PAGE: (usize, usize) = (10, 100);
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Answers requests.
#[derive(Clone)]
pub(crate) struct App {
    gateway: Arc<Gateway>,
    /// The value of the header that proves who calls.
    bearer: Arc<str>,
}

impl Answers for App {
    const MOST_BYTES: usize = 1024 * 1024;

    async fn answer(&self, head: &Parts, body: Bytes) -> Option<Whole> {
        let parent = head.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let _span = Span::below(parent, Telling::Server, || format!("{} {}", head.method, kind_of(head.uri.path())));
        self.route(head, body).await.response()
    }
}

impl App {
    pub fn new(gateway: Arc<Gateway>, key: &str) -> Self {
        Self { gateway, bearer: format!("Bearer {key}").into() }
    }

    /// All routes; each but `/healthz` and the customer's pages wants the key.
    async fn route(&self, parts: &Parts, body: Bytes) -> Answer {
        let gateway = &self.gateway;
        let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        match (parts.method.as_str(), path.as_slice()) {
            ("GET", ["healthz"]) => return Answer::text("ok"),
            ("GET", ["metrics"]) => return Answer::text(prometheus::render()),
            ("GET", ["authenticate", id]) => return pages::show(gateway, id).await,
            ("POST", ["authenticate", id, "complete"]) => return pages::complete(gateway, id).await,
            ("POST", ["authenticate", id, "fail"]) => return pages::fail(gateway, id).await,
            _ => {}
        }
        let proof = parts.headers.get(AUTHORIZATION);
        if proof.is_none_or(|proof| proof.as_bytes() != self.bearer.as_bytes()) {
            return refuse(gateway, 401, "api_key_invalid", "the secret key is missing or wrong");
        }
        let fingerprint = |path: &str| fingerprint(path, &body);
        let change = |fingerprint, operation| change(gateway, parts, fingerprint, operation);
        match (parts.method.as_str(), path.as_slice()) {
            ("POST", ["v1", "payment_intents"]) => change(fingerprint("payment_intents"), form::create(&body)).await,
            ("POST", ["v1", "payment_intents", id, "confirm"]) => {
                change(fingerprint(&format!("{id}/confirm")), form::confirm((*id).to_owned(), &body)).await
            }
            ("POST", ["v1", "payment_intents", id, "cancel"]) => {
                change(fingerprint(&format!("{id}/cancel")), form::cancel((*id).to_owned(), &body)).await
            }
            ("POST", ["v1", "refunds"]) => change(fingerprint("refunds"), form::refund(&body)).await,
            ("GET", ["v1", "payment_intents"]) => list(gateway, parts).await,
            ("GET", ["v1", "payment_intents", id]) => {
                gateway.look(|book, base| book.intent(id).map(|intent| json(&intent.shown(base)))).await
            }
            ("GET", ["v1", "refunds"]) => refunds(gateway, parts).await,
            ("GET", ["v1", "refunds", id]) => {
                gateway.look(|book, _| book.refund(id).map(|refund| json(&refund.shown()))).await
            }
            ("POST", ["test", "settings"]) => test_routes::settings(gateway, &body).await,
            ("POST", ["test", "refunds" | "payment_intents", id, "succeed"]) => test_routes::succeed(gateway, id).await,
            ("POST", ["test", "refunds" | "payment_intents", id, "fail"]) => test_routes::fail(gateway, id).await,
            _ => refuse(gateway, 404, "url_invalid", "no such URL"),
        }
    }
}

/// A path without ids, as a span is named.
fn kind_of(path: &str) -> String {
    let is_word = |part: &&str| !part.contains(|c: char| c.is_ascii_digit()) || *part == "v1";
    path.split('/').filter(is_word).collect::<Vec<_>>().join("/")
}

fn refuse(gateway: &Gateway, status: u16, code: &'static str, message: &str) -> Answer {
    gateway.refused(&Refusal { status, ..Refusal::invalid(code, message) })
}

/// Makes the change; an asker who hangs up does not stop it half way.
async fn change(
    gateway: &Arc<Gateway>,
    parts: &Parts,
    fingerprint: String,
    operation: Result<Operation, Refusal>,
) -> Answer {
    let operation = match operation {
        Ok(operation) => operation,
        Err(refusal) => return gateway.refused(&refusal),
    };
    let key = parts.headers.get(IDEMPOTENCY_KEY).map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    let change = Change { operation, key, fingerprint };
    let gateway = Arc::clone(gateway);
    Finished::new(async move { gateway.change(change).await }).await
}

#[derive(Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
}

fn listed<T: Serialize>(data: Vec<T>, has_more: bool) -> Bytes {
    json(&List { object: "list", data, has_more })
}

/// A parameter of the query.
fn asked(parts: &Parts, name: &str) -> Option<String> {
    let query = parts.uri.query().unwrap_or_default();
    let found = url::form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name);
    found.map(|(_, value)| value.into_owned())
}

async fn list(gateway: &Gateway, parts: &Parts) -> Answer {
    let Ok(limit) = asked(parts, "limit").map_or(Ok(PAGE.0), |limit| limit.parse()) else {
        return gateway.refused(&Refusal::invalid("parameter_invalid_integer", "limit must be a whole number"));
    };
    let newest = gateway.look(|book, base| {
        let (intents, more) = book.newest(limit.clamp(1, PAGE.1));
        Ok(listed(intents.iter().map(|intent| intent.shown(base)).collect(), more))
    });
    newest.await
}

async fn refunds(gateway: &Gateway, parts: &Parts) -> Answer {
    let Some(intent) = asked(parts, "payment_intent") else {
        return gateway.refused(&Refusal::invalid("parameter_missing", "payment_intent is missing"));
    };
    let refunds =
        gateway.look(|book, _| Ok(listed(book.refunds_of(&intent).iter().map(Refund::shown).collect(), false)));
    refunds.await
}
