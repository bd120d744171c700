//! `POST /v1/bookings/{id}/payment`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use eventicket_contracts::BookingId;
use eventicket_contracts::sagas::{Action, BookingView, PAYMENT_METHOD, PaymentMethod};
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Acted, act, method_errors, settled};
use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::{Id, KeyedBody};
use crate::idempotency;
use crate::prefer::Wait;
use crate::trace::Trace;

/// How to pay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// A token of the payment gateway.
    #[schema(example = "pm_card_visa", min_length = 1, max_length = 255, pattern = "^[!-~]*$")]
    payment_method: String,
}

/// Pay for a booking
///
/// For a booking with the status `awaiting_payment`: none was given yet, the last one was declined (`last_decline`), or the
/// payment under way needs something of the customer (`next_action`), which the new one replaces. After five declines, or
/// when the hold ends, the booking has failed. With `Prefer: wait=N` the answer waits for the outcome.
#[utoipa::path(
    post, path = "/v1/bookings/{id}/payment", tag = "bookings", operation_id = "pay_booking",
    params(
        ("id" = BookingId, Path, description = "The booking"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters, fresh for each payment", example = "5b2e9a10"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: how many seconds to wait, at most 30", example = "wait=10"),
    ),
    request_body(content = NewPayment, example = json!({"payment_method": "pm_card_visa"})),
    responses(
        (status = 202, description = "The booking as it is now", body = BookingView, headers(
            ("Idempotent-Replayed" = String, description = "`true` where the key was known"),
        ), example = json!(super::example())),
        (status = 400, description = "`idempotency_key_required`: this request needs a key; or `malformed_json`"),
        (status = 409, description = "`not_awaited`: no payment method is awaited"),
        (status = 422, description = "`validation`: some fields are not valid; or `idempotency_key_reused`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the booking; or `unavailable`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn pay(
    State(app): State<Shared>,
    caller: Caller,
    Id(id): Id<BookingId>,
    wait: Wait,
    trace: Trace,
    body: KeyedBody<NewPayment>,
) -> Result<Response, Problem> {
    let method = body.value.payment_method;
    if let Some(error) = method_errors(&method) {
        return Err(Problem::validation(vec![error]));
    }
    let idempotency = body.idempotency.ok_or_else(idempotency::required)?;
    let method = PaymentMethod { method: app.seal.seal(caller.id, &method) };
    let payload = eventicket_contracts::Json::of(&method).map_err(|_| Problem::internal())?;
    // The key is stored with the saga, in the signal's own transaction.
    let signal = Action::Signal { name: PAYMENT_METHOD.to_owned(), payload, idempotency: Some(idempotency) };
    let waiter = wait.duration().map(|_| app.status.wait(id));
    let Acted { mut booking, repeated } = act(&app, id, caller, signal, trace.traceparent()).await?;
    if let Some((patience, waiter)) = wait.duration().zip(waiter) {
        booking = settled(&app, booking, waiter, patience).await;
    }
    let mut response = (StatusCode::ACCEPTED, Json(booking)).into_response();
    wait.applied(response.headers_mut());
    if repeated {
        idempotency::replayed(response.headers_mut());
    }
    Ok(response)
}
