//! `GET /v1/sagas/{id}/history`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{HISTORY, HistoryEntry};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Id;
use crate::paging::Listed;

/// Show a saga's history
///
/// Everything that happened, oldest first: dispatches, answers, timers, and who acted and why.
#[utoipa::path(
    get, path = "/v1/sagas/{id}/history", tag = "sagas", operation_id = "show_saga_history",
    params(("id" = SagaId, Path, description = "The saga; a booking's id is its saga's")),
    responses((status = 200, description = "The whole history", body = Listed<HistoryEntry>, example = json!({
        "items": [
            {"seq": 1, "at": "2027-01-12T09:30:00.000Z", "what": "started"},
            {"seq": 2, "at": "2027-01-12T09:30:00.000Z", "what": "dispatched", "step": "RESERVE", "round": 1, "attempt": 1},
            {"seq": 3, "at": "2027-01-12T09:30:00.012Z", "what": "done", "step": "RESERVE", "round": 1, "attempt": 1, "duration_ms": 12},
        ],
        "next": null,
    }))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn history(
    State(app): State<Shared>,
    _: Operator,
    Id(id): Id<SagaId>,
) -> Result<Json<Listed<HistoryEntry>>, Problem> {
    let entries: Option<Vec<HistoryEntry>> = app.backend.read(ORCHESTRATOR, HISTORY, &id).await?;
    let entries = entries.ok_or_else(Problem::not_found)?;
    Ok(Json(Listed::new(entries, None::<()>)))
}
