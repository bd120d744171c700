//! 6.1, 6.13: the way back.

use super::*;
use eventicket_saga::testing::Behaviour;
use eventicket_saga::{Found, Json, Phase, Recorded, Status, Undo};

#[test]
fn rule_01_an_undo_may_overtake_its_do() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(cancel()).unwrap();
    // Under way: PAY do, PAY undo, RESERVE undo.
    play.deliver(1);
    play.deliver(0);
    play.run();
    assert_eq!(play.undone(), ["PAY", "RESERVE"]);
    play.assert_nothing_is_left();
}

#[test]
fn rule_02_only_rejected_leaves_nothing_to_undo() {
    let definition = booking();
    for open in [Some(Answer::Expired), Some(busy()), None] {
        let mut play = reserved(&definition, json!({}));
        while play.saga.phase == Phase::Forward {
            play.mail.clear(); // it may have happened, whatever was answered
            let attempt = play.saga.steps[2].attempts;
            match open.clone().filter(|_| matches!(play.status("PAY"), Status::Sent(_))) {
                Some(open) => play.feed(answer("PAY", attempt, open)).map(drop).unwrap(),
                None => tick(&mut play),
            }
        }
        assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"], "{open:?}");
    }
}

#[test]
fn a_late_answer_is_noted_while_its_undo_is_under_way() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(cancel()).unwrap();
    play.mail.clear();
    assert_eq!(play.status("PAY"), Status::Unknown);
    assert_eq!(play.feed(answer("PAY", 1, pending())), Ok(false));
    assert_eq!(play.feed(answer("PAY", 1, done())), Ok(true));
    play.feed(undo_answer("RESERVE", 1, done())).unwrap();
    assert_eq!(play.saga.phase, Phase::Unwinding, "the refund is awaited");
    play.feed(undo_answer("PAY", 1, done())).unwrap();
    assert_eq!((play.saga.phase, play.status("PAY")), (Phase::Compensated, Status::Done));
}

#[test]
fn an_undo_that_was_sent_is_awaited_even_where_nothing_had_happened() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(cancel()).unwrap();
    play.feed(answer("PAY", 1, rejected())).unwrap();
    play.feed(undo_answer("RESERVE", 1, done())).unwrap();
    assert_eq!(play.saga.phase, Phase::Unwinding);
    play.feed(undo_answer("PAY", 1, done())).unwrap();
    assert_eq!(play.saga.phase, Phase::Compensated);
}

#[test]
fn an_undo_that_was_not_sent_is_dropped_where_nothing_had_happened() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.closed.insert("payments".into());
    play.feed(cancel()).unwrap();
    assert_eq!(play.undo("PAY"), Undo::Held);
    play.feed(answer("PAY", 1, rejected())).unwrap();
    assert_eq!(play.undo("PAY"), Undo::None);
    play.feed(undo_answer("RESERVE", 1, done())).unwrap();
    assert_eq!(play.saga.phase, Phase::Compensated, "no breaker keeps it");
}

#[test]
fn rule_13_an_undo_that_gave_up_stays_marked_until_nothing_is_left_to_undo() {
    let definition = booking();
    // A rejection may come of the undo itself: it does not tell that nothing is left.
    for (undo, late) in [(dead(), done()), (rejected(), done()), (dead(), rejected()), (rejected(), rejected())] {
        let mut play = reserved(&definition, json!({}));
        play.feed(cancel()).unwrap();
        play.feed(undo_answer("RESERVE", 1, done())).unwrap();
        play.feed(undo_answer("PAY", 1, undo.clone())).unwrap();
        assert_eq!((play.undo("PAY"), play.saga.attention.len()), (Undo::GaveUp, 1));
        assert_eq!(play.feed(undo_answer("PAY", 1, undo)), Ok(false));
        play.feed(answer("PAY", 1, late)).unwrap();
        assert_eq!((play.saga.ended(), play.saga.attention.len()), (false, 1));
    }
}

#[test]
fn an_undo_is_tried_as_often_as_its_policy_says_then_marked_then_tried_by_hand() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.world.behave("PAY", Half::Undo, Behaviour::Deaf);
    play.feed(cancel()).unwrap();
    play.run();
    assert_eq!((play.undo("PAY"), play.saga.steps[2].undo_attempts), (Undo::GaveUp, 3));
    assert_eq!(play.saga.attention[0].step, "PAY");
    play.world.behave_well();
    play.feed(act(OperatorAction::Retry)).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Compensated, 0));
    play.assert_nothing_is_left();
}

#[test]
fn rule_06_a_pending_refund_waits_without_spending_attempts() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.deliver(0);
    play.world.behave("PAY", Half::Undo, Behaviour::Pending(50));
    play.feed(cancel()).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.saga.steps[2].undo_attempts), (Phase::Compensated, 1));
    play.assert_nothing_is_left();
}

#[test]
fn rule_13_undos_of_different_services_run_side_by_side_and_of_one_service_latest_first() {
    let call = |service: &str, action: &str| Call::new(service, action, |_| Ok(Json::NULL));
    let step =
        |name: &str, service: &str| Step::command(name, Command::new(call(service, "do")).undo(call(service, "undo")));
    let steps = vec![step("A", "x"), step("B", "y"), step("C", "x"), step("D", "z")];
    let definition = Definition { name: "order".into(), version: 1, steps, deadlines: vec![] };
    let mut play = Play::new(&definition, Json::NULL, world());
    play.world.behave("D", Half::Do, Behaviour::Reject("no".into()));
    play.start();
    while play.saga.phase == Phase::Forward {
        play.step();
    }
    assert_eq!(sent(&mut play), ["C undo 1", "B undo 1"], "D was rejected; A waits for C");
    play.feed(undo_answer("C", 1, done())).unwrap();
    assert_eq!(sent(&mut play), ["A undo 1"]);
}

#[test]
fn rule_13_a_skipped_step_that_was_sent_is_undone() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(act(OperatorAction::Pause)).unwrap();
    play.feed(act(OperatorAction::Skip { output: Json::NULL })).unwrap();
    play.mail.remove(0); // lost; its fence is under way
    play.deliver(0);
    play.deliver(0);
    assert_eq!(play.status("PAY"), Status::Skipped);
    assert_eq!(play.feed(answer("PAY", 1, rejected())), Ok(false));
    play.feed(cancel()).unwrap();
    play.run();
    assert_eq!(play.undone(), ["PAY", "RESERVE"]);
    play.assert_nothing_is_left();
}

/// PAY is pending and a signal replaces it: its undo is under way.
fn replacing(definition: &Definition) -> Play<'_> {
    let mut play = reserved(definition, json!({ "wait": true }));
    play.feed(method()).unwrap();
    play.feed(answer("PAY", 1, pending())).unwrap();
    play.mail.clear();
    play.feed(method()).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1"]);
    play
}

#[test]
fn rule_01_a_replaced_round_is_undone_before_the_next_one_begins() {
    let definition = booking();
    let mut play = replacing(&definition);
    assert_eq!(play.feed(method()), Err(Illegal::NotAwaited("method".into())));
    assert_eq!(play.feed(Input::Timer), Ok(false), "nobody asks for what is being undone");
    play.feed(answer("PAY", 1, done())).unwrap();
    assert_eq!(play.status("CONFIRM"), Status::Idle, "a charge that is being refunded pays for nothing");
    assert!(not_now(play.feed(act(OperatorAction::Skip { output: Json::NULL }))));
    play.feed(undo_answer("PAY", 1, done())).unwrap();
    assert_eq!((sent(&mut play), play.saga.steps[2].round), (vec!["PAY do 1".to_owned()], 2));
    assert_eq!(play.saga.steps[1].output, json!("card"));
}

#[test]
fn rule_01_a_replaced_round_that_is_rejected_waits_for_its_undo() {
    let definition = booking();
    let mut play = replacing(&definition);
    // It may be the undo that had it rejected, and a refund may still be under way.
    play.feed(answer("PAY", 1, rejected())).unwrap();
    assert_eq!((sent(&mut play), play.saga.steps[2].round), (vec![], 1));
    play.feed(undo_answer("PAY", 1, done())).unwrap();
    assert_eq!((sent(&mut play), play.saga.steps[2].round), (vec!["PAY do 1".to_owned()], 2));
}

#[test]
fn rule_04_a_replaced_round_that_succeeded_does_not_hold_the_end_off() {
    let definition = booking();
    let mut play = replacing(&definition);
    play.feed(answer("PAY", 1, done())).unwrap();
    play.feed(undo_answer("PAY", 1, pending())).unwrap();
    play.now = 1_800_000_000_000 + HOLD;
    play.feed(Input::Timer).unwrap();
    assert_eq!((play.saga.phase, reason(&play)), (Phase::Unwinding, "hold_expired"));
}

#[test]
fn rule_06_a_pending_round_is_replaced_also_while_it_is_asked_for() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "wait": true }));
    play.feed(method()).unwrap();
    play.feed(answer("PAY", 1, pending())).unwrap();
    tick(&mut play); // asked
    assert!(matches!(play.status("PAY"), Status::Sent(_)));
    play.mail.clear();
    play.feed(method()).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1"]);
}

#[test]
fn replacements_are_no_declines() {
    let definition = booking();
    let mut play = reserved(&definition, json!({ "wait": true }));
    play.feed(method()).unwrap();
    for round in 1..5 {
        let pay = |half, answer| Input::Answer { step: "PAY".into(), round, half, attempt: 1, answer };
        play.feed(pay(Half::Do, pending())).unwrap();
        play.feed(method()).unwrap();
        play.feed(pay(Half::Undo, done())).unwrap();
    }
    let declined = Input::Answer { step: "PAY".into(), round: 5, half: Half::Do, attempt: 1, answer: rejected() };
    play.feed(declined).unwrap();
    assert_eq!((play.status("AWAIT"), play.saga.steps[2].round), (Status::Waiting(None), 6));
}

#[test]
fn a_replaced_round_whose_undo_gives_up_goes_on_once_it_is_resolved() {
    let definition = booking();
    let mut play = replacing(&definition);
    play.feed(undo_answer("PAY", 1, dead())).unwrap();
    assert_eq!(play.saga.attention.len(), 1);
    play.feed(act(OperatorAction::Resolve { step: "PAY".into() })).unwrap();
    assert_eq!(sent(&mut play), ["PAY fence 1"]);
    let found = Found { id: 1, effect: Recorded::Closed, undo: Some(Recorded::Closed) };
    let fence =
        Input::Answer { step: "PAY".into(), round: 1, half: Half::Fence, attempt: 1, answer: Answer::Fenced(found) };
    play.feed(fence).unwrap();
    assert_eq!((sent(&mut play), play.saga.attention.len()), (vec!["PAY do 1".to_owned()], 0));
}

#[test]
fn a_cancel_while_a_round_is_replaced_awaits_its_undo() {
    let definition = booking();
    let mut play = replacing(&definition);
    play.feed(cancel()).unwrap();
    assert_eq!(sent(&mut play), ["RESERVE undo 1"]);
    play.feed(undo_answer("RESERVE", 1, done())).unwrap();
    play.feed(undo_answer("PAY", 1, done())).unwrap();
    assert_eq!((play.saga.phase, play.saga.steps[2].round), (Phase::Compensated, 1));
}

#[test]
fn rule_04_the_end_of_the_hold_while_a_round_is_replaced_unwinds() {
    let definition = booking();
    let mut play = replacing(&definition);
    play.now = 1_800_000_000_000 + HOLD - 1;
    play.now += 1;
    play.feed(Input::Timer).unwrap();
    assert_eq!((play.saga.phase, reason(&play)), (Phase::Unwinding, "hold_expired"));
}
