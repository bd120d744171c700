//! The booking saga.
//!
//! ```text
//! RESERVE  bookings.reserve    undo bookings.release
//! AWAIT    payment method      until the hold expires     when none was given
//! PAY      payments.charge     undo payments.refund       when the amount is above zero
//! CONFIRM  bookings.confirm    the point of no return
//! NOTIFY   notifications.send  retried, never undoes the booking
//! ```

use std::time::Duration;

use eventicket_contracts::bookings::{Confirm, DEFAULT_HOLD, Release, Reserve, Reserved};
use eventicket_contracts::payments::{Charge, Refund};
use eventicket_contracts::sagas::{BOOKING, BookedItem, BookingInput, BookingStatus, BookingView, RefundStatus};
use eventicket_contracts::{SagaId, Timestamp, codes, notifications};
use eventicket_saga::definition::{Call, Command, Deadline, Definition, Retry, Step, View};
use eventicket_saga::{Phase, Saga, Status, Undo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Kind, RowView};

const RESERVE: &str = "RESERVE";
const AWAIT: &str = "AWAIT";
const PAY: &str = "PAY";
const CONFIRM: &str = "CONFIRM";
const NOTIFY: &str = "NOTIFY";

/// The signal that AWAIT waits for; its payload is a [`PaymentMethod`].
pub const PAYMENT_METHOD: &str = "payment_method";

/// How long one attempt to charge may take.
const PAY_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond PAY's retry budget, so that a paid saga's confirm still finds its hold.
const GRACE_MARGIN: Duration = Duration::from_secs(30);

/// What the signal brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaymentMethod {
    /// Sealed by the gateway.
    pub method: String,
}

/// The saga as the runtime registers it.
pub fn kind() -> Kind {
    Kind { name: BOOKING, definitions: vec![version_1()], check, status, view }
}

fn version_1() -> Definition {
    Definition {
        name: BOOKING.into(),
        version: 1,
        steps: vec![
            Step::command(RESERVE, Command::new(Call::new("bookings", "reserve", reserve)).undo(release())),
            Step::wait(AWAIT, PAYMENT_METHOD, None)
                .when(|v| amount(v) > 0 && input(v).is_ok_and(|i| i.method.is_none())),
            Step::command(PAY, pay()).when(|v| amount(v) > 0),
            Step::command(CONFIRM, Command::new(Call::new("bookings", "confirm", confirm)).no_return()),
            Step::command(NOTIFY, notify()),
        ],
        deadlines: vec![Deadline {
            reason: codes::HOLD_EXPIRED.into(),
            // Looked at with every input, so the whole output is not read.
            at: std::sync::Arc::new(|v| v.output(RESERVE)?.get("hold_until")?.as_i64()),
            unless: vec![PAY.into()],
        }],
    }
}

fn release() -> Call {
    Call::new("bookings", "release", |v| {
        json(Release { event: input(v)?.event, reason: v.reason().unwrap_or(codes::CANCELLED).into() })
    })
}

fn pay() -> Command {
    let refund = Call::new("payments", "refund", |v| json(Refund { reason: v.reason().unwrap_or("undone").into() }));
    Command::new(Call::new("payments", "charge", charge)).undo(refund).timeout(PAY_TIMEOUT).retry(pay_retry())
}

fn pay_retry() -> Retry {
    Retry::new(4, Duration::from_millis(500), Duration::from_secs(5))
}

fn notify() -> Command {
    let patient = Retry::new(20, Duration::from_secs(1), Duration::from_secs(60));
    Command::new(Call::new("notifications", "send", mail)).best_effort().retry(patient)
}

fn grace() -> Duration {
    pay_retry().budget(PAY_TIMEOUT) + GRACE_MARGIN
}

fn reserve(v: &View<'_>) -> Result<Value, String> {
    let input = input(v)?;
    json(Reserve {
        event: input.event,
        customer: input.customer,
        items: input.items,
        expected_total: input.expected_total,
        hold_seconds: seconds(DEFAULT_HOLD),
        grace_seconds: seconds(grace()),
    })
}

fn charge(v: &View<'_>) -> Result<Value, String> {
    let (input, reserved) = (input(v)?, reserved(v)?);
    let signalled = v.output(AWAIT).and_then(|o| PaymentMethod::deserialize(o).ok()).map(|p| p.method);
    let method = signalled.or(input.method).ok_or("no payment method is known")?;
    json(Charge { customer: input.customer, amount: reserved.total, method, description: reserved.title })
}

fn confirm(v: &View<'_>) -> Result<Value, String> {
    json(Confirm { event: input(v)?.event, hold_step: RESERVE.into(), hold_round: v.round(RESERVE) })
}

fn mail(v: &View<'_>) -> Result<Value, String> {
    let (input, reserved) = (input(v)?, reserved(v)?);
    let data = notifications::BookingMail {
        booking: SagaId(v.id()),
        title: reserved.title,
        lines: reserved.lines,
        total: reserved.total,
    };
    let template = notifications::BOOKING_CONFIRMED.to_owned();
    json(notifications::Send { template, customer: input.customer, data: json(data)? })
}

fn input(v: &View<'_>) -> Result<BookingInput, String> {
    BookingInput::deserialize(v.input()).map_err(|e| e.to_string())
}

fn reserved(v: &View<'_>) -> Result<Reserved, String> {
    Reserved::deserialize(v.output(RESERVE).ok_or("nothing is reserved")?).map_err(|e| e.to_string())
}

fn amount(v: &View<'_>) -> i64 {
    v.output(RESERVE).and_then(|r| r["total"]["amount"].as_i64()).unwrap_or(0)
}

fn json(value: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|e| e.to_string())
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn check(input: &Value) -> Result<(), String> {
    let input = BookingInput::deserialize(input).map_err(|e| e.to_string())?;
    if input.items.is_empty() || input.items.iter().any(|i| i.quantity == 0) {
        return Err("a booking has at least one ticket of each type that it names".into());
    }
    Ok(())
}

/// The booking's status: a pure function of its saga's state.
pub fn booking_status(saga: &Saga) -> BookingStatus {
    let step = |at: usize| saga.steps.get(at).map_or(Status::Idle, |s| s.status);
    let confirmed = step(3) == Status::Done;
    let reason = saga.reason.as_ref().map(|r| r.code.as_str());
    match saga.phase {
        Phase::Completed => BookingStatus::Confirmed,
        Phase::Forward if confirmed => BookingStatus::Confirmed,
        Phase::Forward => match (step(1), step(2)) {
            (Status::Waiting(_), _) | (_, Status::Pending(_)) => BookingStatus::AwaitingPayment,
            _ => BookingStatus::Pending,
        },
        Phase::Unwinding | Phase::Compensated | Phase::Abandoned => match reason {
            Some(codes::HOLD_EXPIRED) if declined(saga).is_none() => BookingStatus::Expired,
            Some(codes::CANCELLED) => BookingStatus::Cancelled,
            _ => BookingStatus::Failed,
        },
    }
}

fn declined(saga: &Saga) -> Option<&str> {
    let pay = saga.steps.get(2)?;
    let error = pay.error.as_ref().filter(|_| pay.status == Status::Rejected || pay.round > 1)?;
    Some(error.0.as_str())
}

/// What happens to the money of a booking that ends without tickets.
fn refund(saga: &Saga) -> RefundStatus {
    let Some(pay) = saga.steps.get(2).filter(|p| p.attempts > 0 && p.status != Status::Rejected) else {
        return RefundStatus::None;
    };
    match (saga.phase, pay.undo) {
        (Phase::Forward | Phase::Completed, _) => RefundStatus::None,
        (_, Undo::GaveUp) => RefundStatus::Attention,
        (_, Undo::Done | Undo::Resolved) => RefundStatus::Done,
        _ => RefundStatus::Pending,
    }
}

fn status(saga: &Saga) -> &'static str {
    booking_status(saga).name()
}

fn view(row: &RowView<'_>) -> Value {
    let Ok(input) = BookingInput::deserialize(&row.saga.input) else { return Value::Null };
    let reserved = row.saga.steps.first().and_then(|s| Reserved::deserialize(&s.output).ok());
    let status = booking_status(row.saga);
    let reason = matches!(status, BookingStatus::Failed | BookingStatus::Expired | BookingStatus::Cancelled)
        .then(|| row.saga.reason.as_ref().map(|r| r.code.clone()))
        .flatten();
    let booking = BookingView {
        id: row.id,
        status,
        reason,
        event_id: input.event,
        customer_id: input.customer,
        items: input.items.iter().map(|i| BookedItem { ticket_type_id: i.ticket_type, quantity: i.quantity }).collect(),
        total: reserved.as_ref().map(|r| r.total),
        hold_expires_at: reserved.as_ref().map(|r| r.hold_until),
        lines: reserved.map(|r| r.lines).unwrap_or_default(),
        last_decline: declined(row.saga).map(str::to_owned),
        refund: refund(row.saga),
        created_at: Timestamp(row.saga.started_at),
        updated_at: row.updated_at,
        version: row.version,
    };
    serde_json::to_value(booking).unwrap_or(Value::Null)
}
