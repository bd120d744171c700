//! 6.3: the point of no return.

use super::*;
use eventicket_saga::testing::Behaviour;
use eventicket_saga::{Json, Phase, State, Status};

#[test]
fn rule_03_confirm_is_sent_without_limit_and_marked_after_five_minutes() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "free": true }));
    play.world.behave("CONFIRM", Half::Do, Behaviour::Deaf);
    while play.now < 1_800_000_000_000 + 290_000 {
        play.step();
    }
    assert!(play.saga.attention.is_empty());
    while play.now < 1_800_000_000_000 + 310_000 {
        play.step();
    }
    assert_eq!(play.saga.attention[0].step, "CONFIRM");
    assert!(play.saga.steps[3].attempts > 20, "the hold's end has passed, too");
    play.world.behave_well();
    play.run();
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Completed, 0));
}

#[test]
fn rule_03_an_unanswered_confirm_is_marked_while_a_breaker_holds_it() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "free": true }));
    play.closed.insert("bookings".into());
    play.feed(answer("CONFIRM", 1, busy())).unwrap();
    play.mail.clear();
    tick(&mut play);
    assert_eq!(play.status("CONFIRM"), Status::Held);
    tick(&mut play);
    assert_eq!(play.now, 1_800_000_000_000 + 300_000);
    assert_eq!(play.saga.attention[0].step, "CONFIRM");
    assert_eq!(play.saga.next_due(&definition), None);
}

#[test]
fn rule_03_cancels_deadlines_and_operators_wait_for_confirm() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "free": true }));
    play.now += HOLD;
    assert_eq!(play.feed(Input::Timer).map(|_| play.saga.phase), Ok(Phase::Forward));
    let actions = [
        OperatorAction::Cancel { code: "cancelled".into() },
        OperatorAction::Skip { output: Json::NULL },
        OperatorAction::Compensate,
        OperatorAction::Abandon { force: false },
        OperatorAction::Abandon { force: true },
    ];
    for action in actions.clone() {
        assert_eq!(play.feed(act(action)), Err(Illegal::PastNoReturn));
    }
    play.feed(refused(&play, "CONFIRM", Half::Do, false)).unwrap();
    assert_eq!(play.feed(cancel()), Err(Illegal::PastNoReturn), "its dispatch is committed");
    play.feed(answer("CONFIRM", 1, done())).unwrap();
    assert_eq!(play.feed(cancel()), Err(Illegal::PastNoReturn));
}

#[test]
fn rule_03_only_rejected_unwinds_it() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.deliver(0);
    play.deliver(0);
    play.mail.clear();
    for open in [busy(), pending()] {
        play.feed(answer("CONFIRM", 1, open)).unwrap();
        assert_eq!(play.saga.phase, Phase::Forward);
    }
    play.feed(answer("CONFIRM", 1, rejected())).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"]);
}

#[test]
fn rule_13_a_dead_confirm_is_marked_and_not_sent_again() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "free": true }));
    play.mail.clear();
    play.feed(answer("CONFIRM", 1, dead())).unwrap();
    assert_eq!((play.saga.attention.len(), play.saga.next_due(&definition)), (1, None));
    assert_eq!(play.saga.state(), State::Running);
    for late in [dead(), busy(), Answer::Expired] {
        assert_eq!(play.feed(answer("CONFIRM", 1, late)), Ok(false));
    }
    assert_eq!(play.feed(Input::Resend), Ok(false));
    // An operator may have it sent again; what is recorded of it decides.
    play.feed(act(OperatorAction::Retry)).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Completed, 0));
}

#[test]
fn rule_03_a_body_that_can_no_longer_be_built_does_not_unwind_it() {
    let definition = with(booking(), "CONFIRM", |c| {
        let once = |v: &eventicket_saga::View<'_>| v.saga.steps[3].attempts == 0;
        c.call = Call::new("bookings", "confirm", move |v| if once(v) { Ok(Json::NULL) } else { Err("gone".into()) });
    });
    let mut play = reserved(&definition, json!({ "free": true }));
    play.mail.clear();
    tick(&mut play);
    tick(&mut play);
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Forward, 1));
    assert_eq!(play.saga.next_due(&definition), None);
    play.feed(answer("CONFIRM", 1, done())).unwrap();
    play.run();
    assert_eq!(play.saga.phase, Phase::Completed);
}
