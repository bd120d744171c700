//! A crash after every prefix of the history, followed by recovery.

use eventicket_saga::testing::{Behaviour, Play};
use eventicket_saga::{Half, Phase};

use super::{Case, cancel, each, summary};

/// A play with something that happens to it, which is to end the same with and without crashes.
type Scenario<'a> = (String, Box<dyn Fn() -> Play<'a> + 'a>);

/// All goes well; each step is rejected, or is slow at first; and each undo is slow while a later step is rejected.
fn scenarios<'a>(case: &'a Case<'a>) -> Vec<Scenario<'a>> {
    let mut all: Vec<Scenario<'a>> = vec![("all goes well".into(), Box::new(|| case.started()))];
    for step in case.sample.takes {
        for behaviour in [Behaviour::Reject("no".into()), Behaviour::Retry(1), Behaviour::Pending(1)] {
            let name = format!("{step} {behaviour:?}");
            let play = move || {
                let mut play = case.started();
                play.world.behave(step, Half::Do, behaviour.clone());
                for slow in case.sample.takes.iter().filter(|_| behaviour == Behaviour::Reject("no".into())) {
                    play.world.behave(slow, Half::Undo, Behaviour::Pending(1));
                }
                play
            };
            all.push((name, Box::new(play)));
        }
    }
    all
}

#[test]
fn a_crash_after_every_prefix_ends_the_same() {
    each(|case| {
        for (name, start) in scenarios(case) {
            let mut whole = start();
            let mut steps = 0;
            while whole.step() {
                steps += 1;
            }
            assert!(steps >= 1, "{}", case.name(&name));
            for prefix in 0..=steps {
                for lost in [true, false] {
                    let mut play = start();
                    for _ in 0..prefix {
                        play.step();
                    }
                    play.crash(lost);
                    play.run();
                    let name = case.name(&format!("{name}, crashed after {prefix} of {steps}, lost: {lost}"));
                    assert_eq!(summary(&play), summary(&whole), "{name}");
                    play.assert_nothing_is_left();
                }
            }
        }
    });
}

#[test]
fn a_crash_after_every_single_step_ends_the_same() {
    each(|case| {
        for (name, start) in scenarios(case) {
            let mut whole = start();
            whole.run();
            let mut play = start();
            while play.step() {
                play.crash(false);
                assert!(play.inputs < 5_000, "{}", case.name(&name));
            }
            assert_eq!(summary(&play), summary(&whole), "{}", case.name(&name));
            play.assert_nothing_is_left();
        }
    });
}

#[test]
fn a_cancel_after_every_prefix_and_a_crash_right_behind_it_leave_nothing() {
    each(|case| {
        let mut whole = case.started();
        let mut steps = 0;
        while whole.step() {
            steps += 1;
        }
        for prefix in 0..=steps {
            for lost in [true, false] {
                let mut play = case.started();
                for _ in 0..prefix {
                    play.step();
                }
                let cancelled = play.feed(cancel()).is_ok();
                play.crash(lost);
                play.run();
                let name = case.name(&format!("cancelled after {prefix} of {steps}, lost: {lost}"));
                let phase = if cancelled { Phase::Compensated } else { Phase::Completed };
                assert_eq!(play.saga.phase, phase, "{name}");
                assert_eq!(cancelled, case.status(&play) != case.sample.ends, "{name}");
                play.assert_nothing_is_left();
            }
        }
    });
}
