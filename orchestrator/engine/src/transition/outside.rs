//! What people and other programs do to a saga: signals and operator actions.

use serde_json::Value;

use super::Run;
use crate::definition::Kind;
use crate::input::{Illegal, OperatorAction, What};
use crate::state::{Phase, Reason, Status, Undo};

impl Run<'_, '_> {
    /// A signal outside its wait is refused, never kept; so is one after the end, whose timer may not have fired yet.
    pub(super) fn signal(&mut self, name: &str, payload: Value) -> Result<(), Illegal> {
        let at = self.saga.at;
        let refusal = || Illegal::NotAwaited(name.to_owned());
        let Some(step) = self.definition.steps.get(at) else { return Err(refusal()) };
        if self.passed_deadline().is_some() {
            return Err(refusal());
        }
        let now = self.moment.now;
        let state = &mut self.saga.steps[at];
        match (&step.kind, state.status, state.undo) {
            (Kind::Wait(wait), Status::Waiting(until), _) if wait.signal == name && until.is_none_or(|t| t > now) => {
                state.status = Status::Done;
                state.output = payload;
                self.tell_step(What::Signalled, at);
            }
            (Kind::Command(command), Status::Pending(_), Undo::None)
                if command.replaced_by.as_deref() == Some(name) && command.undo.is_some() =>
            {
                state.replacement = (!payload.is_null()).then_some(payload);
                self.tell_step(What::Replaced, at);
                self.send_undo(at);
            }
            _ => return Err(refusal()),
        }
        Ok(())
    }

    pub(super) fn act(&mut self, action: OperatorAction, actor: &str, reason: &str) -> Result<(), Illegal> {
        match action {
            OperatorAction::Cancel { code } => {
                self.may_unwind()?;
                self.note(What::Cancelled, actor, reason);
                self.begin_unwinding(Reason { code, message: reason.to_owned(), step: self.current() });
            }
            OperatorAction::Retry => {
                self.may_retry()?;
                self.note(What::RetriedByHand, actor, reason);
                self.retry_now();
            }
            OperatorAction::Skip { output } => {
                self.may_skip()?;
                let step = &mut self.saga.steps[self.saga.at];
                step.status = Status::Skipped;
                step.output = output;
                self.note(What::Skipped, actor, reason);
            }
            OperatorAction::Pause => {
                if self.saga.phase == Phase::Unwinding {
                    return Err(Illegal::Unwinding);
                }
                if self.saga.paused {
                    return Err(Illegal::NotNow("it is paused already"));
                }
                self.saga.paused = true;
                self.note(What::Paused, actor, reason);
            }
            OperatorAction::Resume => {
                if !self.saga.paused {
                    return Err(Illegal::NotNow("it is not paused"));
                }
                self.saga.paused = false;
                self.note(What::Resumed, actor, reason);
            }
            OperatorAction::Resolve { step } => {
                let at = self.definition.position(&step).ok_or(Illegal::NoSuchStep(step))?;
                if self.saga.steps[at].undo != Undo::GaveUp {
                    return Err(Illegal::NotNow("the step's undo has not given up"));
                }
                self.saga.steps[at].undo = Undo::Resolved;
                self.clear_attention(at);
                self.note(What::Resolved, actor, reason);
                if self.saga.phase == Phase::Forward {
                    self.replace(at);
                }
            }
            OperatorAction::Abandon => {
                if self.saga.awaits_no_return(self.definition).is_some() || self.saga.past_no_return(self.definition) {
                    return Err(Illegal::PastNoReturn);
                }
                self.saga.phase = Phase::Abandoned;
                self.note(What::Abandoned, actor, reason);
            }
        }
        Ok(())
    }

    fn may_unwind(&self) -> Result<(), Illegal> {
        if self.saga.phase == Phase::Unwinding {
            return Err(Illegal::Unwinding);
        }
        if self.saga.past_no_return(self.definition) || self.saga.awaits_no_return(self.definition).is_some() {
            return Err(Illegal::PastNoReturn);
        }
        Ok(())
    }

    /// The point of no return is never skipped; what comes after it may be.
    fn may_skip(&self) -> Result<(), Illegal> {
        if self.saga.phase == Phase::Unwinding {
            return Err(Illegal::Unwinding);
        }
        match self.definition.command(self.saga.at) {
            None => Err(Illegal::NotNow("a wait is not skipped; send its signal")),
            Some(command) if command.no_return => Err(Illegal::PastNoReturn),
            Some(_) if self.saga.steps[self.saga.at].undo != Undo::None => {
                Err(Illegal::NotNow("its round is being replaced"))
            }
            Some(_) if self.passed_deadline().is_some() => Err(Illegal::NotNow("a deadline has passed")),
            Some(_) => Ok(()),
        }
    }

    fn may_retry(&self) -> Result<(), Illegal> {
        if self.passed_deadline().is_some() {
            return Err(Illegal::NotNow("a deadline has passed"));
        }
        let any = (0..self.saga.steps.len()).any(|at| self.effect_waits(at) || self.undo_waits(at));
        if any { Ok(()) } else { Err(Illegal::NotNow("nothing waits to be tried again")) }
    }

    fn effect_waits(&self, at: usize) -> bool {
        let step = &self.saga.steps[at];
        self.saga.phase == Phase::Forward
            && step.undo == Undo::None
            && matches!(step.status, Status::Backoff(_) | Status::Pending(_))
    }

    fn undo_waits(&self, at: usize) -> bool {
        matches!(self.saga.steps[at].undo, Undo::GaveUp | Undo::Backoff(_) | Undo::Pending(_))
    }

    fn retry_now(&mut self) {
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else { continue };
            match self.saga.steps[at].status {
                Status::Pending(_) if self.effect_waits(at) => self.repeat(at, command),
                _ if self.effect_waits(at) => self.send(at, command),
                _ if self.undo_waits(at) => {
                    // All its attempts again; what was sent stays counted as dispatched.
                    let step = &mut self.saga.steps[at];
                    step.undo_attempts = step.undo_attempts.min(1);
                    self.clear_attention(at);
                    self.send_undo(at);
                }
                _ => {}
            }
        }
    }
}
