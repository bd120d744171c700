//! `POST /v1/bookings`: starts the booking saga.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use eventicket_contracts::bookings::ReserveItem;
use eventicket_contracts::events::SeatLabel;
use eventicket_contracts::sagas::{
    BOOKING, BookedItem, BookingInput, BookingStatus, BookingView, RefundStatus, StartAnswer, StartSaga, surely_called,
};
use eventicket_contracts::{BookingId, CustomerId, EventId, Json, Money, SagaId, TicketTypeId, Timestamp};
use eventicket_kit::seal::SealKeys;
use eventicket_kit::{FieldError, Problem};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{method_errors, read, settled, view_of};
use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::backend::{self, PATIENCE};
use crate::extract::KeyedBody;
use crate::idempotency;
use crate::prefer::Wait;
use crate::status::Waiter;
use crate::trace::Trace;

/// Most ticket types of one booking.
const MAX_ITEMS: usize = 20;
/// Most tickets of a type: as many as a type can have.
const MAX_QUANTITY: u32 = 10_000_000;
/// Characters of a seat's label.
const MAX_SEAT: usize = 24;

/// What is to be booked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBooking {
    /// The event.
    event_id: EventId,
    /// Each ticket type once.
    #[schema(min_items = 1, max_items = 20)]
    items: Vec<NewItem>,
    /// A token of the payment gateway; without one, a booking that costs something waits for it.
    #[schema(example = "pm_card_visa", min_length = 1, max_length = 255, pattern = "^[!-~]*$")]
    payment_method: Option<String>,
    /// Not supported yet, and so not documented.
    #[schema(ignore)]
    coupon: Option<Value>,
    /// What is expected to be paid; the booking fails with `price_changed` where the total differs.
    expected_total: Option<Money>,
}

/// A number of tickets of one type.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// The type.
    ticket_type_id: TicketTypeId,
    /// How many.
    #[schema(minimum = 1, maximum = 10_000_000)]
    quantity: u32,
    /// Labels of the seats that are wanted, as many as `quantity`, for a numbered type; the first free ones are taken where
    /// it is not given. A type without seats takes none.
    #[schema(value_type = Option<Vec<SeatLabel>>, example = json!(["B-12", "B-13"]), min_items = 1)]
    seats: Option<Vec<String>>,
}

impl NewBooking {
    fn check(&self) -> Result<(), Problem> {
        let mut errors = Vec::new();
        if !(1..=MAX_ITEMS).contains(&self.items.len()) {
            errors.push(FieldError::new("items", "out_of_range", format!("1 to {MAX_ITEMS} ticket types")));
        }
        let mut seen = HashSet::with_capacity(self.items.len().min(MAX_ITEMS));
        for (at, item) in self.items.iter().take(MAX_ITEMS).enumerate() {
            let field = |name: &str| format!("items[{at}].{name}");
            if !(1..=MAX_QUANTITY).contains(&item.quantity) {
                errors.push(FieldError::new(field("quantity"), "out_of_range", format!("1 to {MAX_QUANTITY}")));
            }
            if !seen.insert(item.ticket_type_id) {
                errors.push(FieldError::new(field("ticket_type_id"), "duplicate", "each ticket type once"));
            }
            errors.extend(item.seats.as_deref().and_then(|seats| seats_error(&field("seats"), item.quantity, seats)));
        }
        if self.coupon.is_some() {
            errors.push(FieldError::new("coupon", "not_supported", "there are no coupons yet"));
        }
        if self.expected_total.is_some_and(|m| m.amount < 0) {
            errors.push(FieldError::new("expected_total.amount", "out_of_range", "not below zero"));
        }
        errors.extend(self.payment_method.as_deref().and_then(method_errors));
        if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
    }

    /// The saga's input. The payment method is sealed for its customer before it goes anywhere.
    fn input(self, customer: CustomerId, seal: &SealKeys) -> BookingInput {
        let item = |item: NewItem| ReserveItem {
            ticket_type: item.ticket_type_id,
            quantity: item.quantity,
            seats: item.seats.unwrap_or_default(),
        };
        BookingInput {
            event: self.event_id,
            customer,
            items: self.items.into_iter().map(item).collect(),
            expected_total: self.expected_total,
            method: self.payment_method.map(|method| seal.seal(customer, &method)),
        }
    }
}

/// What is wrong with the seats of an item; whether they exist and are free is bookings' matter.
fn seats_error(field: &str, quantity: u32, seats: &[String]) -> Option<FieldError> {
    if u32::try_from(seats.len()) != Ok(quantity) {
        return Some(FieldError::new(field, "mismatch", "as many seats as tickets"));
    }
    let label = |seat: &String| (1..=MAX_SEAT).contains(&seat.chars().count()) && !seat.chars().any(char::is_control);
    let mut seen = HashSet::with_capacity(seats.len());
    seats.iter().enumerate().find_map(|(number, seat)| {
        let field = format!("{field}[{number}]");
        if !label(seat) {
            return Some(FieldError::new(field, "invalid", format!("1 to {MAX_SEAT} characters")));
        }
        (!seen.insert(seat)).then(|| FieldError::new(field, "duplicate", "each seat once"))
    })
}

/// Book tickets
///
/// Answered once the booking is stored: from then on it ends in one way or another, whatever breaks. With
/// `Prefer: wait=N` the answer waits up to N seconds for any status but `pending`; otherwise poll `Location`, or follow
/// its `/stream`. A repeat with the same `Idempotency-Key` and body finds the first booking, marked by
/// `Idempotent-Replayed: true`. After 503 `outcome-unknown`, repeat with the same key. A 429 says nothing of an earlier
/// request with the same key.
#[utoipa::path(
    post, path = "/v1/bookings", tag = "bookings", operation_id = "create_booking",
    params(
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters, fresh for each booking", example = "0d3c1f7e"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: how many seconds to wait, at most 30", example = "wait=10"),
    ),
    request_body(content = NewBooking, example = json!({
        "event_id": "01936f0e-2222-7cc2-9a56-0242ac120005",
        "items": [
            {"ticket_type_id": "01936f0e-1111-7cc2-9a56-0242ac120004", "quantity": 2},
            {"ticket_type_id": "01936f0e-1111-7cc2-9a56-0242ac120014", "quantity": 2, "seats": ["B-12", "B-13"]},
        ],
        "payment_method": "pm_card_visa",
        "expected_total": {"amount": 26400, "currency": "EUR"},
    })),
    responses(
        (status = 202, description = "The booking as it is now", body = BookingView, headers(
            ("Location" = String, description = "Where it is"),
            ("Idempotent-Replayed" = String, description = "`true` where the key was known"),
        ), example = json!(super::example())),
        (status = 400, description = "`idempotency_key_required`: this request needs a key; or `malformed_json`"),
        (status = 422, description = "`validation`: some fields are not valid; or `idempotency_key_reused`"),
        (status = 429, description = "`busy`: no booking is admitted now; or `rate_limited`"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, repeat with the same key; or `unavailable`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn create(
    State(app): State<Shared>,
    caller: Caller,
    wait: Wait,
    trace: Trace,
    body: KeyedBody<NewBooking>,
) -> Result<Response, Problem> {
    body.value.check()?;
    let pass = app.throttle.pass(surely_called(body.value.payment_method.is_some(), body.value.expected_total))?;
    let now = app.clock.now();
    let input = body.value.input(caller.id, &app.seal);
    let start = StartSaga {
        id: SagaId::fresh(),
        definition: BOOKING.to_owned(),
        owner: Some(caller.id),
        idempotency: body.idempotency,
        event: Some(input.event),
        input: Json::of(&input).map_err(|_| Problem::internal())?,
        give_up_at: now.plus(PATIENCE),
        trace: Some(trace.traceparent()),
        blind: wait.duration().is_some(),
    };
    // Before the start, so that no change is missed.
    let waiting = wait.duration().map(|patience| (patience, app.status.wait(start.id)));
    let (known, created) = match app.backend.start(&start).await? {
        StartAnswer::Started { created, view, .. } => (view, created),
        StartAnswer::KeyReused => return Err(backend::key_reused()),
        StartAnswer::Busy { retry_after_ms } => return Err(backend::busy(Some(Duration::from_millis(retry_after_ms)))),
        StartAnswer::Refused { code, message } => {
            let title = "This cannot be booked";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, &code, title).with_detail(message));
        }
    };
    drop(pass);
    let (id, booking) = match waiting {
        Some((patience, waiter)) if created => (start.id, told(&app, start.id, &input, waiter, patience).await?),
        waiting => {
            let mut known = view_of(&known)?;
            if let Some((patience, _)) = waiting {
                known = first_settled(&app, known, patience).await;
            }
            (known.id, json(&known)?)
        }
    };
    Ok(accepted(id, booking, created, wait))
}

/// A new booking as JSON once it is no longer pending, or as it is when the time is up.
async fn told(
    app: &App,
    id: BookingId,
    input: &BookingInput,
    mut waiter: Waiter,
    patience: Duration,
) -> Result<Bytes, Problem> {
    let accepted_at = app.clock.now();
    let told = tokio::select! {
        told = waiter.settled() => told,
        () = tokio::time::sleep(patience) => None,
        () = app.shutdown.cancelled() => None,
    };
    match told {
        Some(booking) => Ok(booking),
        // It was accepted, so that a failure to read it is no failure of the request.
        None => {
            let read = read(app, id, Some(input.customer)).await;
            json(&read.unwrap_or_else(|_| as_accepted(id, input, accepted_at)))
        }
    }
}

/// A booking of which nothing more is known than that it was accepted.
fn as_accepted(id: BookingId, input: &BookingInput, now: Timestamp) -> BookingView {
    let item = |item: &ReserveItem| BookedItem {
        ticket_type_id: item.ticket_type,
        quantity: item.quantity,
        seats: item.seats.clone(),
    };
    BookingView {
        id,
        status: BookingStatus::Pending,
        reason: None,
        event_id: input.event,
        customer_id: input.customer,
        items: input.items.iter().map(item).collect(),
        lines: Vec::new(),
        total: None,
        hold_expires_at: None,
        next_action: None,
        last_decline: None,
        refund: RefundStatus::None,
        created_at: now,
        updated_at: now,
        version: 1,
    }
}

fn json(booking: &BookingView) -> Result<Bytes, Problem> {
    serde_json::to_vec(booking).map(Bytes::from).map_err(|_| Problem::internal())
}

/// The first booking of a key: what changed between its view and the wait is found by reading it again.
async fn first_settled(app: &App, known: BookingView, patience: Duration) -> BookingView {
    let waiter = app.status.wait(known.id);
    let known = read(app, known.id, Some(known.customer_id)).await.unwrap_or(known);
    settled(app, known, waiter, patience).await
}

fn accepted(id: BookingId, booking: Bytes, created: bool, wait: Wait) -> Response {
    let json = (header::CONTENT_TYPE, "application/json".to_owned());
    let headers = [json, (header::LOCATION, format!("/v1/bookings/{id}"))];
    let mut response = (StatusCode::ACCEPTED, headers, booking).into_response();
    wait.applied(response.headers_mut());
    if !created {
        idempotency::replayed(response.headers_mut());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn booking(change: impl FnOnce(&mut Value)) -> NewBooking {
        let mut body = json!({
            "event_id": EventId::fresh(),
            "items": [{"ticket_type_id": TicketTypeId::fresh(), "quantity": 1}],
        });
        change(&mut body);
        serde_json::from_value(body).unwrap()
    }

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
        let problem = booking(change).check().err();
        problem.into_iter().flat_map(|p| p.errors).map(|e| (e.field, e.code)).collect()
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(faults(|_| ()), []);
        for (change, field, code) in [
            (json!({"items": []}), "items", "out_of_range"),
            (json!({"coupon": "SUMMER"}), "coupon", "not_supported"),
            (json!({"expected_total": {"amount": -1, "currency": "EUR"}}), "expected_total.amount", "out_of_range"),
            (json!({"payment_method": "two words"}), "payment_method", "invalid"),
            (json!({"payment_method": ""}), "payment_method", "invalid"),
        ] {
            let found = faults(|body| body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
            assert_eq!(found, [(field.to_owned(), code.to_owned())]);
        }
        let found = faults(|body| {
            let item = json!({"ticket_type_id": TicketTypeId::fresh(), "quantity": 0, "seats": ["A1"]});
            body["items"] = json!([item, item]);
        });
        let expected =
            ["items[0].quantity", "items[0].seats", "items[1].quantity", "items[1].ticket_type_id", "items[1].seats"];
        assert_eq!(found.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn seats_are_as_many_as_tickets_and_each_once() {
        let with = |quantity: u32, seats: Value| {
            faults(|body| {
                body["items"][0]["quantity"] = json!(quantity);
                body["items"][0]["seats"] = seats;
            })
        };
        for good in [json!(["A-1", "A-2"]), json!(["é".repeat(24), "x"]), Value::Null] {
            assert_eq!(with(2, good), []);
        }
        for (seats, field, code) in [
            (json!([]), "items[0].seats", "mismatch"),
            (json!(["A-1"]), "items[0].seats", "mismatch"),
            (json!(["A-1", "A-2", "A-3"]), "items[0].seats", "mismatch"),
            (json!(["A-1", "A-1"]), "items[0].seats[1]", "duplicate"),
            (json!(["A-1", ""]), "items[0].seats[1]", "invalid"),
            (json!(["x".repeat(25), "A-1"]), "items[0].seats[0]", "invalid"),
            (json!(["A\n1", "A-2"]), "items[0].seats[0]", "invalid"),
        ] {
            assert_eq!(with(2, seats), [(field.to_owned(), code.to_owned())]);
        }
    }

    #[test]
    fn seats_are_asked_for_as_they_are_chosen() {
        let keys = SealKeys::parse(&SealKeys::generate()).unwrap();
        let input = booking(|body| body["items"][0]["seats"] = json!(["A-1"])).input(CustomerId::fresh(), &keys);
        assert_eq!(input.items[0].seats, ["A-1"]);
        assert!(booking(|_| ()).input(CustomerId::fresh(), &keys).items[0].seats.is_empty());
    }

    #[test]
    fn the_payment_method_leaves_sealed() {
        let (keys, ada) = (SealKeys::parse(&SealKeys::generate()).unwrap(), CustomerId::fresh());
        let input = booking(|b| b["payment_method"] = json!("pm_card_visa")).input(ada, &keys);
        assert!(!serde_json::to_string(&input).unwrap().contains("pm_card"));
        assert_eq!(keys.open(ada, &input.method.unwrap()).as_deref(), Some("pm_card_visa"));
    }
}
