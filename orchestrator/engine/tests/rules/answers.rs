//! 6.1, 6.2, 6.10, 6.13: what answers mean.

use super::*;
use eventicket_saga::testing::Behaviour;
use eventicket_saga::{Phase, Status, What};

#[test]
fn rule_02_undos_and_confirm_have_no_deadline() {
    let definition = booking();
    let deadline = |play: &Play<'_>| match &play.mail[0] {
        eventicket_saga::testing::Message::Command(send) => send.deadline,
        eventicket_saga::testing::Message::Reply(_) => panic!("a reply"),
    };
    let mut play = reserved(&definition, json!({}));
    assert_eq!(deadline(&play), Some(play.now + 10_000));
    play.mail.clear();
    play.feed(cancel()).unwrap();
    assert_eq!(deadline(&play), None);
    let mut play = reserved(&definition, json!({ "free": true }));
    assert_eq!(deadline(&play), None);
    play.mail.clear();
}

#[test]
fn rule_02_expired_concerns_one_send_only() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    tick(&mut play); // the first attempt times out
    tick(&mut play); // the second one is sent
    assert_eq!(play.feed(answer("PAY", 1, Answer::Expired)), Ok(false));
    assert!(matches!(play.status("PAY"), Status::Sent(_)));
    play.feed(answer("PAY", 1, done())).unwrap();
    assert_eq!(play.status("PAY"), Status::Done, "an answer to any attempt answers the round");
}

#[test]
fn rule_01_a_transient_failure_that_comes_twice_spends_one_attempt() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, busy())).unwrap();
    assert_eq!(play.feed(answer("PAY", 1, busy())), Ok(false));
    tick(&mut play);
    assert_eq!(play.feed(answer("PAY", 1, busy())), Ok(false), "the second attempt is under way");
    assert_eq!(play.saga.steps[2].attempts, 2);
}

#[test]
fn a_code_after_which_trying_again_is_pointless_ends_the_attempts() {
    let definition = with(booking(), "PAY", |c| c.retry.not_on = vec!["busy".into()]);
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, busy())).unwrap();
    assert_eq!((play.status("PAY"), reason(&play)), (Status::Unknown, "busy"));
}

#[test]
fn rule_10_answers_to_what_is_answered_undone_or_ended_change_nothing() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.world.behave("PAY", Half::Do, Behaviour::Deaf);
    play.world.behave("RESERVE", Half::Undo, Behaviour::Retry(2));
    play.run();
    assert_eq!(play.saga.phase, Phase::Compensated);
    for late in [done(), rejected(), pending(), busy(), dead(), Answer::Expired] {
        assert_eq!(play.feed(answer("PAY", 1, late.clone())), Ok(false), "undone and ended");
        assert_eq!(play.feed(undo_answer("PAY", 1, late)), Ok(false));
    }
    assert_eq!(play.feed(answer("RESERVE", 1, done())), Ok(false));
}

#[test]
fn rule_10_a_contradiction_and_an_answer_to_what_was_never_sent_are_refused() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    let contradicts = Err(Illegal::Contradiction("RESERVE".into()));
    assert_eq!(play.feed(answer("RESERVE", 1, rejected())), contradicts);
    let never = |step: &str| Err(Illegal::NeverDispatched(step.into()));
    assert_eq!(play.feed(answer("CONFIRM", 1, done())), never("CONFIRM"));
    assert_eq!(play.feed(undo_answer("RESERVE", 1, done())), never("RESERVE"));
    let future = Input::Answer { step: "PAY".into(), round: 2, half: Half::Do, attempt: 1, answer: done() };
    assert_eq!(play.feed(future), never("PAY"));
    assert_eq!(play.feed(answer("SING", 1, done())), Err(Illegal::NoSuchStep("SING".into())));
}

#[test]
fn rule_10_a_live_saga_whose_answer_was_dead_lettered_is_marked() {
    let definition = booking();
    let mark = || Input::Mark { step: "PAY".into(), reason: "it was answered otherwise before".into() };
    let mut play = reserved(&definition, json!({}));
    assert_eq!((play.feed(mark()), play.feed(mark())), (Ok(true), Ok(false)));
    assert_eq!((play.saga.attention.len(), play.told(What::Attention)), (1, vec!["PAY"]));
    let mut ended = reserved(&definition, json!({}));
    ended.run();
    assert_eq!(ended.feed(mark()), Ok(false));
}

#[test]
fn rule_10_an_answer_to_an_earlier_round_changes_nothing() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(answer("PAY", 1, rejected())).unwrap();
    assert_eq!(play.saga.steps[2].round, 2);
    for late in [done(), rejected(), pending(), dead()] {
        assert_eq!(play.feed(answer("PAY", 1, late)), Ok(false));
    }
}

#[test]
fn rule_13_a_dead_do_unwinds_with_its_own_undo() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.world.behave("PAY", Half::Do, Behaviour::Dead);
    play.run();
    assert_eq!((reason(&play), play.undone()), ("dead_lettered", vec!["PAY", "RESERVE"]));
    assert_eq!(play.saga.steps[2].attempts, 1, "its sending stops");
    play.assert_nothing_is_left();
}

#[test]
fn a_best_effort_step_that_fails_does_not_unwind() {
    let definition = booking();
    for behaviour in [Behaviour::Reject("no".into()), Behaviour::Deaf, Behaviour::Dead] {
        let mut play = reserved(&definition, json!({}));
        play.world.behave("NOTIFY", Half::Do, behaviour);
        play.run();
        assert_eq!(play.saga.phase, Phase::Completed);
        assert_eq!(play.feed(answer("NOTIFY", 1, Answer::Expired)), Ok(false), "it has ended");
        play.assert_nothing_is_left();
    }
}

#[test]
fn a_body_that_cannot_be_built_rejects_what_was_never_sent() {
    let broken = with(booking(), "PAY", |c| {
        c.call = Call::new("payments", "charge", |_| Err("no method".into()));
    });
    assert!(matches!(broken.command(2).unwrap().on_rejection, OnRejection::BackTo { .. }), "it is no decline");
    let mut play = Play::new(&broken, json!({}).into(), world());
    play.start();
    play.run();
    assert_eq!((reason(&play), play.undone()), ("definition_error", vec!["RESERVE"]));
    assert_eq!(play.told(What::Rejected), ["PAY"]);
}
