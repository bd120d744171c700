//! Every saga of the platform, in every version: each step fails in turn, every command comes twice and in any order,
//! the orchestrator crashes after every prefix of the history.
//!
//! The services are those of [`eventicket_saga::testing`], which keep to the protocol. A new kind of saga needs a sample
//! in [`samples`].

mod booking;
mod crashes;
mod failures;
mod orders;
mod publish_event;
mod rules;
mod samples;

use eventicket_contracts::codes;
use eventicket_orchestrator::sagas::{Catalogue, Kind, catalogue};
use eventicket_saga::testing::{Behaviour, Play, World};
use eventicket_saga::{Command, Definition, Half, Input, OperatorAction, Phase, What};

use samples::{SAMPLES, Sample};

/// A sample under one version of its definition.
struct Case<'a> {
    sample: &'a Sample,
    definition: &'a Definition,
    kind: &'a Kind,
}

/// Calls `test` for each sample under each version of its definition.
fn each(mut test: impl FnMut(&Case<'_>)) {
    let catalogue = catalogue().unwrap();
    for sample in SAMPLES {
        let kind = catalogue.kind(sample.kind).unwrap();
        for definition in &kind.definitions {
            test(&Case { sample, definition, kind });
        }
    }
}

impl<'a> Case<'a> {
    /// A play that has not begun.
    fn play(&self) -> Play<'a> {
        let mut world = World::new(std::sync::Arc::new(self.sample.outputs));
        for (step, other) in self.sample.needs {
            world.needs(step, other);
        }
        let mut play = Play::new(self.definition, (self.sample.input)(), world);
        play.signals = (self.sample.signals)();
        play.by_hand = true;
        play
    }

    /// A play that has begun.
    fn started(&self) -> Play<'a> {
        let mut play = self.play();
        play.start();
        play
    }

    fn command(&self, step: &str) -> &'a Command {
        self.definition.position(step).and_then(|at| self.definition.command(at)).unwrap()
    }

    fn status(&self, play: &Play<'_>) -> &'static str {
        (self.kind.status)(&play.saga)
    }

    fn name(&self, what: &str) -> String {
        format!("{} v{}, {}, {what}", self.definition.name, self.definition.version, self.sample.name)
    }
}

fn cancel() -> Input {
    let action = OperatorAction::Cancel { code: codes::CANCELLED.into() };
    Input::Act { action, actor: "customer".into(), reason: "changed my mind".into() }
}

/// What a crash, a repetition or another order must not change.
fn summary(play: &Play<'_>) -> String {
    let steps = play.saga.steps.iter().map(|s| {
        let status = format!("{:?}", s.status);
        let undo = format!("{:?}", s.undo);
        format!("{}/{}/{}", status.split('(').next().unwrap(), undo.split('(').next().unwrap(), s.round)
    });
    let standing: Vec<_> = play.world.standing().collect();
    let reason = play.saga.reason.as_ref().map(|r| (&r.code, &r.step));
    format!("{:?} {reason:?} {:?} {standing:?}", play.saga.phase, steps.collect::<Vec<_>>())
}

#[test]
fn every_kind_of_saga_has_a_sample() {
    let Catalogue { registry, .. } = catalogue().unwrap();
    for definition in registry.iter() {
        let sampled: Vec<_> = SAMPLES.iter().filter(|s| s.kind == definition.name).collect();
        assert!(!sampled.is_empty(), "{} has no sample in samples.rs", definition.name);
        for step in definition.steps.iter().map(|s| s.name.as_str()) {
            let at = definition.position(step).unwrap();
            let back = definition.steps[at].on_unwinding;
            let taken = definition.command(at).is_none() || back || sampled.iter().any(|s| s.takes.contains(&step));
            assert!(taken, "no sample of {} takes {step}", definition.name);
        }
    }
}

#[test]
fn each_sample_is_acceptable_and_completes() {
    each(|case| {
        (case.kind.check)(&(case.sample.input)()).unwrap();
        let mut play = case.started();
        play.run();
        assert_eq!(play.saga.phase, Phase::Completed, "{}", case.name("alone"));
        assert_eq!(play.told(What::Done), case.sample.takes, "{}", case.name("alone"));
        assert_eq!(case.status(&play), case.sample.ends, "{}", case.name("alone"));
        play.assert_nothing_is_left();
    });
}

#[test]
fn a_booking_that_nobody_pays_expires() {
    each(|case| {
        if !case.sample.name.contains("without a payment method") {
            return;
        }
        let mut play = case.started();
        play.signals.clear();
        play.run();
        assert_eq!((play.saga.phase, case.status(&play)), (Phase::Compensated, "expired"));
        assert_eq!(play.now, samples::hold_until(&play.saga), "at the hold's very end");
        assert_eq!(play.undone(), ["RESERVE"]);
        play.assert_nothing_is_left();
    });
}

#[test]
fn each_step_of_the_way_back_takes_place_when_the_last_step_that_can_fail_does() {
    each(|case| {
        let back = case.definition.steps.iter().filter(|s| s.on_unwinding).map(|s| s.name.as_str());
        let back: Vec<&str> = back.collect();
        let Some(last) = case.sample.takes.iter().find(|s| case.command(s).no_return) else { return };
        let mut play = case.started();
        play.world.behave(last, Half::Do, Behaviour::Reject("no".into()));
        play.run();
        assert_eq!(play.saga.phase, Phase::Compensated);
        // A free booking has no money to tell of.
        let told: Vec<&str> = play.told(What::Done).into_iter().filter(|s| back.contains(s)).collect();
        let expected = if case.sample.name == "free" { Vec::new() } else { back };
        assert_eq!(told, expected, "{}", case.name("the way back"));
    });
}
