//! Steps of the way back, and steps that an operator does by hand.

use super::*;
use eventicket_saga::testing::Behaviour;
use eventicket_saga::{Json, Phase, Status, What};

/// The booking, with a mail on its way back once PAY is known to have happened, now or by what its undo brought.
fn with_mail() -> Definition {
    let mut definition = booking();
    let mail = Command::new(Call::new("notifications", "send", |_| Ok(json!("sorry").into()))).retry(retry(3));
    let charged = |v: &eventicket_saga::View<'_>| v.is_done("PAY") || v.undo_output("PAY").is_some();
    definition.steps.push(Step::command("MAIL", mail).when(charged).on_unwinding());
    definition.validate().unwrap();
    definition
}

#[test]
fn a_step_of_the_way_back_is_left_out_on_the_way_forward() {
    let definition = with_mail();
    let mut play = reserved(&definition, json!({}));
    play.run();
    assert_eq!((play.saga.phase, play.status("MAIL")), (Phase::Completed, Status::Omitted));
    assert_eq!(play.told(What::Done), ["RESERVE", "PAY", "CONFIRM", "NOTIFY"]);
}

#[test]
fn it_takes_place_as_soon_as_its_condition_holds_and_the_saga_ends_after_it() {
    let definition = with_mail();
    let mut play = reserved(&definition, json!({}));
    play.world.behave("CONFIRM", Half::Do, Behaviour::Reject("hold_gone".into()));
    play.run();
    assert_eq!((play.saga.phase, play.status("MAIL")), (Phase::Compensated, Status::Done));
    // Not charged: no mail.
    let mut play = reserved(&definition, json!({}));
    play.world.behave("PAY", Half::Do, Behaviour::Reject("declined".into()));
    play.saga.steps[2].round = 3;
    play.run();
    assert_eq!((play.saga.phase, play.told(What::Done)), (Phase::Compensated, vec!["RESERVE"]));
}

#[test]
fn what_is_known_by_the_undo_only_counts_too() {
    let definition = with_mail();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.feed(cancel()).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"]);
    play.feed(undo_answer("RESERVE", 1, done())).unwrap();
    play.feed(undo_answer("PAY", 1, Answer::Done(json!({ "amount": 7 }).into()))).unwrap();
    assert_eq!((sent(&mut play), play.saga.phase), (vec!["MAIL do 1".to_owned()], Phase::Unwinding));
    play.feed(answer("MAIL", 1, done())).unwrap();
    assert_eq!(play.saga.phase, Phase::Compensated);
}

#[test]
fn its_failure_does_not_keep_the_saga() {
    let definition = with_mail();
    for behaviour in [Behaviour::Deaf, Behaviour::Dead, Behaviour::Reject("no".into()), Behaviour::Retry(2)] {
        let mut play = reserved(&definition, json!({}));
        play.world.behave("CONFIRM", Half::Do, Behaviour::Reject("hold_gone".into()));
        play.world.behave("MAIL", Half::Do, behaviour.clone());
        play.run();
        assert_eq!(play.saga.phase, Phase::Compensated, "{behaviour:?}");
        assert_eq!(play.status("MAIL") == Status::Done, behaviour == Behaviour::Retry(2));
        play.assert_nothing_is_left();
    }
}

#[test]
fn a_step_of_the_way_back_has_no_undo() {
    let mut definition = with_mail();
    let undo = Call::new("notifications", "unsend", |_| Ok(Json::NULL));
    definition = with(definition, "MAIL", |c| c.undo = Some(undo));
    assert!(definition.validate().unwrap_err().problem.contains("way back"));
}

#[test]
fn a_step_by_hand_is_marked_until_it_is_resolved() {
    let steps = vec![Step::by_hand("GIVE_BACK", "the money is still here")];
    let definition = Definition { name: "repair".into(), version: 1, steps, deadlines: vec![] };
    definition.validate().unwrap();
    let mut play = Play::new(&definition, Json::NULL, world());
    play.start();
    assert_eq!(play.saga.attention[0].reason, "the money is still here");
    assert_eq!(play.saga.next_due(&definition), None);
    assert!(not_now(play.feed(act(OperatorAction::Skip { output: Json::NULL }))));
    play.feed(act(OperatorAction::Resolve { step: "GIVE_BACK".into() })).unwrap();
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Completed, 0));
    let resolved = play.history.iter().find(|e| e.what == What::Resolved).unwrap();
    assert_eq!((resolved.actor.as_deref(), resolved.reason.as_deref()), (Some("ann"), Some("because")));
}
