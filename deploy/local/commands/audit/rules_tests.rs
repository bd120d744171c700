//! Each promise is broken on purpose, and the audit says which.

use std::collections::BTreeMap;
use std::time::Duration;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{Currency, EventId, TicketTypeId};

use super::*;

const NOW: Timestamp = Timestamp(10_000_000);

fn euros(amount: i64) -> Money {
    Money { amount, currency: Currency::EUR }
}

fn key(saga: SagaId, step: &str) -> Key {
    Key { saga, step: step.into(), round: 1 }
}

fn hold(saga: SagaId, state: &str) -> HoldFigures {
    HoldFigures {
        key: key(saga, "RESERVE"),
        state: state.into(),
        event: EventId::fresh(),
        customer: None,
        total: Some(euros(8400)),
        quantity: 2,
        grace_until: None,
        changed_at: NOW,
    }
}

fn charge(saga: SagaId, state: State) -> ChargeRow {
    ChargeRow {
        key: key(saga, "PAY"),
        state,
        outcome: None,
        amount: Some(euros(8400)),
        intent: Some("pi_1".into()),
        refunded: None,
        failed_refund: None,
        created_at: NOW,
    }
}

fn intent(id: &str, status: Status, refunded: i64) -> Intent {
    Intent {
        id: id.into(),
        amount: 8400,
        currency: "eur".into(),
        status,
        metadata: BTreeMap::new(),
        description: None,
        method_hash: None,
        declined: None,
        refunded,
        created: 0,
    }
}

/// A paid booking, confirmed.
fn confirmed() -> Case {
    let id = SagaId::fresh();
    let saga = SagaFacts {
        id,
        booking: true,
        end: Some(End::Completed),
        started_at: NOW,
        reserved: Some((euros(8400), 2)),
        notified: true,
        refund_told: false,
        resolved: false,
        skipped: false,
        attention: vec![],
    };
    Case {
        saga,
        holds: vec![hold(id, "confirmed")],
        tickets: 2,
        charges: vec![charge(id, State::Done)],
        intents: vec![intent("pi_1", Status::Succeeded, 0)],
        deliveries: vec![Recorded { key: key(id, "NOTIFY"), state: "sent".into() }],
        failed_refunds: vec![],
    }
}

/// A free booking, confirmed.
fn free() -> Case {
    let mut case = confirmed();
    case.saga.reserved = Some((euros(0), 2));
    case.holds[0].total = Some(euros(0));
    case.charges.clear();
    case.intents.clear();
    case
}

/// A booking that was paid and given back.
fn refunded() -> Case {
    let mut case = confirmed();
    let id = case.saga.id;
    case.saga.end = Some(End::Compensated);
    case.holds = vec![hold(id, "released")];
    case.tickets = 0;
    case.charges = vec![charge(id, State::Refunded)];
    case.intents = vec![intent("pi_1", Status::Succeeded, 8400)];
    case.deliveries.clear();
    case
}

/// A booking whose card was declined.
fn declined() -> Case {
    let mut case = refunded();
    case.charges[0].state = State::Rejected;
    case.intents = vec![intent("pi_1", Status::Canceled, 0)];
    case
}

fn found(case: &Case) -> Vec<Finding> {
    let mut found = Vec::new();
    judge(case, NOW, &mut found);
    found
}

/// The names of the rules that a change of the case breaks.
fn broken(mut case: Case, change: impl FnOnce(&mut Case)) -> Vec<&'static str> {
    change(&mut case);
    let mut rules: Vec<&str> = found(&case).iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_clean_world_has_no_findings() {
    for case in [confirmed(), free(), refunded(), declined()] {
        assert_eq!(found(&case), []);
    }
    let sold_out = broken(refunded(), |case| {
        case.holds[0].state = "refused".into();
        case.charges.clear();
        case.intents.clear();
    });
    assert_eq!(sold_out, [] as [&str; 0]);
    let never_confirmed = broken(confirmed(), |case| {
        case.intents.push(intent("pi_0", Status::RequiresPaymentMethod, 0));
        case.intents.push(intent("pi_2", Status::Succeeded, 8400));
    });
    assert_eq!(never_confirmed, [] as [&str; 0]);
}

#[test]
fn a_booking_is_confirmed_where_its_hold_is() {
    assert_eq!(broken(confirmed(), |c| c.holds.clear()), ["booking_without_hold"]);
    assert_eq!(broken(confirmed(), |c| c.holds[0].state = "expired".into()), ["booking_without_hold"]);
    assert_eq!(broken(confirmed(), |c| c.holds.push(c.holds[0].clone())), ["booking_without_hold"]);
    assert_eq!(broken(confirmed(), |c| c.saga.reserved = None), ["booking_without_hold"]);
    assert_eq!(broken(confirmed(), |c| c.holds[0].total = Some(euros(1))), ["hold_differs"]);
    assert_eq!(broken(declined(), |c| c.holds[0].state = "confirmed".into()), ["hold_confirmed_without_booking"]);
    for case in [declined(), confirmed()] {
        assert_eq!(broken(case, |c| c.holds.push(hold(c.saga.id, "held"))), ["hold_left"]);
    }
}

#[test]
fn tickets_are_as_many_as_were_sold() {
    for number in [0, 1, 3] {
        assert_eq!(broken(confirmed(), |c| c.tickets = number), ["ticket_count"]);
    }
    assert_eq!(broken(declined(), |c| c.tickets = 1), ["tickets_without_booking"]);
}

#[test]
fn a_booking_whose_payment_was_skipped_keeps_no_money() {
    let void = |c: &mut Case| {
        c.saga.skipped = true;
        (c.charges[0].state, c.intents[0].status) = (State::Void, Status::Canceled);
    };
    assert_eq!(broken(confirmed(), void), ["charge_skipped"]);
    assert_eq!(broken(confirmed(), |c| c.saga.skipped = true), ["charge_of_skipped"]);
}

#[test]
fn money_stands_once_and_only_for_tickets() {
    let second = |c: &mut Case| c.intents.push(intent("pi_2", Status::Succeeded, 0));
    assert_eq!(broken(confirmed(), second), ["double_charge"]);
    assert_eq!(broken(declined(), second), ["charge_without_tickets"]);
    assert_eq!(broken(refunded(), |c| c.intents[0].refunded = 8399)[0], "charge_without_tickets");
    assert_eq!(broken(confirmed(), |c| c.intents[0].refunded = 8400), ["charge_missing", "charge_differs"]);
    assert_eq!(broken(confirmed(), |c| c.intents[0].refunded = 400), ["charge_amount", "charge_differs"]);
    assert_eq!(broken(confirmed(), |c| c.intents[0].amount = 1), ["charge_amount", "charge_differs"]);
    assert_eq!(broken(confirmed(), |c| c.intents[0].currency = "usd".into()), ["charge_amount", "charge_differs"]);
    assert_eq!(broken(refunded(), |c| c.intents[0].refunded = 8401)[0], "refund_beyond_charge");
    assert_eq!(broken(free(), |c| c.intents.push(intent("pi_1", Status::Canceled, 0))), ["free_booking_charged"]);
    assert_eq!(
        broken(free(), |c| c.charges.push(charge(c.saga.id, State::Tombstone))),
        ["free_booking_charged", "charge_differs"]
    );
}

#[test]
fn payments_and_the_ledger_agree() {
    assert_eq!(broken(confirmed(), |c| c.charges[0].intent = None), ["charge_differs"]);
    assert_eq!(broken(confirmed(), |c| c.charges[0].intent = Some("pi_9".into())), ["charge_differs"]);
    assert_eq!(broken(confirmed(), |c| c.charges[0].state = State::Rejected), ["charge_differs"]);
    assert_eq!(broken(refunded(), |c| c.charges[0].state = State::Done), ["charge_differs"]);
    assert_eq!(broken(declined(), |c| c.intents[0].status = Status::RequiresPaymentMethod), ["charge_differs"]);
    for state in State::ALL.into_iter().filter(|state| state.is_due()) {
        assert_eq!(broken(declined(), |c| c.charges[0].state = state), ["charge_unsettled"]);
    }
    let mut abandoned = declined();
    abandoned.saga.end = Some(End::Abandoned);
    abandoned.charges[0].state = State::Closing;
    assert_eq!(found(&abandoned)[0].severity, Severity::Warning);
}

#[test]
fn a_refund_that_failed_is_listed_while_a_saga_or_an_operator_stands_for_it() {
    let failed = |change: &dyn Fn(&mut Case)| {
        let mut case = refunded();
        case.charges[0].state = State::RefundFailed;
        case.intents[0].refunded = 0;
        change(&mut case);
        found(&case).iter().map(|f| (f.severity, f.rule)).collect::<Vec<_>>()
    };
    let listed = [(Severity::Warning, "refund_by_hand")];
    let alone = [(Severity::Violation, "charge_without_tickets"), (Severity::Violation, "charge_differs")];
    assert_eq!(failed(&|_| ()), alone);
    let saga = SagaId::fresh();
    let with_saga = |c: &mut Case| {
        c.charges[0].failed_refund = Some(saga);
        c.failed_refunds = vec![(saga, None)];
    };
    assert_eq!(failed(&with_saga), listed);
    assert_eq!(failed(&|c| c.charges[0].failed_refund = Some(saga)), alone, "nobody knows that saga");
    let refused = |c: &mut Case| (c.charges[0].state, c.saga.resolved) = (State::RefundRefused, true);
    assert_eq!(failed(&refused), listed);
    // A former round's refund failed, and the booking was paid by another one.
    let two_rounds = |c: &mut Case| {
        let id = c.saga.id;
        let mut first = charge(id, State::RefundFailed);
        (first.key.round, first.intent, first.failed_refund) = (2, Some("pi_2".into()), Some(saga));
        c.failed_refunds = vec![(saga, None)];
        c.charges.push(first);
        c.intents.push(intent("pi_2", Status::Succeeded, 0));
    };
    assert_eq!(broken(confirmed(), two_rounds), ["refund_by_hand"]);
    assert_eq!(broken(confirmed(), |c| c.saga.resolved = true), [] as [&str; 0]);
}

#[test]
fn what_is_said_of_a_refund_that_failed_follows_its_saga() {
    let saga = SagaId::fresh();
    let said = |end: Option<End>| {
        let mut case = refunded();
        (case.charges[0].state, case.charges[0].failed_refund) = (State::RefundFailed, Some(saga));
        (case.intents[0].refunded, case.failed_refunds) = (0, vec![(saga, end)]);
        let [only] = &found(&case)[..] else { panic!("one finding") };
        only.detail.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(said(None), format!("84.00 EUR of pi_1 stands: saga {saga} stands for it"));
    assert_eq!(said(Some(End::Completed)), format!("84.00 EUR of pi_1 was given back by hand, says saga {saga}"));
    assert_eq!(said(Some(End::Abandoned)), format!("84.00 EUR of pi_1 stands: saga {saga} was given up"));
}

#[test]
fn a_mail_about_the_money_was_recorded_where_it_was_asked_for() {
    let told = |deliveries: Vec<Recorded>| {
        broken(refunded(), |c| {
            c.saga.refund_told = true;
            c.deliveries = deliveries;
        })
    };
    assert_eq!(told(vec![]), ["delivery_missing"]);
    assert_eq!(told(vec![Recorded { key: key(SagaId::fresh(), REFUND_MAIL), state: "sent".into() }]), [] as [&str; 0]);
}

#[test]
fn a_confirmed_booking_has_a_mail() {
    assert_eq!(broken(confirmed(), |c| c.deliveries.clear()), ["delivery_missing"]);
    let mut unasked = confirmed();
    unasked.deliveries.clear();
    unasked.saga.notified = false;
    assert_eq!((found(&unasked)[0].rule, found(&unasked)[0].severity), ("mail_given_up", Severity::Warning));
    assert_eq!(broken(confirmed(), |c| c.deliveries[0].state = "failed".into()), ["mail_given_up"]);
}

#[test]
fn what_runs_is_not_judged_but_told_where_it_is_late() {
    let mut running = declined();
    running.saga.end = None;
    running.holds[0].state = "held".into();
    running.charges[0].state = State::Open;
    assert_eq!(found(&running), []);
    running.saga.started_at = Timestamp(NOW.millis() - 3_600_001);
    assert_eq!((found(&running)[0].rule, found(&running)[0].severity), ("saga_overdue", Severity::Warning));
    running.saga.attention = vec![("PAY".into(), "an undo gave up".into())];
    assert_eq!(found(&running).iter().map(|f| f.rule).collect::<Vec<_>>(), ["attention"]);
}

#[test]
fn counters_tell_the_truth() {
    let sound = TypeFigures {
        event: EventId::fresh(),
        ticket_type: TicketTypeId::fresh(),
        quantity: 100,
        available: 90,
        held: 3,
        confirmed: 7,
        tickets: 7,
    };
    let rules = |change: fn(&mut TypeFigures)| {
        let (mut figures, mut found) = (sound.clone(), Vec::new());
        change(&mut figures);
        judge_types(&[figures], &mut found);
        found.iter().map(|f| f.rule).collect::<Vec<_>>()
    };
    assert_eq!(rules(|_| {}), [] as [&str; 0]);
    assert_eq!(rules(|t| t.available = 91), ["capacity_sum"]);
    assert_eq!(rules(|t| t.held = 2), ["capacity_sum"]);
    assert_eq!(rules(|t| (t.available, t.held) = (-1, 94)), ["capacity_negative"]);
    assert_eq!(rules(|t| t.tickets = 8), ["capacity_tickets"]);
}

#[test]
fn nothing_belongs_to_nobody() {
    let mut found = Vec::new();
    judge_unknown(SagaId::fresh(), "a hold", 0, &mut found);
    judge_unknown(SagaId::fresh(), "a charge", 8400, &mut found);
    judge_nobody(&intent("pi_1", Status::Canceled, 0), &mut found);
    judge_nobody(&intent("pi_2", Status::Succeeded, 0), &mut found);
    let rules: Vec<_> = found.iter().map(|f| f.rule).collect();
    assert_eq!(rules, ["unknown_saga", "unknown_saga", "charge_without_tickets", "charge_without_tickets"]);
}

#[test]
fn a_dead_letter_is_a_violation_unless_its_saga_is_marked_for_it_or_has_ended() {
    let round = Some((SagaId::fresh(), "CONFIRM".to_owned()));
    let letter = DeadLetter { subject: "dead.bookings.confirm".into(), reason: "no event".into(), round };
    let severity = |end: Option<End>, marks: &[(&str, &str)]| {
        let attention = marks.iter().map(|(step, why)| ((*step).to_owned(), (*why).to_owned())).collect();
        let saga = SagaFacts { end, attention, ..confirmed().saga };
        let mut found = Vec::new();
        judge_dead(&letter, Some(&saga), &mut found);
        assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), ["dead_letter"]);
        found[0].severity
    };
    assert_eq!(severity(None, &[]), Severity::Violation);
    assert_eq!(severity(None, &[("PAY", "dead")]), Severity::Violation);
    assert_eq!(severity(None, &[("CONFIRM", "dead")]), Severity::Warning);
    assert_eq!(severity(Some(End::Compensated), &[]), Severity::Warning);
    let mut found = Vec::new();
    judge_dead(&letter, None, &mut found);
    assert_eq!(found[0].severity, Severity::Violation, "nobody knows its saga");
}

#[test]
fn an_event_that_does_not_leave_is_told() {
    let mut found = Vec::new();
    judge_outbox("bookings", 3, Some(NOW), NOW.plus(Duration::from_secs(59)), &mut found);
    judge_outbox("bookings", 0, None, NOW, &mut found);
    assert_eq!(found, []);
    judge_outbox("bookings", 3, Some(NOW), NOW.plus(Duration::from_secs(61)), &mut found);
    assert_eq!((found[0].rule, found[0].severity), ("outbox_unsent", Severity::Warning));
}
