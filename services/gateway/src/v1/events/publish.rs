//! `POST /v1/events/{id}/publish`.

use axum::extract::State;
use axum::response::Response;
use eventicket_contracts::EventId;
use eventicket_contracts::events::{Event, PUBLISH};
use eventicket_kit::Problem;

use super::decision::decided;
use crate::app::Shared;
use crate::auth::Organizer;
use crate::etag::IfMatch;
use crate::extract::Id;
use crate::prefer::Wait;

/// Put an event on sale
///
/// Drafts that have not begun, and what was taken off sale and is not over. Answered when it is on sale; 202 where that
/// takes longer, and then the event's `change` tells: it is gone once the event is on sale, or says why it is not.
/// Publishing what is published changes nothing.
#[utoipa::path(
    post, path = "/v1/events/{id}/publish", tag = "events", operation_id = "publish_event",
    params(
        ("id" = EventId, Path, description = "The event"),
        ("If-Match" = Option<String>, Header, description = "Only this version", example = "\"1\""),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: how many seconds to wait, at most 30; 5 where it is not sent", example = "wait=10"),
    ),
    responses(
        (status = 200, description = "It is on sale", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example("published"))),
        (status = 202, description = "Bookings has not decided yet", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example_under_way("publishing"))),
        (status = 409, description = "`event_over`: it has begun or ended; `event_cancelled`; `change_pending`: bookings still decides on another change of the last minute; or bookings' refusal"),
        (status = 412, description = "`version_conflict`: it was changed since it was read"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn publish(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    Id(id): Id<EventId>,
    if_match: IfMatch,
    wait: Wait,
) -> Result<Response, Problem> {
    let viewer = caller.viewer();
    let event = super::turn(&app, PUBLISH, id, viewer, &if_match).await?;
    decided(&app, event, viewer, wait).await
}
