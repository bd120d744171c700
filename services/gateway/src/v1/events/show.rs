//! `GET /v1/events/{id}`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use eventicket_contracts::EventId;
use eventicket_contracts::events::Event;
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Visitor;
use crate::etag;
use crate::extract::Id;

/// Show an event
///
/// Drafts are seen by their organizer and by administrators; so is `change`, which tells of a change of what is sold while
/// bookings decides on it, and why the last one was refused.
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "events", operation_id = "show_event",
    params(
        ("id" = EventId, Path, description = "The event"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known already", example = "\"1\""),
    ),
    responses(
        (status = 200, description = "The event", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example("published"))),
        (status = 304, description = "It is the version that is known already", headers(("ETag" = String, description = "Its version"))),
    ),
    security((), ("bearer" = [])),
)]
pub async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    Id(id): Id<EventId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let event = super::read(&app, id, visitor.viewer()).await?;
    Ok(etag::answer(&headers, event.version, Json(&event)))
}
