//! How each promise is broken, and what the audit has to tell of it.

use eventicket_mock_gateway::ledger::{Intent, Status};
use eventicket_saga::{Attention, Saga, Status as StepStatus, Undo};
use serde_json::Value;

use self::Part::{Letter, Line, Nonsense, Rows};
use super::Books;
use crate::platform::{Platform, text};

pub const JOURNAL: &str = eventicket_orchestrator::DATABASE;
const BOOKINGS: &str = eventicket_bookings::DATABASE;
const PAYMENTS: &str = eventicket_payments::DATABASE;
const MAILS: &str = eventicket_notifications::DATABASE;
/// Those with an outbox.
const TELLING: [&str; 4] = [BOOKINGS, PAYMENTS, eventicket_events::DATABASE, eventicket_identity::DATABASE];

/// A part of a break.
pub enum Part {
    /// Statements on copies of a database's tables.
    Rows(&'static str, &'static [&'static str], String),
    /// A change of a saga's record; the number is its PAY's.
    Saga(String, fn(&mut Saga, usize)),
    /// A line of the ledger.
    Line(Intent),
    /// Lines of the ledger that are none.
    Nonsense,
    /// A message that was given up.
    Letter,
}

/// A break with what the audit has to tell of it: weight and name of the rule, and the saga.
pub struct Break {
    pub tells: [String; 3],
    pub parts: Vec<Part>,
}

fn bookings(tables: &'static [&'static str], statements: impl Into<String>) -> Part {
    Rows(BOOKINGS, tables, statements.into())
}

/// A violation, told of a saga or of none.
fn violates(rule: &str, saga: &str, parts: impl Into<Vec<Part>>) -> Break {
    Break { tells: ["violation", rule, saga].map(str::to_owned), parts: parts.into() }
}

/// A warning.
fn warns(rule: &str, saga: &str, parts: impl Into<Vec<Part>>) -> Break {
    Break { tells: ["warning", rule, saga].map(str::to_owned), parts: parts.into() }
}

/// How each promise is broken.
pub(super) fn breaks(platform: &Platform, books: &Books) -> Vec<Break> {
    let [sold, waiting, given_back, free, seated] =
        [&books.sold, &books.waiting, &books.given_back, &books.free, &books.seated].map(|b| text(&b["id"]));
    let event = &books.event;
    let mut all = sagas_and_mails(&sold, &waiting, &free);
    all.extend(holds_and_tickets(event, &sold, &waiting, &given_back, &seated));
    all.extend(money(platform, books, &sold, &given_back, &free));
    all
}

fn sagas_and_mails(sold: &str, waiting: &str, free: &str) -> Vec<Break> {
    let mark = |saga: &mut Saga, _| saga.attention.push(Attention { step: "PAY".into(), reason: "broken".into() });
    let long_ago = format!("UPDATE sagas SET started_at = started_at - 7200000 WHERE id = '{waiting}'");
    let unsent = "INSERT INTO outbox VALUES (gen_random_uuid(), 'evt.booking.held', '', 1, NULL)";
    let of_mails = |statement: &str| Rows(MAILS, &["deliveries"], format!("{statement} WHERE saga = '{sold}'"));
    vec![
        warns("attention", waiting, [Part::Saga(waiting.into(), mark)]),
        warns("saga_overdue", waiting, [Rows(JOURNAL, &["sagas"], long_ago)]),
        violates("unknown_saga", free, [Rows(JOURNAL, &["sagas"], format!("DELETE FROM sagas WHERE id = '{free}'"))]),
        violates("delivery_missing", sold, [of_mails("DELETE FROM deliveries")]),
        warns("mail_given_up", sold, [of_mails("UPDATE deliveries SET state = 'failed'")]),
        violates("dead_letter", "", [Letter]),
        warns("outbox_unsent", "", [bookings(&["outbox"], unsent)]),
    ]
}

fn holds_and_tickets(event: &str, sold: &str, waiting: &str, given_back: &str, seated: &str) -> Vec<Break> {
    let hold = |saga: &str, set: &str| format!("UPDATE holds SET {set} WHERE saga = '{saga}';");
    let state = |saga: &str, state: &str| hold(saga, &format!("state = '{state}'"));
    let answer = |path: &str, value: &str| format!("answer = jsonb_set(answer::jsonb, '{path}', '{value}')::text");
    let counter = |set: &str| format!("UPDATE ticket_types SET {set} WHERE event = '{event}';");
    let coded = |saga: &str, number: u32| hold(saga, &format!("codes = array_fill('X'::text, ARRAY[{number}])"));
    vec![
        violates(
            "hold_left",
            given_back,
            [bookings(&["holds", "ticket_types"], state(given_back, "held") + &counter("available = available - 1"))],
        ),
        violates(
            "hold_confirmed_without_booking",
            given_back,
            [bookings(&["holds"], hold(given_back, &format!("state = 'confirmed', {}", answer("{lines}", "[]"))))],
        ),
        // What waits is confirmed instead, so that the counters agree.
        violates(
            "booking_without_hold",
            sold,
            [bookings(
                &["holds", "ticket_types"],
                state(sold, "released")
                    + &state(waiting, "confirmed")
                    + &coded(waiting, 2)
                    + &counter("available = available + 2"),
            )],
        ),
        violates("hold_differs", sold, [bookings(&["holds"], hold(sold, &answer("{total,amount}", "1")))]),
        violates("ticket_count", sold, [bookings(&["holds"], coded(sold, 1) + &coded(waiting, 1))]),
        violates("tickets_without_booking", given_back, [bookings(&["holds"], coded(given_back, 2))]),
        violates("capacity_negative", "", [bookings(&["ticket_types"], counter("available = -1, quantity = 3"))]),
        violates("capacity_sum", "", [bookings(&["ticket_types"], counter("available = available - 1"))]),
        violates("capacity_tickets", "", [bookings(&["holds"], coded(waiting, 1))]),
        violates(
            "seats_differ",
            "",
            [bookings(&["taken_seats"], format!("DELETE FROM taken_seats WHERE saga = '{seated}'"))],
        ),
        violates(
            "customer_limit",
            "",
            [bookings(&["holds"], format!("UPDATE holds SET max_per_customer = 3 WHERE event = '{event}'"))],
        ),
    ]
}

fn money(platform: &Platform, books: &Books, sold: &str, given_back: &str, free: &str) -> Vec<Break> {
    let only = |booking: &Value| platform.intents(booking).pop().expect("it was charged");
    let (taken, returned) = (only(&books.sold), only(&books.given_back));
    let charge =
        |saga: &str, set: &str| Rows(PAYMENTS, &["charges"], format!("UPDATE charges SET {set} WHERE saga = '{saga}'"));
    let another = |of: &Intent, refunded: i64| Line(Intent { id: "pi_another".into(), refunded, ..of.clone() });
    let undone = || Line(Intent { refunded: taken.amount, ..taken.clone() });
    let skipped = || Part::Saga(sold.into(), |saga, pay| saga.steps[pay].status = StepStatus::Skipped);
    let resolved = Part::Saga(given_back.into(), |saga, pay| saga.steps[pay].undo = Undo::Resolved);
    let of_free = [("saga".to_owned(), free.to_owned())].into();
    let canceled = Intent { id: "pi_another".into(), status: Status::Canceled, metadata: of_free, ..taken.clone() };
    vec![
        violates("double_charge", sold, [another(&taken, 0)]),
        violates("refund_beyond_charge", given_back, [another(&returned, returned.amount + 1)]),
        violates("charge_without_tickets", given_back, [another(&returned, 0)]),
        violates("free_booking_charged", free, [Line(canceled)]),
        violates("charge_missing", sold, [undone(), charge(sold, "state = 'refunded'")]),
        violates(
            "charge_amount",
            sold,
            [Line(Intent { amount: taken.amount + 1, ..taken.clone() }), charge(sold, "amount = amount + 1")],
        ),
        warns("charge_skipped", sold, [skipped(), undone(), charge(sold, "state = 'refunded'")]),
        violates("charge_of_skipped", sold, [skipped()]),
        violates("charge_unsettled", sold, [charge(sold, "state = 'pending'")]),
        violates("charge_differs", sold, [charge(sold, "intent = 'pi_unknown'")]),
        warns(
            "refund_by_hand",
            given_back,
            [
                resolved,
                Line(Intent { refunded: 0, ..returned.clone() }),
                charge(given_back, "state = 'refund_refused', refund_error = 'broken'"),
            ],
        ),
    ]
}

/// What cannot be read, and what is said of it.
pub(super) fn losses(books: &Books) -> Vec<(Part, String)> {
    let emptied = format!("UPDATE sagas SET body = '{{}}' WHERE id = '{}'", text(&books.sold["id"]));
    let lost = |database, table: &'static [&'static str], what: &str| {
        (Rows(database, table, format!("DROP TABLE {}", table[0])), format!("{what} cannot be read"))
    };
    let mut all = vec![
        (Rows(JOURNAL, &["sagas"], emptied), "sagas could be read".to_owned()),
        (Nonsense, "cannot be read: line".to_owned()),
        lost(BOOKINGS, &["ticket_types"], "the capacity"),
        lost(BOOKINGS, &["taken_seats"], "the seats"),
        lost(PAYMENTS, &["charges"], "the charges"),
        lost(MAILS, &["deliveries"], "the deliveries"),
    ];
    all.extend(TELLING.map(|service| lost(service, &["outbox"], &format!("the outbox of {service}"))));
    all
}
