//! The booking's own words: declines and further rounds, pending payments, and what its customer sees of them.

use eventicket_contracts::codes;
use eventicket_contracts::payments::{ChargePending, NextAction};
use eventicket_contracts::sagas::{self, BookingInput, BookingView, PAYMENT_METHOD, RefundStatus};
use eventicket_contracts::{Currency, CustomerId, EventId, Money, SagaId, Timestamp};
use eventicket_orchestrator::runtime::admission;
use eventicket_orchestrator::sagas::RowView;
use eventicket_saga::testing::{Behaviour, Play};
use eventicket_saga::{Answer, Half, Illegal, Input, OperatorAction, Phase, Saga};
use serde_json::json;
use uuid::Uuid;

use super::{Case, cancel, each, samples};

/// Calls `test` with the newest version's booking that is paid at once.
fn booking(mut test: impl FnMut(&Case<'_>)) {
    each(|case| {
        if case.sample.name == "paid at once" && case.definition.version == 2 {
            test(case);
        }
    });
}

fn seen(case: &Case<'_>, play: &Play<'_>) -> (String, Option<String>, Option<String>, RefundStatus) {
    let view = view(case, play);
    (view.status.name().to_owned(), view.reason, view.last_decline, view.refund)
}

fn view(case: &Case<'_>, play: &Play<'_>) -> BookingView {
    let row = RowView { id: SagaId(play.saga.id), saga: &play.saga, version: 1, updated_at: Timestamp(play.now) };
    (case.kind.view)(&row).read().unwrap()
}

fn method() -> Input {
    Input::Signal { name: PAYMENT_METHOD.into(), payload: json!({ "method": "another" }).into(), key: None }
}

/// Up to where PAY's command is on its way.
fn paying(play: &mut Play<'_>) {
    while !play.mail.iter().any(|m| format!("{m:?}").contains(r#"step: "PAY""#)) {
        assert!(play.step());
    }
}

/// Answers PAY's round under way.
fn pay_answered(play: &mut Play<'_>, answer: Answer) {
    play.mail.clear();
    let round = play.saga.steps[2].round;
    play.feed(Input::Answer { step: "PAY".into(), round, half: Half::Do, attempt: 1, answer }).unwrap();
}

#[test]
fn rule_12_the_gateway_knows_which_services_a_booking_surely_calls() {
    let kind = eventicket_orchestrator::sagas::booking::kind();
    let definition = kind.definitions.last().unwrap();
    let euros = |amount| Money { amount, currency: Currency::EUR };
    for method in [None, Some("sealed".to_owned())] {
        for expected_total in [None, Some(euros(0)), Some(euros(1))] {
            let input = BookingInput {
                event: EventId::fresh(),
                customer: CustomerId::fresh(),
                items: vec![],
                expected_total,
                method: method.clone(),
            };
            let saga = Saga::new(Uuid::nil(), definition, serde_json::to_value(&input).unwrap().into(), 0);
            let called = sagas::surely_called(method.is_some(), expected_total);
            let called = called.iter().copied().collect();
            assert_eq!(admission::surely_called(definition, &saga), called, "{input:?}");
        }
    }
}

fn declined() -> Answer {
    Answer::Rejected { code: codes::PAYMENT_DECLINED.into(), message: String::new() }
}

fn pending(url: Option<&str>) -> Answer {
    let next_action = url.map(|url| NextAction { url: url.into() });
    Answer::Pending(serde_json::to_value(ChargePending { intent: "pi_1".into(), next_action }).unwrap().into())
}

#[test]
fn a_booking_without_a_price_goes_no_further() {
    booking(|case| {
        let mut play = case.started();
        let skip = |output: serde_json::Value| Input::Act {
            action: OperatorAction::Skip { output: output.into() },
            actor: "ann".into(),
            reason: "held by hand".into(),
        };
        for unfit in [json!(null), json!({ "title": "Concert" })] {
            let refused = play.feed(skip(unfit)).unwrap_err();
            assert!(matches!(&refused, Illegal::Unfit { step, .. } if step == "RESERVE"), "{refused}");
        }
        play.run();
        assert_eq!(play.saga.phase, Phase::Completed);
    });
}

#[test]
fn a_decline_waits_for_another_method_and_the_fifth_ends_the_booking() {
    booking(|case| {
        let mut play = case.started();
        paying(&mut play);
        for _ in 1..5 {
            pay_answered(&mut play, declined());
            let decline = Some(codes::PAYMENT_DECLINED.to_owned());
            assert_eq!(seen(case, &play), ("awaiting_payment".into(), None, decline, RefundStatus::None));
            play.feed(method()).unwrap();
            assert_eq!(case.status(&play), "pending");
        }
        pay_answered(&mut play, declined());
        let decline = Some(codes::PAYMENT_DECLINED.to_owned());
        assert_eq!(seen(case, &play), ("failed".into(), decline.clone(), decline, RefundStatus::None));
        play.run();
        assert_eq!((play.saga.steps[2].round, play.undone()), (5, vec!["RESERVE"]));
        play.assert_nothing_is_left();
    });
}

#[test]
fn a_hold_that_ends_after_a_decline_ends_by_the_decline() {
    booking(|case| {
        let mut play = case.started();
        paying(&mut play);
        pay_answered(&mut play, declined());
        play.run();
        let decline = Some(codes::PAYMENT_DECLINED.to_owned());
        assert_eq!(seen(case, &play), ("failed".into(), decline.clone(), decline, RefundStatus::None));
        assert_eq!(play.now, samples::hold_until(&play.saga));
    });
}

#[test]
fn a_pending_payment_shows_what_the_customer_has_to_do_also_while_it_is_asked_for() {
    booking(|case| {
        let mut play = case.started();
        paying(&mut play);
        pay_answered(&mut play, pending(Some("https://bank.example/3ds")));
        for _ in 0..3 {
            let booking = view(case, &play);
            assert_eq!(booking.status.name(), "awaiting_payment");
            assert_eq!(booking.next_action.unwrap().url, "https://bank.example/3ds");
            assert!(play.wait(), "it is asked again");
            play.mail.clear();
        }
        pay_answered(&mut play, pending(None));
        assert_eq!((case.status(&play), view(case, &play).next_action), ("awaiting_payment", None));
        pay_answered(&mut play, Answer::Done(json!({ "intent": "pi_1" }).into()));
        play.run();
        assert_eq!((case.status(&play), view(case, &play).next_action), ("confirmed", None));
    });
}

#[test]
fn another_method_replaces_a_pending_payment_once_it_is_undone() {
    booking(|case| {
        let mut play = case.started();
        paying(&mut play);
        pay_answered(&mut play, pending(None));
        play.feed(method()).unwrap();
        assert_eq!(case.status(&play), "pending");
        play.run();
        assert_eq!((case.status(&play), play.saga.steps[2].round), ("confirmed", 2));
        assert_eq!(play.undone(), ["PAY"]);
        play.assert_nothing_is_left();
    });
}

#[test]
fn once_it_unwinds_the_final_status_shows_with_what_happens_to_the_money() {
    booking(|case| {
        let mut play = case.started();
        play.world.behave("CONFIRM", Half::Do, Behaviour::Reject(codes::HOLD_GONE.into()));
        while play.saga.phase == Phase::Forward {
            play.step();
        }
        let failed = |refund| ("failed".to_owned(), Some(codes::HOLD_GONE.to_owned()), None, refund);
        assert_eq!(seen(case, &play), failed(RefundStatus::Pending));
        play.run();
        assert_eq!(seen(case, &play), failed(RefundStatus::Done));
        assert!(play.world.stands("REFUND_MAIL", 1));
    });
}

#[test]
fn who_cancels_before_anything_was_taken_gets_no_mail_about_money() {
    booking(|case| {
        let mut play = case.started();
        paying(&mut play);
        pay_answered(&mut play, pending(None));
        play.feed(cancel()).unwrap();
        play.run();
        assert_eq!(seen(case, &play).0, "cancelled");
        assert_eq!((play.undone(), play.world.stands("REFUND_MAIL", 1)), (vec!["PAY", "RESERVE"], false));
    });
}
