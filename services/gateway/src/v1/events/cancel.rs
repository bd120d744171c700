//! `POST /v1/events/{id}/cancel`.

use axum::extract::State;
use axum::http::StatusCode;
use eventicket_contracts::EventId;
use eventicket_contracts::events::EventState;
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Organizer;
use crate::extract::Id;

/// Cancel an event
///
/// Not supported yet for events that are on sale; drafts are deleted instead.
#[utoipa::path(
    post, path = "/v1/events/{id}/cancel", tag = "events", operation_id = "cancel_event",
    params(("id" = EventId, Path, description = "The event")),
    responses(
        (status = 409, description = "`event_has_bookings`: it is on sale; or `not_published`"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn cancel(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    Id(id): Id<EventId>,
) -> Result<StatusCode, Problem> {
    let event = super::read(&app, id, caller.viewer()).await?;
    let title = "Not possible in its state";
    Err(match event.state {
        EventState::Draft | EventState::Cancelled => Problem::new(StatusCode::CONFLICT, "not_published", title),
        EventState::Publishing | EventState::Published => {
            Problem::new(StatusCode::CONFLICT, "event_has_bookings", title)
                .with_detail("an event that is on sale cannot be cancelled yet")
        }
    })
}
