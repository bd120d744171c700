//! `POST /v1/dead-letters/{id}/replay`.

use std::num::NonZeroU64;

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{HandleDeadLetter, REPLAY, Replayed};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::{Id, JsonBody};
use crate::v1::sagas::Why;

/// Replay a dead letter
///
/// Sends it again on the subject that it came on, and takes it off the list. Who did so and why stands in the history of its
/// sagas. What the message asks for happens at most once, however often it is sent.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/replay", tag = "dead-letters", operation_id = "replay_dead_letter",
    params(("id" = u64, Path, minimum = 1, description = "Its number", example = 1_799_746_200_000_001_u64)),
    request_body(content = Why, example = json!({"reason": "the defect is mended"})),
    responses(
        (status = 200, description = "It was sent again", body = Replayed, example = json!({
            "id": 1_799_746_200_000_001_u64,
            "subject": "cmd.bookings.confirm.0",
            "sagas": ["01936f0e-8f4e-7cc2-9a56-0242ac120002"],
        })),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look for it in the list; or `unavailable`: it is still there"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn replay(
    State(app): State<Shared>,
    operator: Operator,
    Id(id): Id<NonZeroU64>,
    body: JsonBody<Why>,
) -> Result<Json<Replayed>, Problem> {
    let query = HandleDeadLetter { id: id.get(), actor: operator.actor(), reason: body.value.reason.into() };
    let replayed: Option<Replayed> = app.backend.write(ORCHESTRATOR, REPLAY, &query).await?;
    replayed.map(Json).ok_or_else(Problem::not_found)
}
