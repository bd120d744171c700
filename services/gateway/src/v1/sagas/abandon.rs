//! `POST /v1/sagas/{id}/abandon`.

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

/// How a saga is given up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Abandon {
    /// Stands in the history, with who acted.
    reason: Reason,
    /// Without waiting for its services.
    #[serde(default)]
    force: bool,
}

/// Abandon a saga
///
/// Gives it up as it stands, once its services have told what stands of it and have closed what has not begun; what stands
/// keeps it in the list of those that need attention until it is given back. With `force` it does not wait for them.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/abandon", tag = "sagas", operation_id = "abandon_saga",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    request_body(content = Abandon, example = json!({"reason": "a test of ours", "force": false})),
    responses(
        (status = 200, description = "The saga after it", body = SagaDetail, example = json!(super::detailed("abandoned", "failed"))),
        (status = 409, description = "`past_no_return`: only its answer decides; `conflict`: it is being abandoned; or `ended`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the saga; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn abandon(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<SagaId>,
    trace: Trace,
    body: JsonBody<Abandon>,
) -> Result<Json<SagaDetail>, Problem> {
    let Abandon { reason, force } = body.value;
    act(&app, id, &operator, Action::Abandon { force }, reason, &trace).await
}
