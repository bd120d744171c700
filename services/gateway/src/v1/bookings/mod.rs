//! Bookings.

pub mod cancel;
pub mod create;
pub mod pay;
pub mod show;
pub mod stream;
pub mod tickets;

use std::time::Duration;

use axum::http::StatusCode;
use eventicket_contracts::sagas::{Act, ActAnswer, Action, BookingStatus, BookingView, GetBooking};
use eventicket_contracts::{BookingId, CustomerId, Json, codes};
use eventicket_kit::{FieldError, Problem};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Caller;
use crate::backend;
use crate::status::Waiter;

/// Longest name of a payment method.
const MAX_METHOD: usize = 255;

/// The booking, where it is `owner`'s or `owner` is nobody in particular.
async fn read(app: &App, id: BookingId, owner: Option<CustomerId>) -> Result<BookingView, Problem> {
    app.backend.booking(GetBooking { id, owner }).await?.ok_or_else(Problem::not_found)
}

/// The booking once it is no longer pending, or as it is when the time is up. It was accepted, so that a failure to
/// read it is no failure of the request: then it is answered as it was.
async fn settled(app: &App, known: BookingView, mut waiter: Waiter, patience: Duration) -> BookingView {
    if known.status != BookingStatus::Pending {
        return known;
    }
    let told = tokio::select! {
        told = waiter.settled() => told,
        () = tokio::time::sleep(patience) => None,
        () = app.shutdown.cancelled() => None,
    };
    // A hint brings the booking with it as a rule; it never tells of another customer's.
    let told = told.and_then(|told| serde_json::from_slice::<BookingView>(&told).ok());
    if let Some(booking) = told.filter(|b| b.customer_id == known.customer_id) {
        return booking;
    }
    read(app, known.id, Some(known.customer_id)).await.unwrap_or(known)
}

/// A booking after an action.
struct Acted {
    booking: BookingView,
    /// A request with the same key had done it before.
    repeated: bool,
}

/// Acts on a caller's own booking.
async fn act(app: &App, id: BookingId, caller: Caller, action: Action, trace: String) -> Result<Acted, Problem> {
    let reason =
        if action == Action::Cancel { "the customer cancelled" } else { "the customer chose a payment method" };
    let act = Act {
        saga: id,
        owner: Some(caller.id),
        actor: format!("customer:{}", caller.id),
        reason: reason.to_owned(),
        action,
        trace: Some(trace),
    };
    match app.backend.act(&act).await? {
        ActAnswer::Done { view, repeated } => Ok(Acted { booking: view_of(&view)?, repeated }),
        ActAnswer::NotFound => Err(Problem::not_found()),
        ActAnswer::Conflict { code, .. } if code == codes::KEY_REUSED => Err(backend::key_reused()),
        ActAnswer::Conflict { code, message } => {
            Err(Problem::new(StatusCode::CONFLICT, &code, "Not possible in its state").with_detail(message))
        }
    }
}

fn view_of(view: &Json) -> Result<BookingView, Problem> {
    view.read().map_err(|error| {
        tracing::error!(%error, "a booking's view cannot be read");
        Problem::internal()
    })
}

/// What is wrong with a payment method.
fn method_errors(method: &str) -> Option<FieldError> {
    let good = (1..=MAX_METHOD).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_graphic());
    (!good).then(|| FieldError::new("payment_method", "invalid", format!("1 to {MAX_METHOD} visible ASCII characters")))
}

/// For the documentation.
pub fn example() -> Value {
    let kind = "01936f0e-1111-7cc2-9a56-0242ac120004";
    json!({
        "id": "01936f0e-8f4e-7cc2-9a56-0242ac120002",
        "status": "confirmed",
        "event_id": "01936f0e-2222-7cc2-9a56-0242ac120005",
        "customer_id": "01936f0e-0000-7cc2-9a56-0242ac120003",
        "items": [{"ticket_type_id": kind, "quantity": 2}],
        "lines": [{"ticket_type_id": kind, "name": "Standing", "quantity": 2, "unit_price": {"amount": 4200, "currency": "EUR"}}],
        "total": {"amount": 8400, "currency": "EUR"},
        "hold_expires_at": "2027-01-12T09:40:00.000Z",
        "refund": "none",
        "created_at": "2027-01-12T09:30:00.000Z",
        "updated_at": "2027-01-12T09:30:00.041Z",
        "version": 5,
    })
}
