//! `GET /v1/bookings/{id}/tickets`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::BookingId;
use eventicket_contracts::bookings::{TICKETS, Ticket, TicketsQuery};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Caller;
use crate::backend::BOOKINGS;
use crate::extract::Id;
use crate::paging::Listed;

/// Show a booking's tickets
///
/// None until it is confirmed. Who knows a ticket's code has the ticket.
#[utoipa::path(
    get, path = "/v1/bookings/{id}/tickets", tag = "bookings", operation_id = "list_tickets",
    params(("id" = BookingId, Path, description = "The booking")),
    responses((status = 200, description = "All its tickets", body = Listed<Ticket>, example = json!({
        "items": [{
            "code": "7ZK3Q9M2T5V8X1B4C6D0E7F9GH",
            "event_id": "01936f0e-2222-7cc2-9a56-0242ac120005",
            "ticket_type_id": "01936f0e-1111-7cc2-9a56-0242ac120004",
            "name": "Standing",
            "issued_at": "2027-01-12T09:30:00.030Z",
        }],
        "next": null,
    }))),
    security(("bearer" = ["customer"])),
)]
pub async fn tickets(
    State(app): State<Shared>,
    caller: Caller,
    Id(id): Id<BookingId>,
) -> Result<Json<Listed<Ticket>>, Problem> {
    // The orchestrator knows whose booking it is, also before there are tickets.
    let booking = super::read(&app, id, caller.reads()).await?;
    let query = TicketsQuery { booking: id, customer: Some(booking.customer_id) };
    let tickets: Vec<Ticket> = app.backend.read(BOOKINGS, TICKETS, &query).await?;
    Ok(Json(Listed::new(tickets, None::<()>)))
}
