//! 6.13: fences. Before an operator's action takes an outcome into its own hands, the service tells what is recorded.

use super::*;
use eventicket_saga::testing::Behaviour;
use eventicket_saga::{Found, Json, Phase, Recorded, State, Status, Undo, What};

fn fenced(step: &str, id: u32, effect: Recorded, undo: Option<Recorded>) -> Input {
    let answer = Answer::Fenced(Found { id, effect, undo });
    Input::Answer { step: step.into(), round: 1, half: Half::Fence, attempt: 1, answer }
}

fn skip() -> Input {
    act(OperatorAction::Skip { output: json!("by hand").into() })
}

fn compensate() -> Input {
    act(OperatorAction::Compensate)
}

fn abandon(force: bool) -> Input {
    act(OperatorAction::Abandon { force })
}

fn resolve(step: &str) -> Input {
    act(OperatorAction::Resolve { step: step.into() })
}

/// PAY was dispatched and lost; only its fence is under way.
fn skipping(definition: &Definition) -> Play<'_> {
    let mut play = reserved(definition, json!({}));
    play.mail.clear();
    play.feed(skip()).unwrap();
    assert_eq!(sent(&mut play), ["PAY fence 1"]);
    play
}

#[test]
fn rule_13_a_skip_waits_for_what_its_service_has_recorded() {
    let definition = booking();
    let nothing = [Recorded::Closed, Recorded::Rejected { code: "declined".into() }];
    for effect in nothing {
        let mut play = skipping(&definition);
        assert_eq!((play.saga.state(), play.status("CONFIRM")), (State::Running, Status::Idle));
        play.feed(fenced("PAY", 1, effect, None)).unwrap();
        assert_eq!((play.status("PAY"), play.saga.steps[2].output.value()), (Status::Skipped, json!("by hand")));
        assert_eq!(sent(&mut play), ["CONFIRM do 1"]);
    }
    let mut play = skipping(&definition);
    play.feed(fenced("PAY", 1, Recorded::Done(json!("paid").into()), None)).unwrap();
    assert_eq!(
        (play.status("PAY"), play.saga.steps[2].output.value()),
        (Status::Done, json!("paid")),
        "it happened after all"
    );
    assert_eq!(sent(&mut play), ["CONFIRM do 1"]);
}

#[test]
fn rule_13_a_step_that_was_never_dispatched_is_skipped_at_once() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    play.closed.insert("payments".into());
    play.start();
    play.deliver(0);
    play.deliver(0);
    assert_eq!(play.status("PAY"), Status::Held);
    play.feed(skip()).unwrap();
    assert_eq!((play.status("PAY"), sent(&mut play)), (Status::Skipped, vec!["CONFIRM do 1".to_owned()]));
}

#[test]
fn rule_13_a_late_or_replayed_do_of_a_skipped_step_is_refused() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    let late = play.mail.clone();
    play.mail.clear();
    play.feed(skip()).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.status("PAY")), (Phase::Completed, Status::Skipped));
    play.mail.extend(late);
    play.run();
    assert!(!play.world.stands("PAY", 1), "no money is kept");
    play.assert_nothing_is_left();
}

#[test]
fn rule_13_a_fence_is_asked_until_it_is_answered_and_spends_no_attempt() {
    let definition = booking();
    let mut play = skipping(&definition);
    for attempt in 2..20 {
        tick(&mut play);
        assert_eq!(sent(&mut play), [format!("PAY fence {attempt}")]);
    }
    play.feed(Input::Resend).unwrap();
    play.feed(act(OperatorAction::Retry)).unwrap();
    assert_eq!(sent(&mut play), ["PAY fence 20", "PAY fence 21"]);
    play.feed(refused(&play, "PAY", Half::Fence, false)).unwrap();
    tick(&mut play);
    assert_eq!((sent(&mut play), play.saga.steps[2].attempts), (vec!["PAY fence 22".to_owned()], 1));
    play.closed.insert("payments".into());
    tick(&mut play);
    assert!(sent(&mut play).is_empty(), "nothing is sent to a service that is held");
    play.closed.clear();
    tick(&mut play);
    assert_eq!(sent(&mut play), ["PAY fence 23"]);
    assert!(not_now(play.feed(skip())), "its service is being asked");
}

#[test]
fn rule_13_the_effects_own_answer_may_overtake_the_fences() {
    let definition = booking();
    let mut play = skipping(&definition);
    for nothing in [busy(), pending(), Answer::Expired, dead()] {
        assert_eq!(play.feed(answer("PAY", 1, nothing)), Ok(false), "of the rest the fence tells");
    }
    play.feed(answer("PAY", 1, done())).unwrap();
    assert_eq!(sent(&mut play), ["CONFIRM do 1"]);
    assert_eq!(play.feed(fenced("PAY", 1, Recorded::Done(json!("late").into()), None)), Ok(false), "it says the same");
    assert_eq!(play.status("PAY"), Status::Done);
    let mut play = skipping(&definition);
    play.feed(answer("PAY", 1, rejected())).unwrap();
    assert_eq!((play.status("PAY"), play.saga.phase), (Status::Skipped, Phase::Forward), "it has what it asked for");
}

#[test]
fn rule_13_a_cancel_takes_a_fenced_step_back() {
    let definition = booking();
    let mut play = skipping(&definition);
    play.feed(cancel()).unwrap();
    assert_eq!(sent(&mut play), ["PAY undo 1", "RESERVE undo 1"]);
    assert_eq!(play.feed(fenced("PAY", 1, Recorded::Closed, None)), Ok(false));
    let early = play.feed(fenced("PAY", 2, Recorded::Closed, None));
    assert_eq!(early, Ok(false), "nobody waits for it");
    assert_eq!(play.status("PAY"), Status::Unknown);
}

#[test]
fn rule_13_a_fence_that_is_dead_is_marked_and_tried_again_by_hand() {
    let definition = booking();
    let mut play = skipping(&definition);
    let poison = Input::Answer { step: "PAY".into(), round: 1, half: Half::Fence, attempt: 1, answer: dead() };
    play.feed(poison.clone()).unwrap();
    assert_eq!((play.saga.attention[0].step.as_str(), play.saga.steps[2].due()), ("PAY", None));
    assert_eq!(play.feed(poison), Ok(false));
    play.feed(act(OperatorAction::Retry)).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Completed, 0));
}

#[test]
fn rule_13_a_dead_confirm_completes_or_unwinds_by_what_is_recorded() {
    let definition = booking();
    for (effect, phase) in [
        (Recorded::Done(json!("tickets").into()), Phase::Completed),
        (Recorded::Closed, Phase::Compensated),
        (Recorded::Rejected { code: "hold_gone".into() }, Phase::Compensated),
    ] {
        let mut play = reserved(&definition, json!({ "free": true }));
        play.mail.clear();
        assert_eq!(play.feed(compensate()), Err(Illegal::PastNoReturn), "its answer may still come");
        play.feed(answer("CONFIRM", 1, dead())).unwrap();
        play.feed(compensate()).unwrap();
        assert_eq!(sent(&mut play), ["CONFIRM fence 1"]);
        assert!(not_now(play.feed(compensate())));
        for other in [cancel(), abandon(false), abandon(true)] {
            assert_eq!(play.feed(other), Err(Illegal::PastNoReturn));
        }
        play.feed(fenced("CONFIRM", 1, effect, None)).unwrap();
        play.run();
        assert_eq!((play.saga.phase, play.saga.attention.len()), (phase, 0));
    }
}

#[test]
fn an_operator_unwinds_from_where_it_stands() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(act(OperatorAction::Pause)).unwrap();
    play.feed(compensate()).unwrap();
    play.run();
    assert_eq!((play.saga.phase, reason(&play)), (Phase::Compensated, "operator"));
    assert_eq!(play.feed(compensate()), Err(Illegal::Ended));
    play.assert_nothing_is_left();
}

/// PAY happened, and its undo was refused for good.
fn gave_up(definition: &Definition) -> Play<'_> {
    let mut play = reserved(definition, json!({}));
    play.deliver(0);
    play.world.behave("PAY", Half::Undo, Behaviour::Reject("no".into()));
    play.feed(cancel()).unwrap();
    play.run();
    assert_eq!(play.undo("PAY"), Undo::GaveUp);
    play
}

#[test]
fn rule_13_a_resolved_undo_is_closed_so_that_nobody_is_paid_back_twice() {
    let definition = booking();
    let mut play = gave_up(&definition);
    play.feed(resolve("PAY")).unwrap();
    assert!(not_now(play.feed(resolve("PAY"))), "its service is being asked");
    assert_eq!(play.undo("PAY"), Undo::GaveUp, "not before the service has told");
    let replayed = {
        let mut play = play.clone();
        play.world.behave_well();
        play.run();
        play
    };
    assert_eq!((replayed.saga.phase, replayed.undo("PAY")), (Phase::Compensated, Undo::Resolved));
    let resolved = replayed.history.iter().find(|e| e.what == What::Resolved).unwrap();
    assert_eq!((resolved.step.as_deref(), resolved.actor.as_deref()), (Some("PAY"), Some("ann")));
    // The undo had happened after all.
    play.mail.clear();
    play.feed(fenced("PAY", 1, Recorded::Done(Json::NULL), Some(Recorded::Done(json!("back").into())))).unwrap();
    assert_eq!((play.undo("PAY"), play.saga.steps[2].undo_output.value()), (Undo::Done, json!("back")));
    assert_eq!(play.saga.phase, Phase::Compensated);
}

#[test]
fn an_undo_that_is_tried_again_by_hand_is_a_new_try_to_its_service() {
    let definition = booking();
    let mut play = gave_up(&definition);
    for attempt in 2..6 {
        play.feed(act(OperatorAction::Retry)).unwrap();
        assert_eq!(sent(&mut play), [format!("PAY undo {attempt}")]);
        play.feed(undo_answer("PAY", attempt, rejected())).unwrap();
    }
    assert_eq!(play.undo("PAY"), Undo::GaveUp);
}

#[test]
fn rule_13_an_abandoned_saga_ends_when_its_fences_have_told() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(abandon(false)).unwrap();
    assert_eq!((play.saga.phase, play.saga.state()), (Phase::Abandoning, State::Compensating));
    assert!(not_now(play.feed(abandon(false))) && not_now(play.feed(cancel())));
    assert_eq!(play.feed(method()), Err(Illegal::NotAwaited("method".into())));
    assert_eq!(play.feed(answer("PAY", 1, done())), Ok(false), "its fence tells");
    play.mail.clear();
    play.feed(fenced("PAY", 1, Recorded::Closed, Some(Recorded::Closed))).unwrap();
    play.feed(fenced("RESERVE", 1, Recorded::Rejected { code: "x".into() }, Some(Recorded::Done(Json::NULL)))).unwrap();
    assert!(play.saga.ended() && play.saga.attention.is_empty());
    assert_eq!(play.saga.phase, Phase::Abandoned);
    assert_eq!(reason(&play), "operator");
}

#[test]
fn rule_13_what_an_abandoned_saga_left_stays_listed_until_it_is_given_back() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.deliver(0);
    play.deliver(0);
    play.feed(cancel()).unwrap_err();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.feed(abandon(false)).unwrap();
    play.run_for(1);
    // RESERVE stands; PAY never came.
    assert_eq!((play.saga.phase, play.saga.ended()), (Phase::Abandoned, false));
    assert_eq!(play.saga.attention.iter().map(|a| a.step.as_str()).collect::<Vec<_>>(), ["RESERVE"]);
    play.run_for(100);
    assert!(!play.saga.ended(), "asked anew, slowly, without a word in the history");
    let told = play.history.len();
    play.world.give_back("RESERVE", 1);
    play.run();
    assert!(play.saga.ended() && play.saga.attention.is_empty());
    assert_eq!(play.history.len(), told);
}

#[test]
fn rule_13_an_undo_that_was_refused_stays_listed_after_an_abandon() {
    let definition = booking();
    let mut play = gave_up(&definition);
    play.feed(abandon(false)).unwrap();
    play.mail.clear();
    let refused = Some(Recorded::Rejected { code: "refund_refused".into() });
    play.feed(fenced("PAY", 1, Recorded::Closed, refused)).unwrap();
    assert_eq!((play.saga.phase, play.saga.ended()), (Phase::Abandoned, false));
    assert_eq!(play.saga.attention[0].step, "PAY");
}

#[test]
fn rule_13_a_fence_that_a_breaker_holds_leaves_when_it_closes() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.closed.insert("payments".into());
    play.feed(skip()).unwrap();
    assert!(sent(&mut play).is_empty());
    play.closed.clear();
    play.feed(released("payments")).unwrap();
    assert_eq!(sent(&mut play), ["PAY fence 1"]);
    play.closed.insert("payments".into());
    play.feed(abandon(false)).unwrap();
    play.mail.clear();
    play.closed.clear();
    play.feed(released("payments")).unwrap();
    assert_eq!(sent(&mut play), ["PAY fence 1"], "also of a saga that is given up");
}

#[test]
fn a_mark_that_nothing_is_open_behind_is_taken_note_of_also_after_the_end() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.feed(Input::Mark { step: "RESERVE".into(), reason: "it was answered otherwise before".into() }).unwrap();
    play.feed(resolve("RESERVE")).unwrap();
    assert!(play.saga.attention.is_empty());
    play.feed(Input::Mark { step: "SING".into(), reason: "no such step".into() }).unwrap();
    play.run();
    assert_eq!((play.saga.phase, play.saga.attention.len()), (Phase::Completed, 1));
    play.feed(resolve("SING")).unwrap();
    assert!(play.saga.attention.is_empty());
    assert_eq!(play.feed(resolve("SING")), Err(Illegal::Ended));
}

#[test]
fn an_operator_says_that_what_an_abandoned_saga_left_was_given_back() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.feed(abandon(false)).unwrap();
    play.run_for(1);
    assert!(not_now(play.feed(resolve("PAY"))));
    play.feed(resolve("RESERVE")).unwrap();
    assert!(play.saga.ended() && play.saga.attention.is_empty());
    assert_eq!(play.undo("RESERVE"), Undo::Resolved);
    assert_eq!(play.feed(resolve("RESERVE")), Err(Illegal::Ended));
}

#[test]
fn rule_13_a_forced_abandon_does_not_wait_but_asks_on() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    play.mail.clear();
    play.world.behave("PAY", Half::Fence, Behaviour::Deaf);
    play.feed(abandon(false)).unwrap();
    play.feed(abandon(true)).unwrap();
    assert_eq!((play.saga.phase, play.saga.ended()), (Phase::Abandoned, false));
    play.run_for(50);
    assert!(!play.saga.ended());
    assert!(not_now(play.feed(resolve("PAY"))), "nobody knows yet what stands");
    play.world.behave_well();
    play.world.give_back("RESERVE", 1);
    play.run();
    assert!(play.saga.ended(), "{:?}", play.saga);
    assert!(!play.world.stands("PAY", 1));
    assert_eq!(play.told(What::Abandoned).len(), 0);
    assert_eq!(play.history.iter().filter(|e| e.what == What::Abandoned).count(), 1);
}

#[test]
fn a_saga_of_which_nothing_was_dispatched_is_abandoned_at_once() {
    let definition = booking();
    let mut play = Play::new(&definition, json!({}).into(), world());
    play.closed.insert("bookings".into());
    play.start();
    play.feed(abandon(false)).unwrap();
    assert!(play.saga.ended());
    assert_eq!(play.saga.phase, Phase::Abandoned);
}

#[test]
fn a_replay_is_noted_and_changes_nothing() {
    let definition = booking();
    let mut play = reserved(&definition, json!({}));
    let before = play.saga.steps.clone();
    play.feed(act(OperatorAction::Replayed { step: "PAY".into() })).unwrap();
    assert_eq!(play.saga.steps, before);
    let last = play.history.last().unwrap();
    assert_eq!((last.what, last.step.as_deref(), last.actor.as_deref()), (What::Replayed, Some("PAY"), Some("ann")));
}
