//! Every command and every reply comes twice and in any order, a cancel at any time: undos overtake their dos.

use eventicket_saga::testing::{Behaviour, Choices, Play};
use eventicket_saga::{Half, Phase};

use super::{Case, cancel, each};

/// Most orders that are tried one after the other, for each case; the rest is drawn from seeds.
const MOST_ORDERS: usize = 2_000;
/// Seeds for each case.
const SEEDS: u64 = 400;

/// Plays to the end; what comes next is chosen. True where the saga was cancelled.
fn play_in_some_order(play: &mut Play<'_>, mut cancels: bool, choices: &mut Choices) -> bool {
    let mut cancelled = false;
    loop {
        // With nothing under way, time passes or the awaited signal comes.
        let idle = play.mail.is_empty() && !play.saga.ended();
        let alternatives = play.mail.len() + usize::from(idle) + usize::from(cancels);
        if alternatives == 0 {
            return cancelled;
        }
        let which = choices.choose(alternatives);
        if which < play.mail.len() {
            play.deliver(which);
        } else if idle && which == 0 {
            assert!(play.wait(), "it is stuck: {:?}", play.saga);
        } else {
            cancels = false;
            cancelled = play.feed(cancel()).is_ok();
        }
    }
}

/// Calls `test` with many orders of each case: all of them where they are few.
fn in_any_order(case: &Case<'_>, mut test: impl FnMut(&mut Choices)) -> usize {
    let mut every = Choices::every();
    let mut tried = 0;
    loop {
        test(&mut every);
        tried += 1;
        if tried == MOST_ORDERS || !every.advance() {
            break;
        }
    }
    if tried == MOST_ORDERS {
        for seed in 0..SEEDS {
            test(&mut Choices::random(seed ^ (case.sample.name.len() as u64) << 32));
        }
    }
    tried
}

#[test]
fn every_message_twice_and_in_any_order_completes_once() {
    each(|case| {
        in_any_order(case, |choices| {
            let mut play = case.play();
            play.doubled = true;
            play.start();
            play_in_some_order(&mut play, false, choices);
            assert_eq!((play.saga.phase, case.status(&play)), (Phase::Completed, case.sample.ends));
            let effects = play.world.happened.iter().map(|(half, step, _)| (*half, step.as_str()));
            assert!(effects.eq(case.sample.takes.iter().map(|step| (Half::Do, *step))), "{:?}", play.world.happened);
            play.assert_nothing_is_left();
        });
    });
}

#[test]
fn a_cancel_at_any_time_leaves_nothing_or_comes_too_late() {
    let mut undo_first = 0;
    each(|case| {
        let (mut cancels, mut completes) = (0, 0);
        for doubled in [false, true] {
            in_any_order(case, |choices| {
                let mut play = case.play();
                play.doubled = doubled;
                play.start();
                let cancelled = play_in_some_order(&mut play, true, choices);
                let phase = if cancelled { Phase::Compensated } else { Phase::Completed };
                assert_eq!(play.saga.phase, phase);
                play.assert_nothing_is_left();
                cancels += usize::from(cancelled);
                completes += usize::from(!cancelled);
                // An undo of what never happened: it came first.
                let happened = |half, step: &str| play.world.happened.iter().any(|(h, s, _)| *h == half && s == step);
                let undone = play.undone();
                undo_first += undone.iter().filter(|step| !happened(Half::Do, step)).count();
            });
        }
        let too_late = case.sample.takes.first().is_some_and(|first| case.command(first).no_return);
        assert!(completes > 0 && (cancels > 0 || too_late), "{}", case.name("both ends are met"));
    });
    assert!(undo_first > 100, "undos overtook their dos {undo_first} times");
}

#[test]
fn a_failure_with_every_message_twice_and_in_any_order_leaves_nothing() {
    each(|case| {
        for step in case.sample.takes {
            for behaviour in
                [Behaviour::Reject("no".into()), Behaviour::Mute, Behaviour::Retry(2), Behaviour::Pending(2)]
            {
                if case.command(step).no_return && behaviour == Behaviour::Mute {
                    continue; // is sent for ever
                }
                for seed in 0..SEEDS / 8 {
                    let mut play = case.play();
                    play.doubled = true;
                    play.world.behave(step, Half::Do, behaviour.clone());
                    play.start();
                    play_in_some_order(&mut play, false, &mut Choices::random(seed));
                    play.assert_nothing_is_left();
                }
            }
        }
    });
}
