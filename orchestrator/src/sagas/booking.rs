//! The booking saga.
//!
//! ```text
//! RESERVE      bookings.reserve    undo bookings.release
//! AWAIT        payment method      until the hold expires     when none was given, and after a decline
//! PAY          payments.charge     undo payments.refund       when the amount is above zero; back to AWAIT on a decline
//! CONFIRM      bookings.confirm    the point of no return
//! NOTIFY       notifications.send  retried, never undoes the booking
//! REFUND_MAIL  notifications.send  on the way back, when money was taken
//! ```
//!
//! Version 1 ended at the first decline and sent no mail on its way back.

use std::time::Duration;

use eventicket_contracts::bookings::{Confirm, DEFAULT_HOLD, Release, Reserve, Reserved};
use eventicket_contracts::payments::{Charge, ChargePending, NextAction, Refund, Refunded};
use eventicket_contracts::sagas::{
    BOOKING, BookedItem, BookingInput, BookingStatus, BookingView, PAYMENT_METHOD, PaymentMethod, RefundStatus,
};
use eventicket_contracts::{Money, SagaId, Timestamp, codes, notifications};
use eventicket_saga::definition::{Call, Command, Deadline, Definition, OnRejection, Retry, Step, View};
use eventicket_saga::{Json, Phase, Saga, Status, StepState, Undo};
use serde::{Deserialize, Serialize};

use super::{Kind, RowView};

const RESERVE: &str = "RESERVE";
const AWAIT: &str = "AWAIT";
const PAY: &str = "PAY";
const CONFIRM: &str = "CONFIRM";
const NOTIFY: &str = "NOTIFY";
const REFUND_MAIL: &str = "REFUND_MAIL";
/// Where PAY and CONFIRM stand, in every version.
const PAY_AT: usize = 2;
const CONFIRM_AT: usize = 3;

/// Declines; the last one ends the booking.
const DECLINES: u32 = 5;
/// How long one attempt to charge may take.
const PAY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a pending payment is asked for; payments tells its end by itself, and asks the gateway more often.
const PAY_ASKED: Duration = Duration::from_secs(120);
/// Beyond PAY's retry budget, so that a paid saga's confirm still finds its hold.
const GRACE_MARGIN: Duration = Duration::from_secs(30);

/// The saga as the runtime registers it.
pub fn kind() -> Kind {
    Kind { name: BOOKING, definitions: vec![version_1(), version_2()], check, status, view }
}

fn version_2() -> Definition {
    let mut pay = pay();
    pay.on_rejection = OnRejection::BackTo { wait: AWAIT.into(), rounds: DECLINES };
    pay.replaced_by = Some(PAYMENT_METHOD.into());
    pay.ask_every = PAY_ASKED;
    let mut definition = Definition { version: 2, ..version_1() };
    definition.steps[PAY_AT] = Step::command(PAY, pay).when(|v| amount(v) > 0);
    definition.steps.push(Step::command(REFUND_MAIL, patient(refund_mail)).when(was_charged).on_unwinding());
    definition
}

fn version_1() -> Definition {
    Definition {
        name: BOOKING.into(),
        version: 1,
        steps: vec![
            Step::command(RESERVE, hold()),
            Step::wait(AWAIT, PAYMENT_METHOD, None)
                .when(|v| amount(v) > 0 && input(v).is_ok_and(|i| i.method.is_none())),
            Step::command(PAY, pay()).when(|v| amount(v) > 0),
            Step::command(CONFIRM, Command::new(Call::new("bookings", "confirm", confirm)).no_return()),
            Step::command(NOTIFY, patient(mail)),
        ],
        deadlines: vec![Deadline {
            reason: codes::HOLD_EXPIRED.into(),
            at: std::sync::Arc::new(|v| Priced::of(v).map(|p| p.hold_until)),
            unless: vec![PAY.into()],
        }],
    }
}

/// Its price and its end are what the booking waits and pays by.
fn hold() -> Command {
    let fits = |output: &Json| output.read::<Reserved>().map(drop).map_err(|error| error.to_string());
    Command::new(Call::new("bookings", "reserve", reserve)).undo(release()).brings(fits)
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

fn patient(mail: fn(&View<'_>) -> Result<Json, String>) -> Command {
    let patient = Retry::new(20, Duration::from_secs(1), Duration::from_secs(60));
    Command::new(Call::new("notifications", "send", mail)).best_effort().retry(patient)
}

/// Whether money was taken, as far as is known by now.
fn was_charged(v: &View<'_>) -> bool {
    let given_back = || v.undo_output(PAY).and_then(|o| o.read::<Refunded>().ok()).and_then(|r| r.amount);
    v.is_done(PAY) || given_back().is_some()
}

fn grace() -> Duration {
    pay_retry().budget(PAY_TIMEOUT) + GRACE_MARGIN
}

fn reserve(v: &View<'_>) -> Result<Json, String> {
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

fn charge(v: &View<'_>) -> Result<Json, String> {
    let (input, reserved) = (input(v)?, reserved(v)?);
    let signalled = v.output(AWAIT).and_then(|o| o.read::<PaymentMethod>().ok()).map(|p| p.method);
    let method = signalled.or(input.method).ok_or("no payment method is known")?;
    json(Charge { customer: input.customer, amount: reserved.total, method, description: reserved.title })
}

fn confirm(v: &View<'_>) -> Result<Json, String> {
    json(Confirm { event: input(v)?.event, hold_step: RESERVE.into(), hold_round: v.round(RESERVE) })
}

fn mail(v: &View<'_>) -> Result<Json, String> {
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

fn refund_mail(v: &View<'_>) -> Result<Json, String> {
    let (input, reserved) = (input(v)?, reserved(v)?);
    let data = notifications::RefundMail {
        booking: SagaId(v.id()),
        title: reserved.title,
        reason: v.reason().unwrap_or(codes::CANCELLED).into(),
        amount: reserved.total,
    };
    let template = notifications::BOOKING_REFUNDED.to_owned();
    json(notifications::Send { template, customer: input.customer, data: json(data)? })
}

fn input(v: &View<'_>) -> Result<BookingInput, String> {
    v.input().read().map_err(|e| e.to_string())
}

fn reserved(v: &View<'_>) -> Result<Reserved, String> {
    v.output(RESERVE).ok_or("nothing is reserved")?.read().map_err(|e| e.to_string())
}

/// What is to be paid; before that is known, what the customer expects, for the look at the services that it will call.
fn amount(v: &View<'_>) -> i64 {
    let expected = |input: BookingInput| match input.expected_total {
        Some(total) => total.amount,
        None => i64::from(input.method.is_some()),
    };
    match v.output(RESERVE) {
        Some(_) => Priced::of(v).map_or(0, |priced| priced.total.amount),
        None => input(v).map_or(0, expected),
    }
}

/// Of what RESERVE brought, the part that is looked at with every input.
#[derive(Deserialize)]
struct Priced {
    total: Money,
    hold_until: i64,
}

impl Priced {
    fn of(v: &View<'_>) -> Option<Self> {
        v.output(RESERVE)?.read().ok()
    }
}

fn json(value: impl Serialize) -> Result<Json, String> {
    Json::of(&value).map_err(|e| e.to_string())
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn check(input: &Json) -> Result<(), String> {
    let input = input.read::<BookingInput>().map_err(|e| e.to_string())?;
    if input.items.is_empty() || input.items.iter().any(|i| i.quantity == 0) {
        return Err("a booking has at least one ticket of each type that it names".into());
    }
    Ok(())
}

/// The booking's status: a pure function of its saga's state.
pub fn booking_status(saga: &Saga) -> BookingStatus {
    let confirmed = saga.steps.get(CONFIRM_AT).is_some_and(|s| s.status == Status::Done);
    let waits = saga.steps.get(saga.at).is_some_and(|s| matches!(s.status, Status::Waiting(_)));
    match saga.phase {
        Phase::Completed => BookingStatus::Confirmed,
        Phase::Forward if confirmed => BookingStatus::Confirmed,
        Phase::Forward if waits || pending_payment(saga).is_some() => BookingStatus::AwaitingPayment,
        Phase::Forward => BookingStatus::Pending,
        Phase::Unwinding | Phase::Compensated | Phase::Abandoning | Phase::Abandoned => match reason(saga) {
            Some(codes::HOLD_EXPIRED) => BookingStatus::Expired,
            Some(codes::CANCELLED) => BookingStatus::Cancelled,
            _ => BookingStatus::Failed,
        },
    }
}

/// Why it ended without tickets; a hold that ran out after a decline ends by the decline.
fn reason(saga: &Saga) -> Option<&str> {
    let code = saga.reason.as_ref().map(|r| r.code.as_str());
    if code == Some(codes::HOLD_EXPIRED) { declined(saga).and(Some(codes::PAYMENT_DECLINED)).or(code) } else { code }
}

/// The round of PAY that the bank or the customer takes time for, unless another one replaces it.
fn pending_payment(saga: &Saga) -> Option<&StepState> {
    let pay = saga.steps.get(PAY_AT)?;
    let open = matches!(pay.status, Status::Pending(_) | Status::Sent(_) | Status::Backoff(_) | Status::Held);
    Some(pay).filter(|pay| pay.pending && open && pay.undo == Undo::None)
}

fn next_action(saga: &Saga) -> Option<NextAction> {
    let pay = pending_payment(saga).filter(|_| saga.phase == Phase::Forward)?;
    pay.output.read::<ChargePending>().ok()?.next_action
}

fn declined(saga: &Saga) -> Option<&str> {
    let pay = saga.steps.get(PAY_AT)?;
    let error = pay.error.as_ref().filter(|_| pay.status == Status::Rejected || pay.round > 1)?;
    Some(error.0.as_str())
}

/// What happens to the money of a booking that ends without tickets.
fn refund(saga: &Saga) -> RefundStatus {
    let undone = |p: &StepState| p.status != Status::Rejected || p.undo_attempts > 0;
    let Some(pay) = saga.steps.get(PAY_AT).filter(|p| p.attempts > 0 && undone(p)) else {
        return RefundStatus::None;
    };
    let nothing = |r: Refunded| r.amount.is_none();
    let nothing_taken = pay.undo_output.read().is_ok_and(nothing);
    match (saga.phase, pay.undo) {
        (_, Undo::Done) if nothing_taken => RefundStatus::None,
        (Phase::Forward | Phase::Completed, _) => RefundStatus::None,
        (_, Undo::GaveUp) => RefundStatus::Attention,
        (_, Undo::Done | Undo::Resolved) => RefundStatus::Done,
        _ => RefundStatus::Pending,
    }
}

fn status(saga: &Saga) -> &'static str {
    booking_status(saga).name()
}

fn view(row: &RowView<'_>) -> Json {
    let Ok(input) = row.saga.input.read::<BookingInput>() else { return Json::NULL };
    let reserved = row.saga.steps.first().and_then(|s| s.output.read::<Reserved>().ok());
    let status = booking_status(row.saga);
    let reason = matches!(status, BookingStatus::Failed | BookingStatus::Expired | BookingStatus::Cancelled)
        .then(|| reason(row.saga).map(str::to_owned))
        .flatten();
    let booking = BookingView {
        id: row.id,
        status,
        reason,
        event_id: input.event,
        customer_id: input.customer,
        items: input
            .items
            .iter()
            .map(|i| BookedItem { ticket_type_id: i.ticket_type, quantity: i.quantity, seats: i.seats.clone() })
            .collect(),
        total: reserved.as_ref().map(|r| r.total),
        hold_expires_at: reserved.as_ref().map(|r| r.hold_until),
        lines: reserved.map(|r| r.lines).unwrap_or_default(),
        next_action: next_action(row.saga),
        last_decline: declined(row.saga).map(str::to_owned),
        refund: refund(row.saga),
        created_at: Timestamp(row.saga.started_at),
        updated_at: row.updated_at,
        version: row.version,
    };
    Json::of(&booking).unwrap_or_default()
}
