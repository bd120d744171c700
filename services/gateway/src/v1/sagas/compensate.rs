//! `POST /v1/sagas/{id}/compensate`.

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

/// Compensate a saga
///
/// Undoes it from where it stands. This is also the way out for a point of no return that was dead-lettered: its service is
/// asked first, and where it has happened after all the saga completes.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/compensate", tag = "sagas", operation_id = "compensate_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Why, example = json!({"reason": "the event does not take place"})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("compensating", "failed"))),
        (status = 409, description = "`past_no_return`: it is dispatched and its answer is awaited; `unwinding`; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn compensate(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Why>,
) -> Result<Json<SagaDetail>, Problem> {
    act(&app, id, &operator, Action::Compensate, body.value.reason, &trace).await
}
