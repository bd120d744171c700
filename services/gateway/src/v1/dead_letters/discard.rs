//! `POST /v1/dead-letters/{id}/discard`.

use std::num::NonZeroU64;

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{DISCARD, DeadLetter, HandleDeadLetter};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::{Id, JsonBody};
use crate::v1::sagas::Why;

/// Discard a dead letter
///
/// Takes it off the list without sending it again, as where it is garbage or its sagas have ended. Who did so and why stands in
/// the log.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", tag = "dead-letters", operation_id = "discard_dead_letter",
    params(("id" = u64, Path, minimum = 1, description = "Its number", example = 1_799_746_200_000_001_u64)),
    request_body(content = Why, example = json!({"reason": "garbage"})),
    responses(
        (status = 200, description = "The letter that was discarded", body = DeadLetter, example = json!(super::example())),
        (status = 409, description = "`saga_unfinished`: one of its sagas has not ended, and may need it"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look for it in the list; or `unavailable`: it is still there"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn discard(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<NonZeroU64>,
    body: JsonBody<Why>,
) -> Result<Json<DeadLetter>, Problem> {
    let query = HandleDeadLetter { id: id.get(), actor: operator.actor(), reason: body.value.reason.into() };
    let discarded: Option<DeadLetter> = app.backend.write(ORCHESTRATOR, DISCARD, &query).await?;
    discarded.map(Json).ok_or_else(Problem::not_found)
}
