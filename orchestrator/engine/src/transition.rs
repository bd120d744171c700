//! The transition: one total match over (state, input).
//!
//! [`apply`] never panics and never waits. An input that the state does not allow is an [`Illegal`] value and leaves the
//! saga as it was; an answer that was recorded before comes back as [`Output::repeated`].

use serde_json::Value;

use crate::definition::{Command, Deadline, Definition, Kind, OnRejection, View};
use crate::input::{Answer, Effect, Illegal, Input, Moment, OperatorAction, Output, Send, What};
use crate::state::{Attention, Half, Phase, Reason, Saga, Status, StepState, Undo};
use crate::unwind;

/// Code of a step whose attempts are spent.
pub const TIMED_OUT: &str = "timed_out";
/// Code of a step that was dead-lettered.
pub const DEAD: &str = "dead_lettered";
/// Code of a step whose body could not be built.
pub const DEFINITION_ERROR: &str = "definition_error";
/// How long an unanswered point of no return goes unmarked, ms.
pub const ATTENTION_AFTER: i64 = 300_000;
/// Delay after a refused publish, ms: long enough to rebuild a stream, short against an attempt.
pub const REFUSED_DELAY: i64 = 250;

/// Feeds one input to a saga.
///
/// # Errors
/// [`Illegal`] where the state does not allow the input; the saga is unchanged then.
pub fn apply(definition: &Definition, saga: &mut Saga, input: Input, moment: &Moment<'_>) -> Result<Output, Illegal> {
    let mut run = Run { definition, saga, moment, out: Output::default() };
    run.take(input)?;
    if !run.out.repeated {
        run.settle();
    }
    Ok(run.out)
}

/// The earliest deadline that may still fire, ms.
pub(crate) fn next_deadline(definition: &Definition, saga: &Saga) -> Option<i64> {
    if saga.phase != Phase::Forward || saga.past_no_return(definition) || saga.awaits_no_return(definition).is_some() {
        return None;
    }
    let view = View { definition, saga };
    let open = definition.deadlines.iter().filter(|d| !shielded(definition, saga, d));
    open.filter_map(|d| (d.at)(&view)).min()
}

/// Whether a step that holds the deadline off is in flight, done, or skipped by an operator. A pending one is not in
/// flight, unless it is being asked for the last time.
fn shielded(definition: &Definition, saga: &Saga, deadline: &Deadline) -> bool {
    deadline.unless.iter().filter_map(|name| definition.position(name)).any(|at| {
        let step = &saga.steps[at];
        match step.status {
            Status::Done | Status::Skipped => true,
            Status::Sent(_) | Status::Backoff(_) | Status::Held => step.attempts > 0 && (!step.pending || step.last_ask),
            _ => false,
        }
    })
}

/// One transition under way.
pub(crate) struct Run<'a, 'm> {
    pub(crate) definition: &'a Definition,
    pub(crate) saga: &'a mut Saga,
    pub(crate) moment: &'a Moment<'m>,
    pub(crate) out: Output,
}

impl Run<'_, '_> {
    fn take(&mut self, input: Input) -> Result<(), Illegal> {
        match (self.saga.phase, input) {
            (_, Input::Start) if self.saga.seq > 0 => Err(Illegal::Begun),
            (Phase::Forward, Input::Start) => {
                self.tell(What::Started);
                Ok(())
            }
            (_, Input::Answer { step, round, half, attempt, answer }) => self.answer(&step, round, half, attempt, answer),
            (Phase::Completed | Phase::Compensated | Phase::Abandoned, Input::Timer | Input::Released { .. } | Input::Resend)
            | (Phase::Completed | Phase::Compensated | Phase::Abandoned, Input::Refused { .. }) => {
                self.out.repeated = true;
                Ok(())
            }
            (Phase::Completed | Phase::Compensated | Phase::Abandoned, _) => Err(Illegal::Ended),
            (_, Input::Timer) => {
                self.timers();
                Ok(())
            }
            (_, Input::Released { service }) => {
                self.released(&service);
                Ok(())
            }
            (_, Input::Refused { step, half, resend }) => self.refused(&step, half, resend),
            (_, Input::Resend) => {
                self.resend();
                Ok(())
            }
            (phase, Input::Signal { name, payload }) => self.signal(phase, &name, payload),
            (phase, Input::Act { action, actor, reason }) => self.act(phase, action, actor, reason),
            (_, Input::Start) => Err(Illegal::Begun),
        }
    }

    /// Moves on as far as it goes without another input.
    fn settle(&mut self) {
        self.deadlines();
        self.forward();
        self.unwind();
        if self.saga.ended() && self.out.history.iter().any(|e| is_end(e.what)) {
            self.out.effects.push(Effect::Ended);
        }
    }

    fn forward(&mut self) {
        while self.saga.phase == Phase::Forward {
            let at = self.saga.at;
            if at >= self.saga.steps.len() {
                self.saga.phase = Phase::Completed;
                self.tell(What::Completed);
                return;
            }
            let status = self.saga.steps[at].status;
            match status {
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
        let first_round = self.saga.steps[at].round == 1;
        if let Some(condition) = &step.condition {
            // A wait that is gone back to is taken whatever its condition says.
            if (first_round || self.definition.command(at).is_some()) && !condition(&self.view()) {
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
                let until = wait.timeout.as_ref().map(|(t, _)| self.moment.now.saturating_add(millis(*t)));
                self.saga.steps[at].status = Status::Waiting(until);
                self.tell_step(What::Waiting, at);
                false
            }
            Kind::Command(command) => {
                self.send(at, command);
                true
            }
        }
    }

    /// Sends the next attempt of a step's effect, or holds it. Spends an attempt only when it is sent.
    pub(crate) fn send(&mut self, at: usize, command: &Command) {
        if self.moment.closed.contains(&command.call.service) {
            if self.saga.steps[at].status != Status::Held {
                self.saga.steps[at].status = Status::Held;
                self.tell_step(What::Held, at);
            }
            return;
        }
        let body = match (command.call.body)(&self.view()) {
            Ok(body) => body,
            // Nothing was sent in this round unless an earlier attempt was: only then is the outcome open.
            Err(why) if self.saga.steps[at].attempts == 0 => return self.reject(at, DEFINITION_ERROR, &why),
            Err(why) => return self.give_up(at, What::Unknown, DEFINITION_ERROR, &why),
        };
        let step = &mut self.saga.steps[at];
        step.attempts += 1;
        if step.attempts == 1 {
            step.sent_at = self.moment.now;
        }
        let due = self.moment.now.saturating_add(millis(command.timeout));
        step.status = Status::Sent(due);
        let send = Send {
            step: self.definition.steps[at].name.clone(),
            round: step.round,
            half: Half::Do,
            attempt: step.attempts,
            resend: false,
            service: command.call.service.clone(),
            action: command.call.action.clone(),
            deadline: (!command.no_return).then_some(due),
            body,
        };
        self.out.effects.push(Effect::Send(send));
        self.tell_step(What::Dispatched, at);
    }

    fn answer(&mut self, name: &str, round: u32, half: Half, attempt: u32, answer: Answer) -> Result<(), Illegal> {
        let at = self.definition.position(name).ok_or_else(|| Illegal::NoSuchStep(name.to_owned()))?;
        let step = &self.saga.steps[at];
        let dispatched = match half {
            Half::Do => step.attempts > 0,
            Half::Undo => step.undo_attempts > 0,
        };
        if round > step.round || (round == step.round && !dispatched) {
            return Err(Illegal::NeverDispatched(name.to_owned()));
        }
        if round < step.round || self.saga.phase == Phase::Abandoned {
            self.out.repeated = true;
            return Ok(());
        }
        match half {
            Half::Do => self.effect_answered(at, attempt, answer),
            Half::Undo => {
                self.undo_answered(at, attempt, answer);
                Ok(())
            }
        }
    }

    fn effect_answered(&mut self, at: usize, attempt: u32, answer: Answer) -> Result<(), Illegal> {
        let name = || self.definition.steps[at].name.clone();
        match (self.saga.steps[at].status, answer) {
            (Status::Done, Answer::Rejected { .. }) | (Status::Rejected, Answer::Done(_)) => {
                // A body that could not be built was never sent; every other contradiction is a defect somewhere.
                Err(Illegal::Contradiction(name()))
            }
            (Status::Done | Status::Rejected | Status::Skipped, _) => {
                self.out.repeated = true;
                Ok(())
            }
            (_, Answer::Done(output)) => {
                let spent = self.saga.steps[at].status == Status::Unknown && self.best_effort(at);
                let step = &mut self.saga.steps[at];
                step.status = Status::Done;
                step.output = output;
                step.error = None;
                self.clear_attention(at);
                self.tell_answer(What::Done, at, attempt);
                // A best-effort step whose saga went on without it is only noted.
                self.out.repeated = spent && self.saga.ended();
                Ok(())
            }
            (_, Answer::Rejected { code, message }) => {
                self.reject_answered(at, attempt, &code, &message);
                Ok(())
            }
            // From here on nothing is final; a saga that no longer waits for it does not care.
            (Status::Unknown | Status::Idle | Status::Omitted | Status::Waiting(_), _) => {
                self.out.repeated = true;
                Ok(())
            }
            (_, Answer::Pending(output)) => {
                self.pending(at, attempt, output);
                Ok(())
            }
            (_, Answer::Retry { code }) => {
                self.transient(at, attempt, What::Retrying, &code);
                Ok(())
            }
            // An attempt that was overtaken by a later one says nothing about it.
            (_, Answer::Expired) if attempt < self.saga.steps[at].attempts => {
                self.out.repeated = true;
                Ok(())
            }
            (_, Answer::Expired) => {
                self.transient(at, attempt, What::TimedOut, TIMED_OUT);
                Ok(())
            }
            (_, Answer::Dead { reason }) => {
                self.dead(at, &reason);
                Ok(())
            }
        }
    }

    fn reject_answered(&mut self, at: usize, attempt: u32, code: &str, message: &str) {
        self.tell_answer(What::Rejected, at, attempt).error = Some(code.to_owned());
        self.reject(at, code, message);
    }

    /// A definite no: nothing of this step is left to undo.
    fn reject(&mut self, at: usize, code: &str, message: &str) {
        let step = &mut self.saga.steps[at];
        step.status = Status::Rejected;
        step.error = Some((code.to_owned(), message.to_owned()));
        self.clear_attention(at);
        if self.saga.phase != Phase::Forward || self.best_effort(at) {
            return;
        }
        let Some(command) = self.definition.command(at) else { return };
        match &command.on_rejection {
            OnRejection::BackTo { wait, rounds }
                if self.saga.steps[at].round < *rounds && self.deadline_passed().is_none() =>
            {
                if let Some(wait) = self.definition.position(wait) {
                    return self.next_round(wait, at);
                }
            }
            _ => {}
        }
        self.begin_unwinding(Reason { code: code.into(), message: message.into(), step: Some(self.name(at)) });
    }

    /// Goes back to a wait; every step from it up to `last` takes a new round.
    fn next_round(&mut self, wait: usize, last: usize) {
        for at in wait..=last {
            let step = &mut self.saga.steps[at];
            let (round, error) = (step.round + 1, step.error.take());
            *step = StepState { round, error, ..StepState::idle() };
        }
        self.saga.at = wait;
    }

    fn pending(&mut self, at: usize, attempt: u32, output: Value) {
        let now = self.moment.now;
        let Some(command) = self.definition.command(at) else { return };
        let step = &mut self.saga.steps[at];
        let news = !step.pending || step.output != output;
        step.pending = true;
        step.output = output;
        step.status = Status::Pending(now.saturating_add(millis(command.ask_every)));
        // It spends no attempt; the one that brought it must stay counted as dispatched.
        step.attempts = step.attempts.min(1).max(1);
        if news {
            self.tell_answer(What::Pending, at, attempt);
        }
        if self.saga.phase == Phase::Forward && self.saga.steps[at].last_ask {
            if let Some(code) = self.deadline_passed() {
                self.begin_unwinding(Reason { code, message: String::new(), step: Some(self.name(at)) });
            }
        }
    }

    /// An attempt brought nothing: tries again, asks again, or gives up.
    fn transient(&mut self, at: usize, attempt: u32, what: What, code: &str) {
        let now = self.moment.now;
        let noise = self.moment.noise;
        let Some(command) = self.definition.command(at) else { return };
        self.tell_answer(what, at, attempt).error = Some(code.to_owned());
        let step = &mut self.saga.steps[at];
        step.error = Some((code.to_owned(), String::new()));
        if step.pending {
            step.status = Status::Pending(now.saturating_add(millis(command.ask_every)));
            if step.last_ask && self.saga.phase == Phase::Forward {
                if let Some(code) = self.deadline_passed() {
                    self.begin_unwinding(Reason { code, message: String::new(), step: Some(self.name(at)) });
                }
            }
            return;
        }
        let hopeless = command.retry.not_on.iter().any(|c| c == code);
        if command.no_return || (step.attempts < command.retry.attempts && !hopeless) {
            step.status = Status::Backoff(now.saturating_add(command.retry.delay(step.attempts, noise)));
            return;
        }
        self.give_up(at, What::Unknown, code, "no attempt is left");
    }

    /// The outcome stays open: the saga unwinds, and this step's undo runs, too.
    fn give_up(&mut self, at: usize, what: What, code: &str, message: &str) {
        let step = &mut self.saga.steps[at];
        step.status = Status::Unknown;
        step.error = Some((code.to_owned(), message.to_owned()));
        self.tell_step(what, at).error = Some(code.to_owned());
        if self.saga.phase == Phase::Forward && !self.best_effort(at) {
            self.begin_unwinding(Reason { code: code.into(), message: message.into(), step: Some(self.name(at)) });
        }
    }

    fn dead(&mut self, at: usize, reason: &str) {
        if self.definition.command(at).is_some_and(|c| c.no_return) {
            // Only an operator's fence can tell what became of it.
            self.saga.steps[at].status = Status::Pending(i64::MAX);
            self.tell_step(What::Dead, at).error = Some(reason.to_owned());
            return self.mark(at, format!("dead-lettered: {reason}"));
        }
        self.tell_step(What::Dead, at).error = Some(reason.to_owned());
        self.give_up(at, What::Unknown, DEAD, reason);
    }

    fn timers(&mut self) {
        let now = self.moment.now;
        let mut any = false;
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else {
                if let Status::Waiting(Some(due)) = self.saga.steps[at].status {
                    if due <= now && self.saga.phase == Phase::Forward {
                        any = true;
                        self.wait_ran_out(at);
                    }
                }
                continue;
            };
            match self.saga.steps[at].status {
                Status::Sent(due) if due <= now => {
                    any = true;
                    self.overdue_no_return(at, command);
                    let attempt = self.saga.steps[at].attempts;
                    self.transient(at, attempt, What::TimedOut, TIMED_OUT);
                }
                Status::Backoff(due) if due <= now && self.saga.phase == Phase::Forward => {
                    any = true;
                    self.send(at, command);
                }
                Status::Backoff(due) if due <= now => {
                    // Unwinding: its undo runs beside, nothing is sent again.
                    any = true;
                    self.saga.steps[at].status = Status::Unknown;
                }
                Status::Pending(due) if due <= now && self.saga.phase == Phase::Forward => {
                    any = true;
                    self.repeat(at, Half::Do);
                }
                Status::Pending(due) if due <= now => {
                    any = true;
                    self.saga.steps[at].status = Status::Unknown;
                }
                _ => {}
            }
            any |= self.undo_timer(at, command);
        }
        if !any && self.deadline_passed().is_none() {
            self.out.repeated = true;
        }
    }

    fn overdue_no_return(&mut self, at: usize, command: &Command) {
        let since = self.moment.now.saturating_sub(self.saga.steps[at].sent_at);
        if command.no_return && since >= ATTENTION_AFTER {
            self.mark(at, "the point of no return is unanswered".into());
        }
    }

    fn wait_ran_out(&mut self, at: usize) {
        let Kind::Wait(wait) = &self.definition.steps[at].kind else { return };
        let code = wait.timeout.as_ref().map_or(TIMED_OUT, |(_, code)| code);
        self.begin_unwinding(Reason { code: code.into(), message: String::new(), step: Some(self.name(at)) });
    }

    /// The reason of the earliest deadline that has passed, whatever holds it off.
    fn deadline_passed(&self) -> Option<String> {
        let view = View { definition: self.definition, saga: self.saga };
        let due = self.definition.deadlines.iter().filter_map(|d| Some(((d.at)(&view)?, d)));
        due.filter(|(at, _)| *at <= self.moment.now).min_by_key(|(at, _)| *at).map(|(_, d)| d.reason.clone())
    }

    fn deadlines(&mut self) {
        if next_deadline(self.definition, self.saga).is_none_or(|at| at > self.moment.now) {
            return;
        }
        let view = View { definition: self.definition, saga: self.saga };
        let passed = |d: &&Deadline| (d.at)(&view).is_some_and(|at| at <= self.moment.now);
        let Some(deadline) =
            self.definition.deadlines.iter().filter(|d| !shielded(self.definition, self.saga, d)).find(passed)
        else {
            return;
        };
        let pending = deadline.unless.iter().filter_map(|n| self.definition.position(n)).find(|&at| {
            matches!(self.saga.steps[at].status, Status::Pending(_) | Status::Sent(_)) && self.saga.steps[at].pending
        });
        match pending {
            // Asked once more before it is undone: its end may be known by now.
            Some(at) if !self.saga.steps[at].last_ask => {
                self.saga.steps[at].last_ask = true;
                self.repeat(at, Half::Do);
            }
            _ => {
                let code = deadline.reason.clone();
                self.begin_unwinding(Reason { code, message: String::new(), step: self.current() });
            }
        }
    }

    fn released(&mut self, service: &str) {
        if self.moment.closed.contains(service) {
            self.out.repeated = true;
            return;
        }
        let mut any = false;
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else { continue };
            if self.saga.steps[at].status == Status::Held && command.call.service == service {
                any = true;
                match self.saga.phase {
                    Phase::Forward => self.send(at, command),
                    // Unwinding: never sent counts as not begun.
                    _ if self.saga.steps[at].attempts == 0 => self.saga.steps[at].status = Status::Idle,
                    _ => self.saga.steps[at].status = Status::Unknown,
                }
            }
            let undo_service = command.undo.as_ref().map(|u| u.service.as_str());
            if self.saga.steps[at].undo == Undo::Held && undo_service == Some(service) {
                any = true;
                self.send_undo(at);
            }
        }
        self.out.repeated = !any;
    }

    fn refused(&mut self, name: &str, half: Half, resend: bool) -> Result<(), Illegal> {
        let at = self.definition.position(name).ok_or_else(|| Illegal::NoSuchStep(name.to_owned()))?;
        let again = self.moment.now.saturating_add(REFUSED_DELAY);
        let step = &mut self.saga.steps[at];
        let spent = u32::from(!resend);
        match (half, step.status, step.undo) {
            (Half::Do, Status::Sent(_), _) if step.pending => step.status = Status::Pending(again),
            (Half::Do, Status::Sent(_), _) => {
                step.attempts = step.attempts.saturating_sub(spent);
                step.status = Status::Backoff(again);
            }
            (Half::Undo, _, Undo::Sent(_)) => {
                step.undo_attempts = step.undo_attempts.saturating_sub(spent);
                step.undo = Undo::Backoff(again);
            }
            _ => {
                self.out.repeated = true;
                return Ok(());
            }
        }
        self.tell_step(What::Refused, at);
        Ok(())
    }

    fn resend(&mut self) {
        for at in 0..self.saga.steps.len() {
            let step = &self.saga.steps[at];
            let (effect, undo) = (step.status, step.undo);
            if matches!(effect, Status::Sent(_)) && self.saga.phase == Phase::Forward {
                self.repeat(at, Half::Do);
            }
            if matches!(undo, Undo::Sent(_)) {
                self.repeat(at, Half::Undo);
            }
        }
        self.out.repeated = self.out.effects.is_empty();
    }

    /// Sends the current attempt again; no attempt is spent.
    pub(crate) fn repeat(&mut self, at: usize, half: Half) {
        let Some(command) = self.definition.command(at) else { return };
        let Some(call) = (match half {
            Half::Do => Some(&command.call),
            Half::Undo => command.undo.as_ref(),
        }) else {
            return;
        };
        let Ok(body) = (call.body)(&self.view()) else { return };
        let due = self.moment.now.saturating_add(millis(command.timeout));
        let step = &mut self.saga.steps[at];
        let attempt = match half {
            Half::Do => {
                step.status = Status::Sent(due);
                step.attempts
            }
            Half::Undo => {
                step.undo = Undo::Sent(due);
                step.undo_attempts
            }
        };
        let deadline = (half == Half::Do && !command.no_return).then_some(due);
        let send = Send {
            step: self.definition.steps[at].name.clone(),
            round: step.round,
            half,
            attempt,
            resend: true,
            service: call.service.clone(),
            action: call.action.clone(),
            deadline,
            body,
        };
        self.out.effects.push(Effect::Send(send));
        self.tell_step(What::Resent, at).attempt = Some(attempt);
    }

    fn signal(&mut self, phase: Phase, name: &str, payload: Value) -> Result<(), Illegal> {
        if phase != Phase::Forward {
            return Err(Illegal::NotAwaited(name.to_owned()));
        }
        let at = self.saga.at;
        match &self.definition.steps.get(at).map(|s| &s.kind) {
            Some(Kind::Wait(wait)) if wait.signal == name && matches!(self.saga.steps[at].status, Status::Waiting(_)) => {
                let step = &mut self.saga.steps[at];
                step.status = Status::Done;
                step.output = payload;
                self.tell_step(What::Signalled, at);
                Ok(())
            }
            Some(Kind::Command(command))
                if command.replaced_by.as_deref() == Some(name)
                    && command.undo.is_some()
                    && matches!(self.saga.steps[at].status, Status::Pending(_))
                    && self.saga.steps[at].undo == Undo::None
                    && self.deadline_passed().is_none() =>
            {
                self.saga.steps[at].replacement = Some(payload);
                self.tell_step(What::Replaced, at);
                self.send_undo(at);
                Ok(())
            }
            _ => Err(Illegal::NotAwaited(name.to_owned())),
        }
    }

    fn act(&mut self, phase: Phase, action: OperatorAction, actor: String, reason: String) -> Result<(), Illegal> {
        let what = match action {
            OperatorAction::Cancel { code } => {
                self.may_unwind(phase)?;
                let message = reason.clone();
                self.note(What::Cancelled, &actor, &reason);
                self.begin_unwinding(Reason { code, message, step: self.current() });
                return Ok(());
            }
            OperatorAction::Retry => {
                self.note(What::RetriedByHand, &actor, &reason);
                return self.retry_now();
            }
            OperatorAction::Skip { output } => {
                self.skip(phase, output)?;
                What::Skipped
            }
            OperatorAction::Pause if phase != Phase::Forward => return Err(Illegal::Unwinding),
            OperatorAction::Pause if self.saga.paused => return Err(Illegal::NotNow("it is paused already")),
            OperatorAction::Pause => {
                self.saga.paused = true;
                What::Paused
            }
            OperatorAction::Resume if !self.saga.paused => return Err(Illegal::NotNow("it is not paused")),
            OperatorAction::Resume => {
                self.saga.paused = false;
                What::Resumed
            }
            OperatorAction::Resolve { step } => {
                let at = self.definition.position(&step).ok_or(Illegal::NoSuchStep(step))?;
                if self.saga.steps[at].undo != Undo::GaveUp {
                    return Err(Illegal::NotNow("the step's undo has not given up"));
                }
                self.saga.steps[at].undo = Undo::Resolved;
                self.clear_attention(at);
                What::Resolved
            }
            OperatorAction::Abandon => {
                if self.saga.awaits_no_return(self.definition).is_some() || self.saga.past_no_return(self.definition) {
                    return Err(Illegal::PastNoReturn);
                }
                self.saga.phase = Phase::Abandoned;
                What::Abandoned
            }
        };
        self.note(what, &actor, &reason);
        Ok(())
    }

    fn may_unwind(&self, phase: Phase) -> Result<(), Illegal> {
        if phase == Phase::Unwinding {
            return Err(Illegal::Unwinding);
        }
        if self.saga.past_no_return(self.definition) || self.saga.awaits_no_return(self.definition).is_some() {
            return Err(Illegal::PastNoReturn);
        }
        Ok(())
    }

    fn skip(&mut self, phase: Phase, output: Value) -> Result<(), Illegal> {
        self.may_unwind(phase)?;
        let at = self.saga.at;
        let Some(command) = self.definition.command(at) else {
            return Err(Illegal::NotNow("a wait is not skipped; send its signal"));
        };
        if command.no_return {
            return Err(Illegal::PastNoReturn);
        }
        let step = &mut self.saga.steps[at];
        step.status = Status::Skipped;
        step.output = output;
        Ok(())
    }

    fn retry_now(&mut self) -> Result<(), Illegal> {
        let mut any = false;
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else { continue };
            match self.saga.steps[at].status {
                Status::Backoff(_) if self.saga.phase == Phase::Forward => {
                    any = true;
                    self.send(at, command);
                }
                Status::Pending(_) if self.saga.phase == Phase::Forward => {
                    any = true;
                    self.repeat(at, Half::Do);
                }
                _ => {}
            }
            if matches!(self.saga.steps[at].undo, Undo::GaveUp | Undo::Backoff(_) | Undo::Pending(_)) {
                any = true;
                self.saga.steps[at].undo_attempts = self.saga.steps[at].undo_attempts.min(1);
                self.clear_attention(at);
                self.send_undo(at);
            }
        }
        if any { Ok(()) } else { Err(Illegal::NotNow("nothing waits to be tried again")) }
    }

    pub(crate) fn begin_unwinding(&mut self, reason: Reason) {
        if self.saga.phase != Phase::Forward {
            return;
        }
        self.saga.phase = Phase::Unwinding;
        self.saga.paused = false;
        let code = reason.code.clone();
        self.saga.reason = Some(reason);
        self.tell(What::Unwinding).error = Some(code);
        unwind::begin(self.saga);
    }

    pub(crate) fn new_round_after_replacement(&mut self, at: usize, payload: Value) {
        // The wait whose signal it was holds the payload for the body to read.
        let signal = self.definition.command(at).and_then(|c| c.replaced_by.clone());
        let wait = (0..at).rev().find(
            |&w| matches!(&self.definition.steps[w].kind, Kind::Wait(wait) if Some(&wait.signal) == signal.as_ref()),
        );
        if let Some(wait) = wait {
            self.saga.steps[wait].status = Status::Done;
            self.saga.steps[wait].output = payload;
        }
        let round = self.saga.steps[at].round + 1;
        self.saga.steps[at] = StepState { round, ..StepState::idle() };
    }

    pub(crate) fn mark(&mut self, at: usize, reason: String) {
        let step = self.name(at);
        if self.saga.attention.iter().any(|a| a.step == step) {
            return;
        }
        self.tell_step(What::Attention, at).error = Some(reason.clone());
        self.saga.attention.push(Attention { step, reason });
    }

    pub(crate) fn clear_attention(&mut self, at: usize) {
        let name = self.name(at);
        self.saga.attention.retain(|a| a.step != name);
    }

    pub(crate) fn best_effort(&self, at: usize) -> bool {
        self.definition.command(at).is_some_and(|c| c.best_effort)
    }

    pub(crate) fn name(&self, at: usize) -> String {
        self.definition.steps[at].name.clone()
    }

    fn current(&self) -> Option<String> {
        self.definition.steps.get(self.saga.at).map(|s| s.name.clone())
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { definition: self.definition, saga: self.saga }
    }

    pub(crate) fn tell(&mut self, what: What) -> &mut crate::input::Entry {
        self.out.tell(self.saga, self.moment.now, what)
    }

    pub(crate) fn tell_step(&mut self, what: What, at: usize) -> &mut crate::input::Entry {
        let (name, round, attempts) = (self.name(at), self.saga.steps[at].round, self.saga.steps[at].attempts);
        let entry = self.tell(what);
        entry.step = Some(name);
        entry.round = (round > 1).then_some(round);
        entry.attempt = (attempts > 1).then_some(attempts);
        entry
    }

    pub(crate) fn tell_answer(&mut self, what: What, at: usize, attempt: u32) -> &mut crate::input::Entry {
        let took = self.moment.now - self.saga.steps[at].sent_at;
        let entry = self.tell_step(what, at);
        entry.attempt = (attempt > 1).then_some(attempt);
        entry.duration = Some(took);
        entry
    }

    fn note(&mut self, what: What, actor: &str, reason: &str) {
        let step = self.current();
        let entry = self.tell(what);
        entry.step = step;
        entry.actor = Some(actor.to_owned());
        entry.reason = Some(reason.to_owned());
    }
}

fn is_end(what: What) -> bool {
    matches!(what, What::Completed | What::Compensated | What::Abandoned)
}

/// A duration in ms, saturating.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
