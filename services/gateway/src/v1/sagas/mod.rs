//! Sagas, for operators.

pub mod abandon;
pub mod bulk;
pub mod cancel;
pub mod compensate;
pub mod filter;
pub mod history;
pub mod list;
pub mod pause;
pub mod resolve;
pub mod resume;
pub mod retry;
pub mod show;
pub mod skip;

use axum::Json;
use axum::http::StatusCode;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{Act, ActAnswer, Action, GET_SAGA, SagaDetail};
use eventicket_kit::Problem;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Reason;
use crate::trace::Trace;

/// Why an operator acts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// Stands in the history, with who acted.
    pub reason: Reason,
}

/// Acts on a saga; answers with the saga after it.
async fn act(
    app: &App,
    id: SagaId,
    operator: &Operator,
    action: Action,
    reason: Reason,
    trace: &Trace,
) -> Result<Json<SagaDetail>, Problem> {
    let (actor, trace) = (operator.actor(), Some(trace.traceparent()));
    let act = Act { saga: id, owner: None, actor, reason: reason.into(), action, trace };
    match app.backend.act(&act).await? {
        ActAnswer::Done { .. } => read(app, id).await,
        ActAnswer::NotFound => Err(Problem::not_found()),
        ActAnswer::Conflict { code, message } => {
            Err(Problem::new(StatusCode::CONFLICT, &code, "Not possible in its state").with_detail(message))
        }
    }
}

async fn read(app: &App, id: SagaId) -> Result<Json<SagaDetail>, Problem> {
    let saga: Option<SagaDetail> = app.backend.read(ORCHESTRATOR, GET_SAGA, &id).await?;
    saga.map(Json).ok_or_else(Problem::not_found)
}

/// A saga in a list, for the documentation.
fn example() -> Value {
    json!({
        "id": "01936f0e-8f4e-7cc2-9a56-0242ac120002",
        "kind": "booking",
        "definition_version": 1,
        "state": "running",
        "step": "PAY",
        "status": "pending",
        "attention": [],
        "event_id": "01936f0e-2222-7cc2-9a56-0242ac120005",
        "user_id": "01936f0e-0000-7cc2-9a56-0242ac120003",
        "started_at": "2027-01-12T09:30:00.000Z",
        "updated_at": "2027-01-12T09:30:00.021Z",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "version": 3,
    })
}

/// A saga with its steps, for the documentation.
fn detailed(state: &str, status: &str) -> Value {
    let mut saga = example();
    saga["state"] = json!(state);
    saga["status"] = json!(status);
    saga["input"] = json!({
        "event": "01936f0e-2222-7cc2-9a56-0242ac120005",
        "customer": "01936f0e-0000-7cc2-9a56-0242ac120003",
        "items": [{"ticket_type": "01936f0e-1111-7cc2-9a56-0242ac120004", "quantity": 2}],
        "method": "1.k1.c2VhbGVk",
    });
    saga["steps"] = json!([
        {"name": "RESERVE", "state": "done", "round": 1, "attempts": 1},
        {"name": "PAY", "state": "dispatched", "round": 1, "attempts": 1},
    ]);
    saga
}
