//! `POST /v1/sagas/{id}/retry`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{Action, SagaDetail};
use eventicket_kit::Problem;

use super::{Why, act};
use crate::app::Shared;
use crate::auth::Operator;
use crate::extract::{Id, JsonBody};
use crate::trace::Trace;

/// Retry a saga
///
/// What waits for its next attempt is tried now, and an undo that gave up gets all its attempts again.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/retry", tag = "sagas", operation_id = "retry_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Why, example = json!({"reason": "the payment gateway is back"})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("running", "pending"))),
        (status = 409, description = "`conflict`: nothing waits to be tried again; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn retry(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Why>,
) -> Result<Json<SagaDetail>, Problem> {
    act(&app, id, &operator, Action::Retry, body.value.reason, &trace).await
}
