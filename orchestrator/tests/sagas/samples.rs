//! One sample or more of every kind of saga.

use std::time::Duration;

use eventicket_contracts::bookings::{
    Confirmed, DEFAULT_HOLD, Line, Offer, Offered, OfferedType, ReserveItem, Reserved,
};
use eventicket_contracts::events::PublishEvent;
use eventicket_contracts::payments::{Charged, FailedRefund, Refunded};
use eventicket_contracts::sagas::{BOOKING, BookingInput, FAILED_REFUND, PAYMENT_METHOD, PUBLISH_EVENT, PaymentMethod};
use eventicket_contracts::{Currency, CustomerId, EventId, Json, Money, SagaId, TicketTypeId, Timestamp};
use eventicket_saga::{Half, Saga, Send};
use serde::Serialize;
use uuid::Uuid;

/// A saga and what its services answer.
pub struct Sample {
    /// The kind.
    pub kind: &'static str,
    /// What is special about it.
    pub name: &'static str,
    /// What it is started with.
    pub input: fn() -> Json,
    /// Signals, given whenever it waits for them.
    pub signals: fn() -> Vec<(String, Json)>,
    /// What its services bring.
    pub outputs: fn(&Send, i64) -> Json,
    /// Effects that need another one to stand.
    pub needs: &'static [(&'static str, &'static str)],
    /// The commands that it takes, in order, when all goes well.
    pub takes: &'static [&'static str],
    /// Its status then.
    pub ends: &'static str,
}

/// All samples.
pub const SAMPLES: &[Sample] = &[
    Sample {
        kind: BOOKING,
        name: "paid at once",
        input: || booking(Some("sealed")),
        signals: Vec::new,
        outputs: |send, now| bookings_outputs(send, now, 4_200),
        needs: &[("CONFIRM", "RESERVE")],
        takes: &["RESERVE", "PAY", "CONFIRM", "NOTIFY"],
        ends: "confirmed",
    },
    Sample {
        kind: BOOKING,
        name: "without a payment method",
        input: || booking(None),
        signals: || vec![(PAYMENT_METHOD.into(), json(PaymentMethod { method: "sealed".into() }))],
        outputs: |send, now| bookings_outputs(send, now, 4_200),
        needs: &[("CONFIRM", "RESERVE")],
        takes: &["RESERVE", "PAY", "CONFIRM", "NOTIFY"],
        ends: "confirmed",
    },
    Sample {
        kind: BOOKING,
        name: "free",
        input: || booking(None),
        signals: Vec::new,
        outputs: |send, now| bookings_outputs(send, now, 0),
        needs: &[("CONFIRM", "RESERVE")],
        takes: &["RESERVE", "CONFIRM", "NOTIFY"],
        ends: "confirmed",
    },
    Sample {
        kind: PUBLISH_EVENT,
        name: "first publication",
        input: publish,
        signals: Vec::new,
        outputs: |send, _| if send.step == "OFFER" { json(Offered { version: 1 }) } else { Json::NULL },
        needs: &[],
        takes: &["OFFER", "SETTLE"],
        ends: "accepted",
    },
    Sample {
        kind: FAILED_REFUND,
        name: "given back by hand",
        input: failed_refund,
        signals: Vec::new,
        outputs: |_, _| Json::NULL,
        needs: &[],
        takes: &[],
        ends: "given_back",
    },
];

fn json(value: impl Serialize) -> Json {
    Json::of(&value).unwrap()
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn euros(amount: i64) -> Money {
    Money { amount, currency: Currency::EUR }
}

fn booking(method: Option<&str>) -> Json {
    json(BookingInput {
        event: EventId(id(1)),
        customer: CustomerId(id(2)),
        items: vec![ReserveItem { ticket_type: TicketTypeId(id(3)), quantity: 2, seats: Vec::new() }],
        expected_total: None,
        method: method.map(str::to_owned),
    })
}

fn bookings_outputs(send: &Send, now: i64, total: i64) -> Json {
    let line = Line {
        ticket_type_id: TicketTypeId(id(3)),
        name: "Stalls".into(),
        quantity: 2,
        unit_price: euros(total / 2),
        seats: Vec::new(),
    };
    match (send.step.as_str(), send.half) {
        ("RESERVE", Half::Do) => json(Reserved {
            lines: vec![line],
            total: euros(total),
            hold_until: Timestamp(now).plus(DEFAULT_HOLD),
            title: "A concert".into(),
        }),
        ("PAY", Half::Do) => json(Charged { intent: "pi_1".into() }),
        ("PAY", Half::Undo) => json(Refunded { amount: Some(euros(total)) }),
        ("CONFIRM", Half::Do) => json(Confirmed { tickets: 2 }),
        _ => Json::NULL,
    }
}

/// When the hold of a booking ends, ms.
pub fn hold_until(saga: &Saga) -> i64 {
    saga.steps[0].output.read::<Reserved>().unwrap().hold_until.millis()
}

fn publish() -> Json {
    let starts_at = Timestamp(1_900_000_000_000);
    json(PublishEvent {
        offer: Offer {
            event: EventId(id(1)),
            version: 1,
            title: "A concert".into(),
            starts_at,
            ends_at: starts_at.plus(Duration::from_secs(7_200)),
            on_sale: true,
            cancelled: false,
            hold_seconds: None,
            max_per_customer: None,
            ticket_types: vec![OfferedType {
                id: TicketTypeId(id(3)),
                name: "Stalls".into(),
                price: euros(2_100),
                quantity: 100,
                max_per_order: None,
                seats: Vec::new(),
            }],
        },
    })
}

fn failed_refund() -> Json {
    json(FailedRefund {
        booking: SagaId(id(4)),
        step: "PAY".into(),
        round: 1,
        customer: CustomerId(id(2)),
        amount: euros(4_200),
        intent: "pi_1".into(),
        refund: "re_1".into(),
        reason: "account_closed".into(),
    })
}
