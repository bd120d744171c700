//! What events is told of bookings' decision.

use eventicket_contracts::codes;
use eventicket_contracts::events::Settle;
use eventicket_contracts::sagas::PUBLISH_EVENT;
use eventicket_saga::testing::{Behaviour, Message, Play};
use eventicket_saga::{Half, Phase};

use super::{Case, each};

/// Calls `test` with the newest version.
fn newest(mut test: impl FnMut(&Case<'_>)) {
    each(|case| {
        if case.sample.kind == PUBLISH_EVENT && case.definition.version == 2 {
            test(case);
        }
    });
}

/// What `events.settle` is told, in order, until the saga ends.
fn told(play: &mut Play<'_>) -> Vec<(String, Option<String>)> {
    let mut told: Vec<(String, Option<String>)> = Vec::new();
    loop {
        for message in &play.mail {
            if let Message::Command(send) = message
                && send.service == "events"
                && told.last().is_none_or(|(step, _)| *step != send.step)
            {
                told.push((send.step.clone(), send.body.read::<Settle>().unwrap().refused));
            }
        }
        if !play.step() {
            return told;
        }
    }
}

#[test]
fn rule_14_events_is_told_what_bookings_decides() {
    newest(|case| {
        let mut accepted = case.started();
        assert_eq!(told(&mut accepted), [("SETTLE".to_owned(), None)]);
        assert_eq!((accepted.saga.phase, case.status(&accepted)), (Phase::Completed, "accepted"));
        let mut refused = case.started();
        refused.world.behave("OFFER", Half::Do, Behaviour::Reject(codes::BELOW_SOLD.into()));
        assert_eq!(told(&mut refused), [("REVERT".to_owned(), Some(codes::BELOW_SOLD.to_owned()))]);
        assert_eq!((refused.saga.phase, case.status(&refused)), (Phase::Compensated, "refused"));
    });
}

#[test]
fn rule_14_a_refusal_is_told_until_events_answers() {
    newest(|case| {
        let mut play = case.started();
        play.world.behave("OFFER", Half::Do, Behaviour::Reject(codes::HAS_BOOKINGS.into()));
        play.world.behave("REVERT", Half::Do, Behaviour::Mute);
        for _ in 0..200 {
            assert!(play.step());
        }
        assert_eq!((play.saga.phase, case.status(&play)), (Phase::Unwinding, "refused"), "it has not ended");
        play.world.behave_well();
        play.run();
        assert_eq!(play.saga.phase, Phase::Compensated);
        play.assert_nothing_is_left();
    });
}
