//! `POST /v1/sagas/{id}/resume`.

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

/// Resume a saga
///
/// It goes on from where it was paused.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/resume", tag = "sagas", operation_id = "resume_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Why, example = json!({"reason": "the price is right"})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("running", "pending"))),
        (status = 409, description = "`conflict`: it is not paused; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn resume(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Why>,
) -> Result<Json<SagaDetail>, Problem> {
    act(&app, id, &operator, Action::Resume, body.value.reason, &trace).await
}
