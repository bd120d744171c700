//! `POST /v1/sagas/{id}/cancel`.

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

/// Cancel a saga
///
/// As its customer would: what was done is undone. Once its point of no return is dispatched it is too late.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/cancel", tag = "sagas", operation_id = "cancel_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Why, example = json!({"reason": "asked for by telephone"})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("compensating", "cancelled"))),
        (status = 409, description = "`past_no_return`: only its answer decides; `unwinding`; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn cancel(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Why>,
) -> Result<Json<SagaDetail>, Problem> {
    act(&app, id, &operator, Action::Cancel, body.value.reason, &trace).await
}
