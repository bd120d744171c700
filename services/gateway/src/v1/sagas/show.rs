//! `GET /v1/sagas/{id}`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{GET_SAGA, SagaDetail};
use eventicket_kit::Problem;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Id;

/// Show a saga
///
/// With its steps. Payment methods are sealed.
#[utoipa::path(
    get, path = "/v1/sagas/{id}", tag = "sagas", operation_id = "show_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    responses((status = 200, description = "The saga", body = SagaDetail, example = json!(example()))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn show(State(app): State<Shared>, _: Operator, Id(id): Id<SagaId>) -> Result<Json<SagaDetail>, Problem> {
    let saga: Option<SagaDetail> = app.backend.read(ORCHESTRATOR, GET_SAGA, &id).await?;
    saga.map(Json).ok_or_else(Problem::not_found)
}

fn example() -> Value {
    let mut saga = super::example();
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
