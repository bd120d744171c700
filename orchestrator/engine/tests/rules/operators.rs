//! Operator actions, and inputs that a state does not allow. `Play` asserts that each refusal leaves the saga unchanged.

use super::*;
use eventicket_saga::{Json, Phase, Status, What};

#[test]
fn each_action_is_in_the_history_with_who_and_why() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(act(OperatorAction::Pause)).unwrap();
    play.feed(act(OperatorAction::Resume)).unwrap();
    play.feed(answer("PAY", 1, busy())).unwrap();
    play.feed(act(OperatorAction::Retry)).unwrap();
    play.feed(cancel()).unwrap();
    play.feed(act(OperatorAction::Abandon { force: true })).unwrap();
    for what in [What::Paused, What::Resumed, What::RetriedByHand, What::Cancelled, What::Abandoning] {
        let entry = play.history.iter().find(|e| e.what == what).unwrap();
        assert_eq!((entry.actor.as_deref(), entry.reason.as_deref()), (Some("ann"), Some("because")));
    }
    assert_eq!(play.feed(answer("PAY", 1, done())), Ok(false));
}

#[test]
fn an_action_that_does_not_fit_is_refused_and_changes_nothing() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    assert!(not_now(play.feed(cancel())), "it has not begun");
    assert!(not_now(play.feed(Input::Timer)));
    play.start();
    assert_eq!(play.feed(Input::Start), Err(Illegal::Begun));
    assert!(not_now(play.feed(act(OperatorAction::Retry))), "it is in flight");
    assert!(not_now(play.feed(act(OperatorAction::Resume))));
    assert!(not_now(play.feed(act(OperatorAction::Resolve { step: "RESERVE".into() }))));
    let unknown = play.feed(act(OperatorAction::Resolve { step: "SING".into() }));
    assert_eq!(unknown, Err(Illegal::NoSuchStep("SING".into())));
    assert_eq!(play.feed(method()), Err(Illegal::NotAwaited("method".into())));
    play.feed(act(OperatorAction::Pause)).unwrap();
    assert!(not_now(play.feed(act(OperatorAction::Pause))));
    play.feed(cancel()).unwrap();
    for action in [OperatorAction::Pause, OperatorAction::Cancel { code: "x".into() }] {
        assert_eq!(play.feed(act(action)), Err(Illegal::Unwinding));
    }
    assert_eq!(play.feed(act(OperatorAction::Skip { output: Json::NULL })), Err(Illegal::Unwinding));
    assert_eq!(play.feed(method()), Err(Illegal::NotAwaited("method".into())));
    play.run();
    assert_eq!(play.feed(cancel()), Err(Illegal::Ended));
    assert_eq!(play.feed(method()), Err(Illegal::Ended));
}

#[test]
fn a_wait_is_not_skipped_and_its_time_out_unwinds() {
    let mut definition = booking();
    definition.steps[1] = Step::wait("AWAIT", "method", Some((SECOND, "too_slow".into())));
    let mut play = reserved(&definition, json!({}));
    assert!(not_now(play.feed(act(OperatorAction::Skip { output: Json::NULL }))));
    play.now += 1_000;
    assert_eq!(play.feed(method()), Err(Illegal::NotAwaited("method".into())), "it is over, though no timer has fired");
    play.run();
    assert_eq!((reason(&play), play.saga.phase), ("too_slow", Phase::Compensated));
}

#[test]
fn a_step_is_skipped_only_with_what_later_steps_need() {
    let fits = |output: &Json| output.read::<u32>().map(drop).map_err(|error| error.to_string());
    let definition = with(booking(), "PAY", |c| *c = c.clone().brings(fits));
    let mut play = reserved(&definition, json!({}));
    for unfit in [Json::NULL, json!("five").into()] {
        let refused = play.feed(act(OperatorAction::Skip { output: unfit })).unwrap_err();
        assert!(matches!(&refused, Illegal::Unfit { step, .. } if step == "PAY"), "{refused}");
    }
    play.feed(act(OperatorAction::Skip { output: json!(5).into() })).unwrap();
    play.run();
    assert_eq!(play.saga.phase, Phase::Completed);
}

#[test]
fn what_comes_after_the_point_of_no_return_may_be_skipped() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "free": true }));
    play.deliver(0);
    play.deliver(0);
    assert!(matches!(play.status("NOTIFY"), Status::Sent(_)));
    play.mail.clear();
    play.feed(act(OperatorAction::Skip { output: Json::NULL })).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.status("NOTIFY")), (Phase::Completed, Status::Skipped));
}

#[test]
fn a_definition_that_the_engine_cannot_keep_is_unsound() {
    let call = || Call::new("x", "do", |_| Ok(Json::NULL));
    let back = |c: &mut Command| c.on_rejection = OnRejection::BackTo { wait: "AWAIT".into(), rounds: 2 };
    let unsound = |d: Definition| d.validate().unwrap_err().problem;
    assert!(unsound(with(booking(), "CONFIRM", back)).contains("goes back"));
    assert!(unsound(with(booking(), "CONFIRM", |c| c.best_effort = true)).contains("no return"));
    assert!(unsound(with(booking(), "PAY", |c| c.undo = None)).contains("needs an undo"));
    assert!(unsound(with(booking(), "RESERVE", |c| c.retry.attempts = 0)).contains("no attempt"));
    let mut between = booking();
    between.steps.insert(2, Step::command("REDEEM", Command::new(call()).undo(call())));
    assert!(unsound(between).contains("goes back"), "REDEEM would have to be undone before its next round");
}
