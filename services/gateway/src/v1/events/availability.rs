//! `GET /v1/events/{id}/availability`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::EventId;
use eventicket_contracts::bookings::{AVAILABILITY, Availability, AvailabilityQuery};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::backend::BOOKINGS;
use crate::extract::Id;

/// Show what is left of an event
///
/// True when it was read, gone the next moment. Drafts have no availability.
#[utoipa::path(
    get, path = "/v1/events/{id}/availability", tag = "events", operation_id = "show_availability",
    params(("id" = EventId, Path, description = "The event")),
    responses((status = 200, description = "What is left", body = Availability, example = json!({
        "event_id": "01936f0e-8f4e-7cc2-9a56-0242ac120002",
        "on_sale": true,
        "ticket_types": [{"ticket_type_id": "01936f0e-1111-7cc2-9a56-0242ac120004", "quantity": 500, "available": 498}],
    }))),
    security((), ("bearer" = [])),
)]
pub async fn availability(State(app): State<Shared>, Id(event): Id<EventId>) -> Result<Json<Availability>, Problem> {
    let left: Option<Availability> = app.backend.read(BOOKINGS, AVAILABILITY, &AvailabilityQuery { event }).await?;
    left.map(Json).ok_or_else(Problem::not_found)
}
