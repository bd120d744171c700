//! `POST /v1/sagas/{id}/resolve`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{Action, SagaDetail};
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::ToSchema;

use super::act;
use crate::app::Shared;
use crate::auth::Operator;
use crate::extract::{Id, JsonBody, Reason};
use crate::trace::Trace;

/// What was done by hand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// Stands in the history, with who acted.
    reason: Reason,
    /// The step.
    #[schema(example = "PAY")]
    step: String,
}

/// Resolve a step
///
/// What the step waits for was done by hand: an undo that gave up, or a step that is an operator's. Of an undo its service is
/// asked first, and closes it, so that nobody is paid back twice.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/resolve", tag = "sagas", operation_id = "resolve_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Resolve, example = json!({"reason": "paid back by bank transfer", "step": "PAY"})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("compensating", "cancelled"))),
        (status = 409, description = "`conflict`: nothing of the step waits for a hand; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn resolve(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Resolve>,
) -> Result<Json<SagaDetail>, Problem> {
    let Resolve { reason, step } = body.value;
    act(&app, id, &operator, Action::Resolve { step }, reason, &trace).await
}
