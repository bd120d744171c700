//! The way forward: entering steps, sending their effects or holding them, new rounds.

use eventicket_json::Json;

use super::{DEFINITION_ERROR, Run};
use crate::definition::{Command, Kind};
use crate::input::{Effect, Send, What};
use crate::state::{Half, NEVER, Phase, Status, StepState, Undo};
use eventicket_planted::Fault;

impl Run<'_, '_> {
    pub(super) fn forward(&mut self) {
        while self.saga.phase == Phase::Forward {
            let at = self.saga.at;
            if at >= self.saga.steps.len() {
                self.saga.phase = Phase::Completed;
                self.tell(What::Completed);
                return;
            }
            let (status, undo) = (self.saga.steps[at].status, self.saga.steps[at].undo);
            match status {
                // Its round is being replaced: whatever it brought is undone first.
                _ if undo != Undo::None => return,
                Status::Done | Status::Omitted | Status::Skipped => self.saga.at += 1,
                Status::Rejected | Status::Unknown if self.best_effort(at) => self.saga.at += 1,
                Status::Idle if !self.enter(at) => return,
                Status::Idle => {}
                _ => return,
            }
        }
    }

    /// Begins a step; false where the saga must stay before it.
    fn enter(&mut self, at: usize) -> bool {
        let definition = self.definition;
        let step = &definition.steps[at];
        if step.on_unwinding {
            self.saga.steps[at].status = Status::Omitted;
            return true;
        }
        let first_round = self.saga.steps[at].round == 1;
        if let Some(condition) = &step.condition {
            // A wait that is gone back to is taken whatever its condition says.
            if (first_round || definition.command(at).is_some()) && !condition(&self.view()) {
                self.saga.steps[at].status = Status::Omitted;
                self.tell_step(What::Omitted, at);
                return true;
            }
        }
        if self.saga.paused {
            return false;
        }
        match &step.kind {
            Kind::Wait(wait) => {
                let until = wait.timeout.as_ref().map(|(t, _)| self.after(*t));
                self.saga.steps[at].status = Status::Waiting(until);
                self.saga.steps[at].sent_at = self.moment.now;
                self.tell_step(What::Waiting, at);
                if let Some(why) = &wait.by_hand {
                    self.mark(at, why.clone());
                }
                false
            }
            Kind::Command(command) => {
                self.send(at, command);
                true
            }
        }
    }

    /// Sends the next attempt of a step's effect, or holds it. An attempt is spent only when it is sent, and once only
    /// where its publish was refused.
    pub(super) fn send(&mut self, at: usize, command: &Command) {
        let again = self.saga.steps[at].again;
        self.dispatch(at, command, again);
    }

    /// Sends the current attempt again; no attempt is spent.
    pub(super) fn repeat(&mut self, at: usize, command: &Command) {
        self.dispatch(at, command, true);
    }

    fn dispatch(&mut self, at: usize, command: &Command, again: bool) {
        if self.moment.closed.contains(&command.call.service) {
            return self.hold(at, command, again);
        }
        let body = match (command.call.body)(&self.view()) {
            Ok(body) => body,
            Err(why) => return self.unsendable(at, command, &why),
        };
        let due = self.after(command.timeout);
        let step = &mut self.saga.steps[at];
        let resend = again && !step.unsent;
        if !again || (resend && Fault::ResendSpendsAttempt.is_planted()) {
            step.attempts += 1;
            if step.attempts == 1 {
                step.sent_at = self.moment.now;
            }
        }
        step.again = false;
        step.unsent = false;
        step.status = Status::Sent(due);
        let send = Send {
            step: self.definition.steps[at].name.clone(),
            round: step.round,
            half: Half::Do,
            question: None,
            attempt: step.attempts,
            resend,
            service: command.call.service.clone(),
            action: command.call.action.clone(),
            deadline: (!command.no_return).then_some(due),
            body,
        };
        self.out.effects.push(Effect::Send(send));
        self.tell_step(if resend { What::Resent } else { What::Dispatched }, at);
    }

    /// The breaker of its service is open. A pending round is merely asked later.
    fn hold(&mut self, at: usize, command: &Command, again: bool) {
        let later = self.ask_later(command);
        let step = &mut self.saga.steps[at];
        if step.pending {
            step.status = Status::Pending(later);
            return;
        }
        step.again = again;
        if step.status != Status::Held {
            step.status = Status::Held;
            self.tell_step(What::Held, at);
        }
    }

    /// When a pending round is asked again, ms.
    pub(super) fn ask_later(&self, command: &Command) -> i64 {
        self.after(command.ask_every).max(self.moment.now.saturating_add(1))
    }

    /// The body cannot be built, which is a defect of the definition.
    fn unsendable(&mut self, at: usize, command: &Command, why: &str) {
        if self.saga.steps[at].attempts == 0 {
            // Nothing was sent in this round.
            self.tell_step(What::Rejected, at).error = Some(DEFINITION_ERROR.to_owned());
            self.reject(at, DEFINITION_ERROR, why);
        } else if command.no_return {
            // Past its dispatch only its answer decides.
            self.saga.steps[at].status = Status::Pending(NEVER);
            self.mark(at, format!("its body cannot be built: {why}"));
        } else {
            self.give_up(at, DEFINITION_ERROR, why);
        }
    }

    /// Goes back to a wait; every step from it up to `last` takes a new round.
    pub(super) fn next_round(&mut self, wait: usize, last: usize) {
        for at in wait..=last {
            let step = &mut self.saga.steps[at];
            let next = if Fault::SameRound.is_planted() { step.round } else { step.round + 1 };
            let (round, error, rejections) = (next, step.error.take(), step.rejections);
            *step = StepState { round, error, rejections, ..StepState::idle() };
        }
        self.saga.at = wait;
    }

    /// The replaced round is undone, or did not happen: the next one begins.
    pub(super) fn replace(&mut self, at: usize) {
        let payload = self.saga.steps[at].replacement.take().unwrap_or(Json::NULL);
        // The wait whose signal it was holds the payload for the body to read.
        let signal = self.definition.command(at).and_then(|c| c.replaced_by.as_ref());
        let wait = (0..at)
            .rev()
            .find(|&w| matches!(&self.definition.steps[w].kind, Kind::Wait(wait) if Some(&wait.signal) == signal));
        if let Some(wait) = wait {
            self.saga.steps[wait].status = Status::Done;
            self.saga.steps[wait].output = payload;
        }
        let (round, rejections) = (self.saga.steps[at].round + 1, self.saga.steps[at].rejections);
        self.saga.steps[at] = StepState { round, rejections, ..StepState::idle() };
    }
}
