//! `POST /v1/sagas/{id}/skip`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{Action, SagaDetail};
use eventicket_kit::Problem;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::act;
use crate::app::Shared;
use crate::auth::Operator;
use crate::extract::{Id, JsonBody, Reason};
use crate::trace::Trace;

/// What a step is skipped with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Stands in the history, with who acted.
    reason: Reason,
    /// What the step is taken to have brought; null where it is not given.
    #[serde(default)]
    output: Value,
}

/// Skip a step
///
/// Goes on as if the current step had brought this output. Its service is asked first, and closes what has not begun, so that
/// a late or replayed command of the step is refused; where the step has happened, what it brought counts. The point of no
/// return is never skipped.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/skip", tag = "sagas", operation_id = "skip_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Skip, example = json!({"reason": "paid by bank transfer", "output": {"intent": "by hand"}})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("running", "pending"))),
        (status = 409, description = "`past_no_return`: the point of no return is never skipped; `unfit_output`: later steps need another output of this one, as a booking needs its price; `conflict`: it is a wait, or its service is being asked; `unwinding`; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn skip(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Skip>,
) -> Result<Json<SagaDetail>, Problem> {
    let Skip { reason, output } = body.value;
    act(&app, id, &operator, Action::Skip { output: output.into() }, reason, &trace).await
}
