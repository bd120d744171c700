//! `/healthz`, `/readyz`, `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use eventicket_contracts::bookings::{AVAILABILITY, AvailabilityQuery};
use eventicket_contracts::events::{self, GetEvent, Viewer};
use eventicket_contracts::identity::USERS;
use eventicket_contracts::sagas::{GET_BOOKINGS, GetBooking};
use eventicket_contracts::{CustomerId, EventId, SagaId};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::{App, Shared};
use crate::backend::{BOOKINGS, EVENTS, IDENTITY, ORCHESTRATOR};

/// How long a service may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a report is good for, so that asking often costs the services nothing.
const GOOD_FOR: Duration = Duration::from_millis(500);

/// The last report.
#[derive(Default)]
pub struct Health(Mutex<Option<(Instant, Report)>>);

/// What the gateway needs, and what of it is missing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Report {
    /// Whether everything is there.
    pub ready: bool,
    /// What is not.
    pub missing: Vec<String>,
    /// Each part with `ok`, or with what is wrong.
    pub checks: BTreeMap<String, String>,
}

/// Whether the process lives
///
/// It does not look at anything else: a process that lives is not restarted because another is away.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "healthz",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain", example = json!("ok"))),
    security(()),
)]
pub async fn healthz() -> &'static str {
    "ok"
}

/// Whether requests can be served
///
/// Asks each service that requests need, through to its database; the answer says which do not answer.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "readyz",
    responses(
        (status = 200, description = "They can", body = Report, example = json!(example(true))),
        (status = 503, description = "Something is missing", body = Report, example = json!(example(false))),
    ),
    security(()),
)]
pub async fn readyz(State(app): State<Shared>) -> Response {
    let mut last = app.health.0.lock().await;
    let report = match &*last {
        Some((at, report)) if at.elapsed() < GOOD_FOR => report.clone(),
        _ => {
            let report = report(&app).await;
            *last = Some((Instant::now(), report.clone()));
            report
        }
    };
    if report.ready {
        return Json(report).into_response();
    }
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(report)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Metrics of the process
///
/// In Prometheus' text form.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "metrics",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain",
        example = json!("eventicket_http_requests_total{method=\"GET\",route=\"/v1/events\",status=\"200\"} 42"))),
    security(()),
)]
pub async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], eventicket_kit::prometheus::render())
}

fn example(ready: bool) -> Report {
    let state = if ready { "ok" } else { "nobody answers" };
    let checks = [("nats", "ok"), ("orchestrator", state)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    Report { ready, missing: if ready { vec![] } else { vec![ORCHESTRATOR.to_owned()] }, checks }
}

async fn report(app: &App) -> Report {
    let nobody = Uuid::nil();
    let ask = async |service, name, query: Value| {
        let answer = tokio::time::timeout(PATIENCE, app.backend.ask::<Value>(service, name, &query)).await;
        match answer {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "no answer in time".to_owned(),
        }
    };
    let value = |query: Result<Value, serde_json::Error>| query.unwrap_or_default();
    let booking = value(serde_json::to_value([GetBooking { id: SagaId(nobody), owner: None }]));
    let event = value(serde_json::to_value(GetEvent { id: EventId(nobody), viewer: Viewer::Public }));
    let left = value(serde_json::to_value(AvailabilityQuery { event: EventId(nobody) }));
    let users = value(serde_json::to_value([CustomerId(nobody)]));
    let (orchestrator, identity, events, bookings) = tokio::join!(
        ask(ORCHESTRATOR, GET_BOOKINGS, booking),
        ask(IDENTITY, USERS, users),
        ask(EVENTS, events::GET, event),
        ask(BOOKINGS, AVAILABILITY, left),
    );
    let is = |good: bool, bad: &str| if good { "ok".to_owned() } else { bad.to_owned() };
    let nats = is(app.backend.is_connected(), "not connected");
    let keys = is(app.auth.has_keys(), "not fetched yet");
    let checks = [
        ("nats", nats),
        (ORCHESTRATOR, orchestrator),
        (IDENTITY, identity),
        ("identity keys", keys),
        (EVENTS, events),
        (BOOKINGS, bookings),
    ];
    let missing: Vec<String> =
        checks.iter().filter(|(_, state)| state != "ok").map(|(name, _)| (*name).to_owned()).collect();
    let checks = checks.map(|(name, state)| (name.to_owned(), state)).into();
    Report { ready: missing.is_empty(), missing, checks }
}
