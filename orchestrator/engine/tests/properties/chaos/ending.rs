//! The continuation in which services answer in the end, and what holds then.

use eventicket_saga::state::NEVER;
use eventicket_saga::testing::Play;
use eventicket_saga::{Input, OperatorAction, Phase, Status, Undo};
use serde_json::json;

use super::Chaos;
use crate::definitions::{NAMES, SERVICES};

impl Chaos<'_, '_> {
    /// Services answer, breakers close, operators do their work: it must end.
    pub fn end_well(&mut self) {
        self.play.world.behave_well();
        self.play.closed.clear();
        for service in SERVICES {
            let _ = self.feed(Input::Released { service: service.to_owned() });
        }
        let operator = |action| Input::Act { action, actor: "ann".into(), reason: "to end it".into() };
        let mut rounds = 0;
        while !self.play.saga.ended() || !self.play.mail.is_empty() {
            rounds += 1;
            assert!(rounds < 2_000, "it does not end: {:?} {:?}", self.play.definition, self.play.saga);
            if !self.play.mail.is_empty() {
                self.deliver(0);
                continue;
            }
            if self.play.saga.paused {
                let _ = self.feed(operator(OperatorAction::Resume));
            }
            let awaited =
                self.waits_for().map(|name| Input::Signal { name, payload: json!("signal").into(), key: None });
            if awaited.is_some_and(|signal| self.feed(signal).is_ok()) {
                continue;
            }
            let stands = |s: &eventicket_saga::StepState| s.fence.as_ref().is_some_and(|f| f.stands);
            let dead = |s: &eventicket_saga::StepState| s.fence.as_ref().is_some_and(|f| f.due == NEVER);
            if self.play.saga.steps.iter().any(dead) && self.feed(operator(OperatorAction::Retry)) == Ok(true) {
                continue;
            }
            let abandoned = self.play.saga.phase == Phase::Abandoned;
            if let Some(at) = self.play.saga.steps.iter().position(stands).filter(|_| abandoned) {
                // Somebody gives back what an abandoned saga left; in half of the cases an operator says so.
                if self.choices.one_in(2) {
                    let step = NAMES[at].to_owned();
                    self.feed(operator(OperatorAction::Resolve { step })).unwrap();
                } else {
                    self.play.world.give_back(NAMES[at], self.play.saga.steps[at].round);
                    self.tick();
                }
                continue;
            }
            if self.play.saga.phase == Phase::Abandoning {
                self.play.now += 500; // what stands may be asked for every ms
            }
            if self.tick() {
                continue;
            }
            if let Some(at) = (0..self.play.saga.steps.len()).find(|at| self.by_hand(*at)) {
                self.feed(operator(OperatorAction::Resolve { step: NAMES[at].to_owned() })).unwrap();
                continue;
            }
            let gave_up = self.play.saga.steps.iter().position(|s| s.undo == Undo::GaveUp && s.fence.is_none());
            match gave_up.filter(|_| self.choices.one_in(3)) {
                Some(at) => {
                    self.by_hand = true;
                    let step = NAMES[at].to_owned();
                    self.feed(operator(OperatorAction::Resolve { step })).unwrap();
                }
                None if self.play.saga.ended() => {}
                None => {
                    let tried = self.feed(operator(OperatorAction::Retry));
                    assert_eq!(tried, Ok(true), "nobody can move it: {:?} {:?}", self.play.definition, self.play.saga);
                }
            }
        }
    }

    /// What holds at the end.
    pub fn check_end(&self) {
        let Play { saga, definition, .. } = &self.play;
        for (at, step) in saga.steps.iter().enumerate() {
            let command = definition.command(at);
            assert_eq!(step.fence, None);
            let ok = match saga.phase {
                Phase::Completed => {
                    matches!(step.status, Status::Done | Status::Omitted | Status::Skipped)
                        || command.is_some_and(|c| c.best_effort)
                            && matches!(step.status, Status::Rejected | Status::Unknown)
                }
                Phase::Compensated => {
                    step.attempts == 0
                        || step.status == Status::Rejected
                        || command.is_some_and(|c| c.undo.is_none())
                        || matches!(step.undo, Undo::Done | Undo::Resolved)
                }
                _ => true,
            };
            assert!(ok, "{} of {definition:?}: {saga:?}", definition.steps[at].name);
        }
        assert!(saga.attention.is_empty() || self.marked, "{:?}", saga.attention);
        assert_eq!(saga.next_due(definition), None);
        if !self.strays && !self.by_hand {
            self.play.assert_nothing_is_left();
        }
    }
}
