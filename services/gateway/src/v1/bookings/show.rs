//! `GET /v1/bookings/{id}`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::BookingId;
use eventicket_contracts::sagas::BookingView;
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Id;

/// Show a booking
///
/// One's own; operators and administrators see all.
#[utoipa::path(
    get, path = "/v1/bookings/{id}", tag = "bookings", operation_id = "show_booking",
    params(("id" = BookingId, Path, description = "The booking")),
    responses(
        (status = 200, description = "The booking", body = BookingView, example = json!(super::example())),
        (status = 429, description = "`busy`: too many look at their bookings now; or `rate_limited`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Id(id): Id<BookingId>,
) -> Result<Json<BookingView>, Problem> {
    Ok(Json(super::read(&app, id, caller.reads()).await?))
}
