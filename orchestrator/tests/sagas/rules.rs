//! Clauses of the protocol that the platform's own definitions keep.

use std::time::Duration;

use eventicket_contracts::bookings::Reserve;
use eventicket_contracts::codes;
use eventicket_contracts::sagas::PAYMENT_METHOD;
use eventicket_contracts::subjects::Service;
use eventicket_orchestrator::sagas::{Catalogue, Kind, RowView};
use eventicket_saga::definition::Call;
use eventicket_saga::testing::{Behaviour, Message, Play};
use eventicket_saga::{Command, Definition, Half, Input, Json, Phase, Retry, State, Status, Step};

use super::{Case, each, samples};

const PAY_AT: usize = 2;

/// Calls `test` with every version of the booking of this sample.
fn bookings(name: &str, mut test: impl FnMut(&Case<'_>)) {
    let mut tested = 0;
    each(|case| {
        if case.sample.name == name {
            test(case);
            tested += 1;
        }
    });
    assert!(tested > 0, "there is no sample {name}");
}

/// What RESERVE sends.
fn reserve(play: &Play<'_>) -> Reserve {
    let Message::Command(send) = &play.mail[0] else { panic!("RESERVE was not sent") };
    send.body.read::<Reserve>().unwrap()
}

/// The longest time that the definition may try to pay, each attempt running into its time-out and each delay whole.
fn longest(pay: &Command) -> Duration {
    let Retry { attempts, first, longest, .. } = pay.retry.clone();
    let delays = (1..attempts).map(|n| (first * 2_u32.pow(n - 1)).min(longest));
    pay.timeout * attempts + delays.sum::<Duration>()
}

#[test]
fn rule_04_reserve_carries_hold_and_a_grace_beyond_all_tries_to_pay() {
    bookings("paid at once", |case| {
        let reserve = reserve(&case.started());
        let (hold, grace) = (reserve.hold_seconds, Duration::from_secs(reserve.grace_seconds.into()));
        assert!(hold > 0 && grace > longest(case.command("PAY")), "{reserve:?}");
    });
}

#[test]
fn rule_04_a_payment_that_began_in_time_may_take_all_its_tries_and_confirms_within_the_grace() {
    bookings("without a payment method", |case| {
        let mut play = case.play();
        let signals = std::mem::take(&mut play.signals);
        play.start();
        let grace = Duration::from_secs(reserve(&play).grace_seconds.into());
        while play.saga.state() != State::Waiting {
            assert!(play.step());
        }
        // The method comes at the last moment, and the last try brings the answer.
        let end = samples::hold_until(&play.saga);
        play.now = end - 1;
        let (name, payload) = signals[0].clone();
        assert_eq!(name, PAYMENT_METHOD);
        play.feed(Input::Signal { name, payload, key: None }).unwrap();
        play.world.behave("PAY", Half::Do, Behaviour::Deaf);
        while play.saga.steps[PAY_AT].attempts < case.command("PAY").retry.attempts || !play.mail.is_empty() {
            assert!(play.step());
        }
        play.world.behave_well();
        let answered = play.saga.next_due(case.definition).unwrap() - 1;
        play.now = answered;
        play.feed(Input::Resend).unwrap();
        play.run();
        assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, "confirmed"), "{}", case.name("late"));
        let confirmed = play.history.iter().find(|e| e.step.as_deref() == Some("CONFIRM")).unwrap().at;
        assert!(end < confirmed && confirmed < end + i64::try_from(grace.as_millis()).unwrap());
    });
}

#[test]
fn rule_04_a_confirm_of_a_hold_that_is_gone_is_rejected_and_the_payment_undone() {
    bookings("paid at once", |case| {
        let mut play = case.started();
        play.world.behave("CONFIRM", Half::Do, Behaviour::Reject(codes::HOLD_GONE.into()));
        play.run();
        assert_eq!((play.saga.phase, case.status(&play)), (Phase::Compensated, "failed"));
        assert_eq!((play.undone(), play.world.stands("PAY", 1)), (vec!["PAY", "RESERVE"], false));
        play.assert_nothing_is_left();
    });
}

#[test]
fn rule_07_a_lost_answer_of_a_payment_is_asked_for_again_also_after_the_holds_end() {
    bookings("without a payment method", |case| {
        let mut play = case.play();
        let signals = std::mem::take(&mut play.signals);
        play.start();
        while play.saga.state() != State::Waiting {
            assert!(play.step());
        }
        let end = samples::hold_until(&play.saga);
        play.now = end - 1;
        let (name, payload) = signals[0].clone();
        play.feed(Input::Signal { name, payload, key: None }).unwrap();
        // It is charged, and nothing is heard of it.
        play.world.behave("PAY", Half::Do, Behaviour::Mute);
        while play.now <= end {
            assert!(play.step());
        }
        assert!(play.world.stands("PAY", 1) && play.saga.steps[PAY_AT].status != Status::Done);
        play.world.behave_well();
        play.run();
        assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, "confirmed"));
        play.assert_nothing_is_left();
    });
}

#[test]
fn rule_17_a_definition_that_names_what_the_wire_does_not_know_is_refused() {
    let known = |service: &str, action: &str| Service::named(service).is_some_and(|s| s.actions().contains(&action));
    let call = |service: &str, action: &str| Call::new(service, action, |_| Ok(Json::NULL));
    let kind = |effect, undo| {
        let steps = vec![Step::command("A", Command::new(effect).undo(undo))];
        let definition = Definition { name: "new".into(), version: 1, steps, deadlines: vec![] };
        let (check, view) = (|_: &Json| Ok(()), |_: &RowView<'_>| Json::NULL);
        Kind { name: "new", definitions: vec![definition], check, status: |_| "pending", view }
    };
    let (good, undo) = (call("bookings", "reserve"), call("bookings", "release"));
    assert!(Catalogue::new(vec![kind(good.clone(), undo.clone())], known).is_ok());
    for (effect, undo, missing) in [
        (call("bookings", "sing"), undo.clone(), "bookings.sing"),
        (call("choir", "reserve"), undo, "choir.reserve"),
        (good, call("bookings", "unsing"), "bookings.unsing"),
    ] {
        let refused = Catalogue::new(vec![kind(effect, undo)], known).err().expect("it is refused");
        assert!(refused.problem.ends_with(missing), "{refused}");
    }
}
