//! The way back: undos of one service run one after another, latest step first; those of different services side by side.

use super::{Run, TIMED_OUT};
use crate::input::{Answer, Effect, Send, What};
use crate::state::{Half, Phase, Saga, Status, Undo};

/// What was sent may have happened; what was not is as if it had never begun. Effects have no timers from here on: only
/// a late answer can still tell what became of them.
fn begin(saga: &mut Saga) {
    for step in &mut saga.steps {
        step.replacement = None;
        if step.undo == Undo::None {
            step.again = false;
        }
        step.unsent = false;
        step.status = match step.status {
            Status::Waiting(_) => Status::Idle,
            Status::Held | Status::Sent(_) | Status::Backoff(_) | Status::Pending(_) if step.attempts == 0 => {
                Status::Idle
            }
            Status::Held | Status::Sent(_) | Status::Backoff(_) | Status::Pending(_) => Status::Unknown,
            other => other,
        };
    }
}

impl Run<'_, '_> {
    /// Ends the way forward; what fences were to decide on it is decided.
    pub(super) fn turn_back(&mut self) {
        for at in 0..self.saga.steps.len() {
            self.drop_fence(at);
            if matches!(self.saga.steps[at].status, Status::Waiting(_)) {
                self.clear_attention(at);
            }
        }
        begin(self.saga);
    }

    /// Sends the undos that may go, and ends the saga when none is left.
    pub(super) fn unwind(&mut self) {
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
        for at in 0..self.saga.steps.len() {
            self.enter_on_unwinding(at);
        }
        let under_way = |at: usize| {
            let waits = matches!(
                self.saga.steps[at].status,
                Status::Held | Status::Sent(_) | Status::Backoff(_) | Status::Pending(_)
            );
            self.definition.steps[at].on_unwinding && waits
        };
        let undoing =
            |at: usize| self.needs_undo(at) && !matches!(self.saga.steps[at].undo, Undo::Done | Undo::Resolved);
        if !(0..self.saga.steps.len()).any(|at| undoing(at) || under_way(at)) {
            self.saga.phase = Phase::Compensated;
            self.tell(What::Compensated);
        }
    }

    /// Sends the command of a step of the way back, once its condition holds.
    fn enter_on_unwinding(&mut self, at: usize) {
        let step = &self.definition.steps[at];
        let begins = matches!(self.saga.steps[at].status, Status::Idle | Status::Omitted);
        let holds = || step.condition.as_ref().is_none_or(|condition| condition(&self.view()));
        if !step.on_unwinding || !begins || !holds() {
            return;
        }
        if let Some(command) = self.definition.command(at) {
            self.send(at, command);
        }
    }

    /// Every dispatched step that is not recorded as rejected, skipped ones, too.
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
    pub(super) fn send_undo(&mut self, at: usize) {
        let again = self.saga.steps[at].again;
        self.dispatch_undo(at, again);
    }

    /// Sends the current attempt of a step's undo again; no attempt is spent.
    pub(super) fn repeat_undo(&mut self, at: usize) {
        self.dispatch_undo(at, true);
    }

    fn dispatch_undo(&mut self, at: usize, again: bool) {
        let Some(command) = self.definition.command(at) else { return };
        let Some(call) = &command.undo else { return };
        if self.moment.closed.contains(&call.service) {
            return self.hold_undo(at, again);
        }
        let body = match (call.body)(&self.view()) {
            Ok(body) => body,
            Err(why) => {
                self.saga.steps[at].undo = Undo::GaveUp;
                return self.mark(at, format!("the body of its undo cannot be built: {why}"));
            }
        };
        let due = self.after(command.timeout);
        let step = &mut self.saga.steps[at];
        if !again {
            step.undo_attempts += 1;
            if step.undo_attempts == 1 {
                step.sent_at = self.moment.now;
            }
        }
        step.again = false;
        step.undo = Undo::Sent(due);
        let attempt = step.undo_attempts;
        let send = Send {
            step: self.definition.steps[at].name.clone(),
            round: step.round,
            half: Half::Undo,
            question: None,
            attempt,
            resend: again,
            service: call.service.clone(),
            action: call.action.clone(),
            deadline: None,
            body,
        };
        self.out.effects.push(Effect::Send(send));
        let what = if again { What::Resent } else { What::UndoDispatched };
        self.tell_step(what, at).attempt = (attempt > 1).then_some(attempt);
    }

    fn hold_undo(&mut self, at: usize, again: bool) {
        let step = &mut self.saga.steps[at];
        step.again = again;
        if step.undo != Undo::Held {
            step.undo = Undo::Held;
            self.tell_step(What::UndoHeld, at);
        }
    }

    pub(super) fn undo_answered(&mut self, at: usize, attempt: u32, answer: Answer) {
        let (undo, attempts) = (self.saga.steps[at].undo, self.saga.steps[at].undo_attempts);
        match (undo, answer) {
            (Undo::Done | Undo::Resolved, _) => self.out.repeated = true,
            (_, Answer::Fenced(_)) => self.out.repeated = true,
            (_, Answer::Done(output)) => {
                let step = &mut self.saga.steps[at];
                step.undo = Undo::Done;
                step.undo_output = output;
                step.fence = None;
                self.clear_attention(at);
                self.tell_answer(What::Undone, at, attempt);
                if self.saga.phase == Phase::Forward {
                    self.replace(at);
                }
            }
            (Undo::None | Undo::Queued | Undo::GaveUp, _) => self.out.repeated = true,
            (_, Answer::Rejected { code, message }) => {
                self.undo_gave_up(at, &code, format!("its undo was refused: {code}: {message}"));
            }
            (_, Answer::Dead { reason }) => {
                self.tell_step(What::Dead, at).error = Some(reason.clone());
                self.undo_gave_up(at, super::DEAD, format!("its undo was dead-lettered: {reason}"));
            }
            (Undo::Pending(_), Answer::Pending(_)) => self.out.repeated = true,
            (_, Answer::Pending(_)) => {
                let later = self.definition.command(at).map_or(self.moment.now, |c| self.ask_later(c));
                self.saga.steps[at].undo = Undo::Pending(later);
                self.saga.steps[at].again = false;
                self.tell_answer(What::UndoPending, at, attempt);
            }
            // Only the attempt under way can fail; what comes of an earlier one, or twice, spends nothing.
            (Undo::Sent(_), Answer::Expired) if attempt == attempts => {
                self.undo_failed(at, attempt, What::UndoTimedOut, TIMED_OUT);
            }
            (Undo::Sent(_), Answer::Retry { code }) if attempt == attempts => {
                self.undo_failed(at, attempt, What::UndoRetrying, &code);
            }
            (_, Answer::Expired | Answer::Retry { .. }) => self.out.repeated = true,
        }
    }

    fn undo_failed(&mut self, at: usize, attempt: u32, what: What, code: &str) {
        let Some(command) = self.definition.command(at) else { return };
        let (now, noise) = (self.moment.now, self.moment.noise);
        self.tell_answer(what, at, attempt).error = Some(code.to_owned());
        let step = &mut self.saga.steps[at];
        let hopeless = command.undo_retry.not_on.iter().any(|c| c == code);
        if step.undo_attempts - step.undo_spent < command.undo_retry.attempts && !hopeless {
            step.undo = Undo::Backoff(
                now.saturating_add(command.undo_retry.delay(step.undo_attempts - step.undo_spent, noise)),
            );
            return;
        }
        let why = format!("its undo gave up at attempt {}: {code}", step.undo_attempts);
        self.undo_gave_up(at, code, why);
    }

    fn undo_gave_up(&mut self, at: usize, code: &str, why: String) {
        self.saga.steps[at].undo = Undo::GaveUp;
        self.saga.steps[at].again = false;
        self.tell_step(What::UndoGaveUp, at).error = Some(code.to_owned());
        self.mark(at, why);
    }

    /// Whether a timer of the step's undo fired.
    pub(super) fn undo_timer(&mut self, at: usize, now: i64) -> bool {
        match self.saga.steps[at].undo {
            Undo::Sent(due) if due <= now => {
                let attempt = self.saga.steps[at].undo_attempts;
                self.undo_failed(at, attempt, What::UndoTimedOut, TIMED_OUT);
            }
            Undo::Backoff(due) if due <= now => self.send_undo(at),
            Undo::Pending(due) if due <= now => self.repeat_undo(at),
            _ => return false,
        }
        true
    }
}
