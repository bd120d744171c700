//! `DELETE /v1/events/{id}`.

use axum::extract::State;
use axum::http::StatusCode;
use eventicket_contracts::EventId;
use eventicket_contracts::events::{DELETE, OwnEvent};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Organizer;
use crate::backend::EVENTS;
use crate::etag::IfMatch;
use crate::extract::Id;

/// Delete a draft
#[utoipa::path(
    delete, path = "/v1/events/{id}", tag = "events", operation_id = "delete_event",
    params(
        ("id" = EventId, Path, description = "The event"),
        ("If-Match" = Option<String>, Header, description = "Only this version", example = "\"1\""),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "`not_draft`: it is published already"),
        (status = 412, description = "`version_conflict`: it was changed since it was read"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn delete(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    Id(id): Id<EventId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let viewer = caller.viewer();
    let version = super::meant(&app, id, viewer, &if_match).await?;
    let deleted: Option<bool> = app.backend.write(EVENTS, DELETE, &OwnEvent { id, viewer, version }).await?;
    match deleted {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::not_found()),
    }
}
