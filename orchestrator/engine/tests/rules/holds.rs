//! 6.4 and 6.6: the end of a hold, and rounds that are pending.

use super::*;
use eventicket_saga::testing::Behaviour;
use eventicket_saga::{Json, Phase, State, Status};

#[test]
fn rule_04_at_its_end_a_hold_that_nobody_pays_is_given_back() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "wait": true }));
    play.run();
    assert_eq!((play.now, reason(&play)), (1_800_000_000_000 + HOLD, "hold_expired"));
    assert_eq!(play.undone(), ["RESERVE"]);
    play.assert_nothing_is_left();
}

#[test]
fn rule_04_a_payment_in_flight_or_in_backoff_holds_the_end_off() {
    let definition =
        with(booking(), "PAY", |c| c.retry = Retry { jitter: 0.0, ..Retry::new(3, SECOND * 90, SECOND * 90) });
    let mut play = reserved(&definition, json!({}));
    tick(&mut play);
    assert!(matches!(play.status("PAY"), Status::Backoff(_)));
    play.mail.clear();
    play.now += HOLD;
    assert_eq!(play.saga.next_due(&definition), Some(1_800_000_000_000 + 100_000), "the end is not due");
    assert_eq!(play.feed(Input::Timer), Ok(false));
    play.run();
    assert_eq!(play.saga.phase, Phase::Completed);
}

#[test]
fn rule_04_a_payment_that_a_breaker_delays_after_its_first_attempt_holds_the_end_off() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, busy())).unwrap();
    play.closed.insert("payments".into());
    tick(&mut play);
    assert_eq!((play.status("PAY"), play.saga.state()), (Status::Held, State::Held));
    play.now += HOLD * 2;
    assert_eq!(play.feed(Input::Timer), Ok(false));
    play.closed.clear();
    play.feed(released("payments")).unwrap();
    play.run();
    assert_eq!(play.saga.phase, Phase::Completed);
}

#[test]
fn rule_04_a_paid_saga_goes_on_after_a_pause() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(act(OperatorAction::Pause)).unwrap();
    play.deliver(0);
    play.deliver(0);
    assert_eq!((play.status("PAY"), play.status("CONFIRM")), (Status::Done, Status::Idle));
    play.now += HOLD * 2;
    assert_eq!(play.feed(Input::Timer), Ok(false));
    play.feed(act(OperatorAction::Resume)).unwrap();
    play.run();
    assert_eq!(play.saga.phase, Phase::Completed);
}

#[test]
fn rule_04_timers_fire_while_it_is_paused_and_while_it_is_held() {
    let definition = booking();
    let mut paused = reserved(&definition, json!({ "wait": true }));
    paused.feed(act(OperatorAction::Pause)).unwrap();
    paused.run();
    let mut held = Play::new(&definition, json!({ "free": true }).into(), world());
    held.start();
    held.deliver(0);
    held.closed.insert("bookings".into());
    held.deliver(0);
    assert_eq!(held.status("CONFIRM"), Status::Held);
    tick(&mut held);
    for play in [&paused, &held] {
        assert_eq!(reason(play), "hold_expired");
    }
}

#[test]
fn rule_04_timers_fire_while_it_is_marked_for_attention() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "wait": true }));
    play.feed(Input::Mark { step: "RESERVE".into(), reason: "it was answered otherwise before".into() }).unwrap();
    tick(&mut play);
    assert_eq!((play.now, reason(&play)), (1_800_000_000_000 + HOLD, "hold_expired"));
}

#[test]
fn rule_04_no_payment_starts_after_the_end() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    play.start();
    play.deliver(0);
    play.closed.insert("payments".into());
    play.deliver(0);
    assert_eq!(play.status("PAY"), Status::Held);
    // The breaker closes after the end, before the end's timer.
    play.now += HOLD;
    play.closed.clear();
    play.feed(released("payments")).unwrap();
    assert_eq!(sent(&mut play), ["RESERVE undo 1"]);
    assert_eq!(reason(&play), "hold_expired");
}

#[test]
fn rule_04_no_payment_whose_publish_was_refused_starts_after_the_end() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.now += HOLD - 100;
    play.feed(refused(&play, "PAY", Half::Do, false)).unwrap();
    play.now += 300;
    assert_eq!(play.feed(Input::Timer), Ok(true));
    // Another publish of it might have been stored: its undo runs.
    assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"]);
}

#[test]
fn rule_04_neither_a_signal_nor_an_operator_starts_a_payment_after_the_end() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "wait": true }));
    play.now += HOLD;
    assert_eq!(play.feed(method()), Err(Illegal::NotAwaited("method".into())));
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.feed(refused(&play, "PAY", Half::Do, false)).unwrap();
    play.now += HOLD;
    assert!(not_now(play.feed(act(OperatorAction::Retry))));
    assert!(not_now(play.feed(act(OperatorAction::Skip { output: Json::NULL }))));
}

#[test]
fn rule_04_a_skipped_payment_holds_the_end_off() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    play.start();
    play.feed(act(OperatorAction::Pause)).unwrap();
    play.deliver(0);
    play.deliver(0);
    play.feed(act(OperatorAction::Skip { output: json!("by hand").into() })).unwrap();
    play.now += HOLD * 2;
    assert_eq!(play.feed(Input::Timer), Ok(false));
    play.feed(act(OperatorAction::Resume)).unwrap();
    play.run();
    assert_eq!(play.saga.phase, Phase::Completed);
}

#[test]
fn rule_04_a_rejection_after_the_end_unwinds_and_before_it_takes_a_new_round() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, rejected())).unwrap();
    assert_eq!((play.status("AWAIT"), play.saga.steps[2].round), (Status::Waiting(None), 2));
    let mut play = reserved(&definition, json!({}));
    play.now += HOLD;
    play.feed(answer("PAY", 1, rejected())).unwrap();
    assert_eq!((play.saga.phase, reason(&play)), (Phase::Unwinding, "declined"));
}

#[test]
fn a_step_takes_at_most_its_rounds() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.signals.push(("method".into(), json!("card").into()));
    play.world.behave("PAY", Half::Do, Behaviour::Reject("declined".into()));
    play.run();
    assert_eq!((play.saga.steps[2].round, reason(&play)), (3, "declined"));
    assert_eq!(play.undone(), ["RESERVE"]);
    play.assert_nothing_is_left();
}

#[test]
fn rule_06_pending_spends_no_attempt_and_is_asked_at_a_slow_rate() {
    let definition = with(booking(), "PAY", |c| c.ask_every = SECOND);
    let mut play = reserved(&definition, json!({}));
    play.world.behave("PAY", Half::Do, Behaviour::Pending(20));
    play.run();
    assert_eq!((play.saga.phase, play.saga.steps[2].attempts), (Phase::Completed, 1));
    assert_eq!(play.told(eventicket_saga::What::Pending), ["PAY"], "it is told once");
}

#[test]
fn rule_06_the_end_of_a_pending_round_counts_in_either_order() {
    let definition = booking();
    for (answer_, status) in [(done(), Status::Done), (rejected(), Status::Idle)] {
        let mut play = reserved(&definition, json!({}));
        play.feed(answer("PAY", 1, answer_)).unwrap();
        play.mail.clear();
        assert_eq!(play.feed(answer("PAY", 1, pending())), Ok(false));
        assert_eq!(play.status("PAY"), status);
    }
}

#[test]
fn rule_06_a_pending_round_is_asked_once_more_at_the_end_then_undone() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.world.behave("PAY", Half::Do, Behaviour::Pending(99));
    play.deliver(0);
    play.deliver(0);
    play.now = 1_800_000_000_000 + HOLD;
    play.feed(Input::Timer).unwrap();
    assert_eq!(play.saga.phase, Phase::Forward);
    assert_eq!(play.saga.next_due(&definition), Some(play.now + 10_000), "only the question's own time-out");
    play.run();
    assert_eq!((reason(&play), play.undone()), ("hold_expired", vec!["PAY", "RESERVE"]));
    play.assert_nothing_is_left();
}

#[test]
fn rule_06_a_payment_that_is_found_done_at_the_end_goes_on() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, pending())).unwrap();
    play.mail.clear();
    play.now += HOLD;
    play.feed(Input::Timer).unwrap();
    assert_eq!(sent(&mut play), ["PAY do 1"]);
    play.feed(answer("PAY", 1, done())).unwrap();
    assert_eq!(sent(&mut play), ["CONFIRM do 1"]);
}

#[test]
fn rule_04_pending_that_arrives_after_the_end_unwinds() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.now += HOLD;
    play.feed(answer("PAY", 1, pending())).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"]);
}

#[test]
fn rule_06_where_the_last_question_cannot_be_sent_the_undo_is_the_answer() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, pending())).unwrap();
    play.mail.clear();
    play.closed.insert("payments".into());
    tick(&mut play);
    assert_eq!(play.saga.phase, Phase::Forward, "an ordinary question waits for the breaker");
    assert!(play.mail.is_empty());
    play.now = 1_800_000_000_000 + HOLD;
    play.feed(Input::Timer).unwrap();
    assert_eq!(sent(&mut play), ["RESERVE undo 1"], "the tickets do not wait for the breaker");
}
