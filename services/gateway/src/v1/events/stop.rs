//! `POST /v1/events/{id}/stop`.

use axum::extract::State;
use axum::response::Response;
use eventicket_contracts::EventId;
use eventicket_contracts::events::{Event, STOP};
use eventicket_kit::Problem;

use super::decision::decided;
use crate::app::Shared;
use crate::auth::Organizer;
use crate::etag::IfMatch;
use crate::extract::Id;
use crate::prefer::Wait;

/// Take an event off sale
///
/// Only while no tickets are held or sold. It stays visible, and can be published again. Answered when bookings has
/// decided; 202 where that takes longer, and then the event's `change` tells.
#[utoipa::path(
    post, path = "/v1/events/{id}/stop", tag = "events", operation_id = "stop_event",
    params(
        ("id" = EventId, Path, description = "The event"),
        ("If-Match" = Option<String>, Header, description = "Only this version", example = "\"1\""),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: how many seconds to wait, at most 30; 5 where it is not sent", example = "wait=10"),
    ),
    responses(
        (status = 200, description = "It is off sale", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example("stopped"))),
        (status = 202, description = "Bookings has not decided yet", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example_under_way("published"))),
        (status = 409, description = "`has_bookings`: tickets are held or sold; `not_published`; `event_over`; or `change_pending`: bookings still decides on another change of the last minute"),
        (status = 412, description = "`version_conflict`: it was changed since it was read"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn stop(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    Id(id): Id<EventId>,
    if_match: IfMatch,
    wait: Wait,
) -> Result<Response, Problem> {
    let viewer = caller.viewer();
    let event = super::turn(&app, STOP, id, viewer, &if_match).await?;
    decided(&app, event, viewer, wait).await
}
