//! `GET /v1/dead-letters/{id}`.

use std::num::NonZeroU64;

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{DEAD_LETTER, DeadLetterDetail};
use eventicket_kit::Problem;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Id;

/// Show a dead letter
///
/// With the message as text. Payment methods in it are sealed.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "dead-letters", operation_id = "show_dead_letter",
    params(("id" = u64, Path, minimum = 1, description = "Its number", example = 1_799_746_200_000_001_u64)),
    responses((status = 200, description = "The dead letter", body = DeadLetterDetail, example = json!(example()))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn show(
    State(app): State<Shared>,
    _: Operator,
    Id(id): Id<NonZeroU64>,
) -> Result<Json<DeadLetterDetail>, Problem> {
    let letter: Option<DeadLetterDetail> = app.backend.read(ORCHESTRATOR, DEAD_LETTER, &id.get()).await?;
    letter.map(Json).ok_or_else(Problem::not_found)
}

fn example() -> Value {
    let mut letter = super::example();
    let item = r#"{"key":"01936f0e-8f4e-7cc2-9a56-0242ac120002:CONFIRM:1","half":"do","attempt":1,"body":{}}"#;
    letter["payload"] = json!(format!(r#"{{"v":1,"items":[{item}]}}"#));
    letter
}
