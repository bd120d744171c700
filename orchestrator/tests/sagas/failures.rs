//! Each step fails in turn: rejected, unknown, dead, crashed.

use eventicket_saga::testing::{Behaviour, Message, Play};
use eventicket_saga::{Half, OnRejection, Phase, Status, What};

use super::{Case, each};

const CODE: &str = "out_of_luck";

/// Steps with an undo among the first ones, latest first.
fn undone(case: &Case<'_>, steps: &[&'static str]) -> Vec<&'static str> {
    let undo = |step: &&&str| case.command(step).undo.is_some();
    steps.iter().filter(undo).copied().rev().collect()
}

/// Asserts what was undone, and that of one service the latest came first.
fn assert_undone(case: &Case<'_>, play: &Play<'_>, expected: &[&str], name: &str) {
    let actual = play.undone();
    let service = |step: &str| case.command(step).undo.as_ref().unwrap().service.clone();
    let mut sorted = actual.clone();
    sorted.sort_by_key(|step| expected.iter().position(|e| e == step));
    assert_eq!(sorted, expected, "{name}");
    for one in expected.iter().map(|s| service(s)) {
        let of_it =
            |steps: &[&str]| steps.iter().filter(|s| service(s) == one).map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(of_it(&actual), of_it(expected), "{name}: {one}");
    }
}

/// Each sample's steps, with those before it.
fn each_step(mut test: impl FnMut(&Case<'_>, &'static str, &[&'static str])) {
    each(|case| {
        for (n, step) in case.sample.takes.iter().enumerate() {
            test(case, step, &case.sample.takes[..n]);
        }
    });
}

#[test]
fn each_step_is_rejected_in_turn() {
    each_step(|case, step, before| {
        let name = case.name(&format!("{step} rejected"));
        let mut play = case.started();
        play.world.behave(step, Half::Do, Behaviour::Reject(CODE.into()));
        play.run();
        assert!(play.told(What::Rejected).iter().all(|s| *s == step), "{name}");
        let rejected = play.history.iter().filter(|e| e.what == What::Rejected).count();
        assert!(rejected > 0, "{name}");
        if case.command(step).best_effort {
            assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, case.sample.ends), "{name}");
        } else {
            let reason = play.saga.reason.as_ref().unwrap();
            // A step that goes back to a wait ends with it, where nobody signals any more.
            let waits = case.command(step).on_rejection != OnRejection::Unwind && play.signals.is_empty();
            let by_step = (reason.step.as_deref(), reason.code.as_str()) == (Some(step), CODE);
            assert!(by_step != waits, "{name}: {reason:?}");
            assert_eq!(play.saga.phase, Phase::Compensated, "{name}");
            assert_ne!(case.status(&play), case.sample.ends, "{name}");
            assert_undone(case, &play, &undone(case, before), &name);
        }
        play.assert_nothing_is_left();
    });
}

#[test]
fn each_step_stays_unknown_in_turn() {
    // Whether it happened or not, and whether silence or a dead letter says so, is the same to the saga.
    for behaviour in [Behaviour::Mute, Behaviour::Deaf, Behaviour::Dead] {
        each_step(|case, step, before| {
            let name = case.name(&format!("{step} {behaviour:?}"));
            let mut play = case.started();
            play.world.behave(step, Half::Do, behaviour.clone());
            let command = case.command(step);
            if command.no_return {
                return assert_only_its_answer_decides(case, play, step, &name);
            }
            play.run();
            assert_eq!(play.told(What::Unknown), [step], "{name}");
            assert_eq!(play.status(step), Status::Unknown, "{name}");
            if behaviour != Behaviour::Dead {
                let attempts = play.saga.steps[case.definition.position(step).unwrap()].attempts;
                assert_eq!(attempts, command.retry.attempts, "{name}");
            }
            if command.best_effort {
                assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, case.sample.ends), "{name}");
            } else {
                assert_eq!(play.saga.reason.as_ref().unwrap().step.as_deref(), Some(step), "{name}");
                assert_eq!(play.saga.phase, Phase::Compensated, "{name}");
                let mut with_itself = before.to_vec();
                with_itself.push(step);
                assert_undone(case, &play, &undone(case, &with_itself), &name);
            }
            play.assert_nothing_is_left();
        });
    }
}

/// The point of no return is marked, whatever happens, and completes the saga once it is answered.
fn assert_only_its_answer_decides(case: &Case<'_>, mut play: Play<'_>, step: &str, name: &str) {
    while play.saga.attention.is_empty() {
        assert!(play.step(), "{name}");
    }
    assert_eq!((play.saga.phase, play.saga.attention[0].step.as_str()), (Phase::Forward, step), "{name}");
    assert!(play.feed(super::cancel()).is_err(), "{name}");
    play.world.behave_well();
    let operator = eventicket_saga::Input::Act {
        action: eventicket_saga::OperatorAction::Retry,
        actor: "operator".into(),
        reason: "the letter was repaired".into(),
    };
    let _ = play.feed(operator);
    play.run();
    assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, case.sample.ends), "{name}");
    assert!(play.saga.attention.is_empty(), "{name}");
    play.assert_nothing_is_left();
}

#[test]
fn each_step_crashes_in_turn() {
    each_step(|case, step, _| {
        // With the command on its way, and with its answer on its way.
        for answered in [false, true] {
            let name = case.name(&format!("{step} crashed, answered: {answered}"));
            let mut play = case.started();
            let on_its_way = |m: &Message| match m {
                Message::Command(send) => !answered && send.step == step,
                Message::Reply(eventicket_saga::Input::Answer { step: of, .. }) => answered && of == step,
                Message::Reply(_) => false,
            };
            while !play.mail.iter().any(on_its_way) {
                assert!(play.step(), "{name}");
            }
            play.crash(true);
            play.run();
            assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, case.sample.ends), "{name}");
            assert_eq!(play.told(What::Done), case.sample.takes, "{name}");
            assert_eq!(play.told(What::Resent), [step], "{name}");
            play.assert_nothing_is_left();
        }
    });
}

#[test]
fn each_undo_fails_in_turn_and_is_repaired_by_hand() {
    for behaviour in [Behaviour::Reject(CODE.into()), Behaviour::Deaf, Behaviour::Mute, Behaviour::Dead] {
        each(|case| {
            let Some(last) = case.sample.takes.iter().find(|s| case.command(s).no_return) else { return };
            for step in case.sample.takes.iter().filter(|s| case.command(s).undo.is_some()) {
                let name = case.name(&format!("undo of {step} {behaviour:?}"));
                let mut play = case.started();
                play.world.behave(last, Half::Do, Behaviour::Reject(CODE.into()));
                play.world.behave(step, Half::Undo, behaviour.clone());
                play.run();
                assert_eq!(play.saga.phase, Phase::Unwinding, "{name}");
                assert_eq!(play.saga.attention.iter().map(|a| a.step.as_str()).collect::<Vec<_>>(), [*step], "{name}");
                play.world.behave_well();
                let retry = eventicket_saga::OperatorAction::Retry;
                let act =
                    eventicket_saga::Input::Act { action: retry, actor: "operator".into(), reason: "again".into() };
                play.feed(act).unwrap();
                play.run();
                assert_eq!(play.saga.phase, Phase::Compensated, "{name}");
                play.assert_nothing_is_left();
            }
        });
    }
}

/// The same for the booking, word by word: what fails, what is undone in which order, and what the customer sees.
#[test]
fn what_a_failing_step_of_a_booking_undoes() {
    let reject = || Behaviour::Reject(CODE.into());
    let table: &[(&str, &str, Behaviour, &[&str], &str)] = &[
        ("paid at once", "RESERVE", reject(), &[], "failed"),
        ("paid at once", "RESERVE", Behaviour::Mute, &["RESERVE"], "failed"),
        ("paid at once", "PAY", reject(), &["RESERVE"], "failed"),
        ("paid at once", "PAY", Behaviour::Mute, &["PAY", "RESERVE"], "failed"),
        ("paid at once", "CONFIRM", reject(), &["PAY", "RESERVE"], "failed"),
        ("paid at once", "NOTIFY", reject(), &[], "confirmed"),
        ("paid at once", "NOTIFY", Behaviour::Deaf, &[], "confirmed"),
        ("without a payment method", "PAY", Behaviour::Deaf, &["PAY", "RESERVE"], "failed"),
        ("without a payment method", "CONFIRM", reject(), &["PAY", "RESERVE"], "failed"),
        ("free", "CONFIRM", reject(), &["RESERVE"], "failed"),
    ];
    each(|case| {
        for (_, step, behaviour, undone, status) in table.iter().filter(|row| row.0 == case.sample.name) {
            let mut play = case.started();
            play.world.behave(step, Half::Do, behaviour.clone());
            play.run();
            assert_eq!((play.undone(), case.status(&play)), (undone.to_vec(), *status), "{step} {behaviour:?}");
        }
    });
}
