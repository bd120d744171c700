//! `POST /v1/bookings/{id}/cancel`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::BookingId;
use eventicket_contracts::sagas::{Action, BookingView};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Id;
use crate::trace::Trace;

/// Cancel a booking
///
/// While it is under way: its tickets are given back, and `refund` tells what happens to the money. Once it is being
/// confirmed it is too late.
#[utoipa::path(
    post, path = "/v1/bookings/{id}/cancel", tag = "bookings", operation_id = "cancel_booking",
    params(("id" = BookingId, Path, description = "The booking")),
    responses(
        (status = 200, description = "The booking as it is now", body = BookingView, example = json!(super::example())),
        (status = 409, description = "`past_no_return`: it is being confirmed; or `ended`, `unwinding`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the booking; or `unavailable`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn cancel(
    State(app): State<Shared>,
    caller: Caller,
    Id(id): Id<BookingId>,
    trace: Trace,
) -> Result<Json<BookingView>, Problem> {
    let acted = super::act(&app, id, caller, Action::Cancel, trace.traceparent()).await?;
    Ok(Json(acted.booking))
}
