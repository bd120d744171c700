//! 6.11, 6.12: publishes that are refused or lost, and breakers that hold.

use super::*;
use eventicket_saga::{Phase, State, Status, Undo};

#[test]
fn rule_11_a_resend_spends_no_attempt() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    for _ in 0..10 {
        assert_eq!(play.feed(Input::Resend), Ok(true));
    }
    assert!(sent(&mut play).iter().all(|s| s == "PAY do 1"));
    play.feed(cancel()).unwrap();
    play.mail.clear();
    play.feed(Input::Resend).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"].iter().rev().copied().collect::<Vec<_>>());
    assert_eq!((play.saga.steps[2].attempts, play.saga.steps[2].undo_attempts), (1, 1));
}

#[test]
fn rule_12_a_refused_publish_is_no_attempt() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    for resend in [false, false, true, false, true] {
        play.mail.clear();
        play.feed(refused(&play, "PAY", Half::Do, resend)).unwrap();
        tick(&mut play);
        assert_eq!(sent(&mut play), ["PAY do 1"]);
    }
    play.feed(cancel()).unwrap();
    for _ in 0..5 {
        play.mail.clear();
        play.feed(refused(&play, "PAY", Half::Undo, false)).unwrap();
        tick(&mut play);
        assert!(sent(&mut play).contains(&"PAY undo 1".to_owned()));
    }
    assert_eq!(play.feed(refused(&play, "PAY", Half::Do, false)), Ok(false), "nothing of it is awaited");
}

#[test]
fn rule_11_a_refused_publish_does_not_hide_that_another_one_was_stored() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(Input::Resend).unwrap();
    play.mail.truncate(1); // one of the two is stored
    play.feed(refused(&play, "PAY", Half::Do, false)).unwrap();
    play.feed(cancel()).unwrap();
    play.run();
    assert_eq!(play.undone(), ["PAY", "RESERVE"]);
    play.assert_nothing_is_left();
}

#[test]
fn rule_11_a_resend_into_an_open_breaker_is_held_and_spends_nothing() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.closed.insert("payments".into());
    play.feed(Input::Resend).unwrap();
    assert_eq!((play.status("PAY"), play.saga.state()), (Status::Held, State::Held));
    assert_eq!(play.feed(released("payments")), Ok(false), "it is still open");
    play.closed.clear();
    play.feed(released("payments")).unwrap();
    assert_eq!(sent(&mut play), ["PAY do 1"]);
}

#[test]
fn an_open_breaker_holds_undos_and_spends_no_attempt() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.closed.insert("payments".into());
    play.feed(cancel()).unwrap();
    assert_eq!((sent(&mut play), play.undo("PAY")), (vec!["RESERVE undo 1".to_owned()], Undo::Held));
    assert_eq!(play.saga.state(), State::Held);
    play.closed.clear();
    play.feed(released("payments")).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1"]);
}

#[test]
fn a_pause_keeps_a_held_step_from_beginning() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    play.closed.insert("bookings".into());
    play.start();
    play.feed(act(OperatorAction::Pause)).unwrap();
    play.closed.clear();
    play.feed(released("bookings")).unwrap();
    assert_eq!((sent(&mut play).len(), play.saga.state()), (0, State::Paused));
    play.feed(act(OperatorAction::Resume)).unwrap();
    assert_eq!(sent(&mut play), ["RESERVE do 1"]);
}

#[test]
fn a_held_step_that_was_never_sent_leaves_nothing_to_undo() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    play.closed.insert("bookings".into());
    play.start();
    assert_eq!(play.status("RESERVE"), Status::Held);
    play.feed(cancel()).unwrap();
    assert_eq!((play.saga.phase, play.mail.len()), (Phase::Compensated, 0));
}
