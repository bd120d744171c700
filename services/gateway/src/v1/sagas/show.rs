//! `GET /v1/sagas/{id}`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::SagaDetail;
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Operator;
use crate::extract::Id;

/// Show a saga
///
/// With its steps. Payment methods are sealed.
#[utoipa::path(
    get, path = "/v1/sagas/{id}", tag = "sagas", operation_id = "show_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    responses((status = 200, description = "The saga", body = SagaDetail, example = json!(super::detailed("running", "pending")))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn show(State(app): State<Shared>, _: Operator, Id(id): Id<SagaId>) -> Result<Json<SagaDetail>, Problem> {
    super::read(&app, id).await
}
