//! The way back: undos of one service run one after another, latest step first; those of different services side by side.

use crate::definition::Command;
use crate::input::{Answer, Effect, Send, What};
use crate::state::{Half, Phase, Saga, Status, Undo};
use crate::transition::{Run, TIMED_OUT, millis};

/// Marks what must be undone: every dispatched step that is not recorded as rejected, skipped ones, too.
pub(crate) fn begin(saga: &mut Saga) {
    for step in &mut saga.steps {
        step.replacement = None;
        match step.status {
            Status::Held if step.attempts == 0 => step.status = Status::Idle,
            Status::Backoff(_) if step.attempts == 0 => step.status = Status::Idle,
            Status::Waiting(_) => step.status = Status::Idle,
            _ => {}
        }
    }
}

impl Run<'_, '_> {
    /// Sends the undos that may go, and ends the saga when none is left.
    pub(crate) fn unwind(&mut self) {
        if self.saga.phase != Phase::Unwinding {
            return;
        }
        for at in (0..self.saga.steps.len()).rev() {
            if self.needs_undo(at) && matches!(self.saga.steps[at].undo, Undo::None | Undo::Queued) {
                if self.later_undo_of_same_service(at) {
                    self.saga.steps[at].undo = Undo::Queued;
                } else {
                    self.send_undo(at);
                }
            }
        }
        let open = (0..self.saga.steps.len())
            .any(|at| self.needs_undo(at) && !matches!(self.saga.steps[at].undo, Undo::Done | Undo::Resolved));
        if !open {
            self.saga.phase = Phase::Compensated;
            self.tell(What::Compensated);
        }
    }

    fn needs_undo(&self, at: usize) -> bool {
        let step = &self.saga.steps[at];
        let has_undo = self.definition.command(at).is_some_and(|c| c.undo.is_some());
        // An undo that was sent is awaited, even where the effect turned out not to have happened.
        has_undo && ((step.attempts > 0 && step.status != Status::Rejected) || step.undo_attempts > 0)
    }

    fn later_undo_of_same_service(&self, at: usize) -> bool {
        let service = |at: usize| self.definition.command(at).and_then(|c| c.undo.as_ref()).map(|u| u.service.as_str());
        (at + 1..self.saga.steps.len()).any(|later| {
            service(later) == service(at)
                && self.needs_undo(later)
                && !matches!(self.saga.steps[later].undo, Undo::Done | Undo::Resolved | Undo::GaveUp)
        })
    }

    /// Sends the next attempt of a step's undo, or holds it.
    pub(crate) fn send_undo(&mut self, at: usize) {
        let Some(command) = self.definition.command(at) else { return };
        let Some(call) = &command.undo else { return };
        if self.moment.closed.contains(&call.service) {
            if self.saga.steps[at].undo != Undo::Held {
                self.saga.steps[at].undo = Undo::Held;
                self.tell_step(What::UndoHeld, at);
            }
            return;
        }
        let body = match (call.body)(&self.view()) {
            Ok(body) => body,
            Err(why) => {
                self.saga.steps[at].undo = Undo::GaveUp;
                return self.mark(at, format!("the body of its undo cannot be built: {why}"));
            }
        };
        let now = self.moment.now;
        let step = &mut self.saga.steps[at];
        step.undo_attempts += 1;
        if step.undo_attempts == 1 {
            step.sent_at = now;
        }
        step.undo = Undo::Sent(now.saturating_add(millis(command.timeout)));
        let attempt = step.undo_attempts;
        let send = Send {
            step: self.definition.steps[at].name.clone(),
            round: step.round,
            half: Half::Undo,
            attempt,
            resend: false,
            service: call.service.clone(),
            action: call.action.clone(),
            deadline: None,
            body,
        };
        self.out.effects.push(Effect::Send(send));
        self.tell_step(What::UndoDispatched, at).attempt = (attempt > 1).then_some(attempt);
    }

    pub(crate) fn undo_answered(&mut self, at: usize, attempt: u32, answer: Answer) {
        let now = self.moment.now;
        match (self.saga.steps[at].undo, answer) {
            (Undo::Done | Undo::Resolved, _) => self.out.repeated = true,
            (_, Answer::Done(_)) => {
                self.saga.steps[at].undo = Undo::Done;
                self.clear_attention(at);
                self.tell_answer(What::Undone, at, attempt);
                if self.saga.phase == Phase::Forward {
                    if let Some(payload) = self.saga.steps[at].replacement.take() {
                        self.new_round_after_replacement(at, payload);
                    }
                }
            }
            (_, Answer::Rejected { code, message }) => {
                self.tell_answer(What::UndoGaveUp, at, attempt).error = Some(code.clone());
                self.saga.steps[at].undo = Undo::GaveUp;
                self.mark(at, format!("its undo was refused: {code}: {message}"));
            }
            (_, Answer::Dead { reason }) => {
                self.tell_answer(What::Dead, at, attempt).error = Some(reason.clone());
                self.saga.steps[at].undo = Undo::GaveUp;
                self.mark(at, format!("its undo was dead-lettered: {reason}"));
            }
            (Undo::GaveUp | Undo::None | Undo::Queued | Undo::Held, _) => self.out.repeated = true,
            (_, Answer::Pending(_)) => {
                let ask = self.definition.command(at).map_or(0, |c| millis(c.ask_every));
                self.saga.steps[at].undo = Undo::Pending(now.saturating_add(ask));
                self.tell_answer(What::UndoPending, at, attempt);
            }
            (_, Answer::Expired) => self.undo_failed(at, attempt, What::UndoTimedOut, TIMED_OUT),
            (_, Answer::Retry { code }) => self.undo_failed(at, attempt, What::UndoRetrying, &code),
        }
    }

    fn undo_failed(&mut self, at: usize, attempt: u32, what: What, code: &str) {
        let Some(command) = self.definition.command(at) else { return };
        let (now, noise) = (self.moment.now, self.moment.noise);
        self.tell_answer(what, at, attempt).error = Some(code.to_owned());
        let step = &mut self.saga.steps[at];
        if step.undo_attempts < command.undo_retry.attempts {
            step.undo = Undo::Backoff(now.saturating_add(command.undo_retry.delay(step.undo_attempts, noise)));
            return;
        }
        step.undo = Undo::GaveUp;
        self.tell_step(What::UndoGaveUp, at).error = Some(code.to_owned());
        self.mark(at, format!("its undo gave up after {} attempts: {code}", command.undo_retry.attempts));
    }

    /// Whether a timer of the step's undo fired.
    pub(crate) fn undo_timer(&mut self, at: usize, _command: &Command) -> bool {
        let now = self.moment.now;
        match self.saga.steps[at].undo {
            Undo::Sent(due) if due <= now => {
                let attempt = self.saga.steps[at].undo_attempts;
                self.undo_failed(at, attempt, What::UndoTimedOut, TIMED_OUT);
            }
            Undo::Backoff(due) if due <= now => self.send_undo(at),
            Undo::Pending(due) if due <= now => self.repeat(at, Half::Undo),
            _ => return false,
        }
        true
    }
}
