//! What happens by itself: time-outs, deadlines, breakers, and publishes that were refused or lost.

use super::{ATTENTION_AFTER, REFUSED_DELAY, Run, TIMED_OUT};
use crate::definition::{Deadline, Definition, Kind, View};
use crate::input::{Illegal, What};
use crate::state::{Half, NEVER, Phase, Reason, Saga, Status, StepState, Undo};
use eventicket_planted::Fault;

/// The earliest deadline that may still fire, ms.
pub(crate) fn next_deadline(definition: &Definition, saga: &Saga) -> Option<i64> {
    open_deadlines(definition, saga).map(|(at, _)| at).min()
}

/// When an unanswered point of no return is marked, and which step it is.
pub(crate) fn reminder(definition: &Definition, saga: &Saga) -> Option<(i64, usize)> {
    let at = saga.awaits_no_return(definition)?;
    let marked = saga.attention.iter().any(|a| a.step == definition.steps[at].name);
    (!marked).then(|| (saga.steps[at].sent_at.saturating_add(ATTENTION_AFTER), at))
}

/// The deadlines that nothing holds off, with their times.
fn open_deadlines<'a>(definition: &'a Definition, saga: &'a Saga) -> impl Iterator<Item = (i64, &'a Deadline)> {
    let open = !definition.deadlines.is_empty()
        && saga.phase == Phase::Forward
        && saga.awaits_no_return(definition).is_none()
        && !saga.past_no_return(definition);
    let deadlines = definition.deadlines.iter().filter(move |d| open && !shielded(definition, saga, d));
    deadlines.filter_map(move |d| Some(((d.at)(&View { definition, saga })?, d)))
}

/// Whether a step that holds the deadline off is in flight, done, or skipped by an operator.
fn shielded(definition: &Definition, saga: &Saga, deadline: &Deadline) -> bool {
    if Fault::HoldFreedWhilePaid.is_planted() {
        return false;
    }
    deadline.unless.iter().filter_map(|name| definition.position(name)).any(|at| {
        let step = &saga.steps[at];
        // What is being undone pays for nothing.
        step.undo == Undo::None && (matches!(step.status, Status::Done | Status::Skipped) || in_flight(step))
    })
}

/// A pending round is not in flight, unless it is being asked for the last time; nor is one that was never stored.
fn in_flight(step: &StepState) -> bool {
    matches!(step.status, Status::Sent(_) | Status::Backoff(_) | Status::Held)
        && step.attempts > 0
        && !step.unsent
        && (!step.pending || step.last_ask)
}

impl Run<'_, '_> {
    pub(super) fn timers(&mut self) {
        let now = self.moment.now;
        // First, so that no step is sent after its end.
        let mut any = self.deadlines();
        for at in 0..self.saga.steps.len() {
            any |= if self.saga.steps[at].fence.is_some() {
                self.fence_timer(at, now)
            } else {
                self.effect_timer(at, now) | self.undo_timer(at, now)
            };
        }
        if let Some((_, at)) = reminder(self.definition, self.saga).filter(|(due, _)| *due <= now) {
            self.mark(at, "the point of no return is unanswered".into());
            any = true;
        }
        self.out.repeated = !any;
    }

    /// Whether a timer of the step's effect fired. Once its undo is under way it has none.
    fn effect_timer(&mut self, at: usize, now: i64) -> bool {
        let step = &self.saga.steps[at];
        let goes = match self.saga.phase {
            Phase::Forward => true,
            Phase::Unwinding => self.definition.steps[at].on_unwinding,
            _ => false,
        };
        if !goes || step.effect_due().is_none_or(|due| due > now) {
            return false;
        }
        let (status, attempts) = (step.status, step.attempts);
        match (&self.definition.steps[at].kind, status) {
            (Kind::Wait(wait), _) => {
                let code = wait.timeout.as_ref().map_or(TIMED_OUT, |(_, code)| code);
                self.begin_unwinding(Reason { code: code.into(), message: String::new(), step: Some(self.name(at)) });
            }
            (Kind::Command(_), Status::Sent(_)) => self.transient(at, attempts, What::TimedOut, TIMED_OUT),
            (Kind::Command(_), Status::Pending(_)) if Fault::PendingIsNotAsked.is_planted() => {
                self.saga.steps[at].status = Status::Pending(NEVER);
            }
            (Kind::Command(command), Status::Pending(_)) => self.repeat(at, command),
            (Kind::Command(command), _) => self.send(at, command),
        }
        true
    }

    /// The earliest deadline that has passed and that nothing holds off.
    pub(super) fn passed_deadline(&self) -> Option<&Deadline> {
        let passed = open_deadlines(self.definition, self.saga).filter(|(at, _)| *at <= self.moment.now);
        passed.min_by_key(|(at, _)| *at).map(|(_, d)| d)
    }

    /// Unwinds where a deadline has passed; a pending round is asked once more before. True where something was done.
    pub(super) fn deadlines(&mut self) -> bool {
        let Some(deadline) = self.passed_deadline() else { return false };
        let code = deadline.reason.clone();
        let pending = deadline.unless.iter().filter_map(|n| self.definition.position(n)).find(|&at| {
            let step = &self.saga.steps[at];
            step.pending
                && !step.last_ask
                && step.undo == Undo::None
                && step.fence.is_none()
                && matches!(step.status, Status::Pending(_) | Status::Sent(_))
        });
        if let Some((at, command)) = pending.and_then(|at| Some((at, self.definition.command(at)?))) {
            // Its end may be known by now. Where the breaker does not let the question through, the undo is the answer.
            self.saga.steps[at].last_ask = true;
            self.repeat(at, command);
            if in_flight(&self.saga.steps[at]) {
                return true;
            }
        }
        self.begin_unwinding(Reason { code, message: String::new(), step: self.current() });
        true
    }

    pub(super) fn released(&mut self, service: &str) {
        if self.moment.closed.contains(service) {
            self.out.repeated = true;
            return;
        }
        let mut any = self.deadlines();
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else { continue };
            if let Some(fence) = &self.saga.steps[at].fence {
                if fence.held && command.call.service == service {
                    any = true;
                    self.send_fence(at);
                }
                continue;
            }
            if self.given_up() {
                continue;
            }
            if self.saga.steps[at].status == Status::Held && command.call.service == service {
                any = true;
                if self.saga.paused && self.saga.steps[at].attempts == 0 {
                    // It has not begun, and begins only when the pause is over.
                    self.saga.steps[at].status = Status::Idle;
                } else {
                    self.send(at, command);
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

    /// A publish was certainly not stored. Its attempt counts as dispatched (another publish of it may be under way) but
    /// is repeated, not followed by the next one.
    pub(super) fn refused(
        &mut self,
        name: &str,
        round: u32,
        half: Half,
        attempt: u32,
        resend: bool,
    ) -> Result<(), Illegal> {
        let at = self.definition.position(name).ok_or_else(|| Illegal::NoSuchStep(name.to_owned()))?;
        let again = self.moment.now.saturating_add(REFUSED_DELAY);
        let given_up = self.given_up();
        let step = &mut self.saga.steps[at];
        // Only the publish of the attempt under way counts.
        let current = match half {
            Half::Do => step.attempts == attempt && step.fence.is_none() && !given_up,
            Half::Undo => step.undo_attempts == attempt && step.fence.is_none() && !given_up,
            Half::Fence => true,
        };
        if !current || step.round != round {
            self.out.repeated = true;
            return Ok(());
        }
        match (half, step.status, step.undo) {
            (Half::Fence, ..) => {
                self.out.repeated = !self.fence_refused(at, attempt);
                return Ok(());
            }
            (Half::Do, Status::Sent(_), Undo::None) if Fault::RefusedSpendsAttempt.is_planted() => {
                step.status = Status::Backoff(again);
            }
            (Half::Do, Status::Sent(_), Undo::None) if step.pending => step.status = Status::Pending(again),
            (Half::Do, Status::Sent(_), Undo::None) => {
                step.status = Status::Backoff(again);
                step.again = true;
                step.unsent = !resend && step.attempts == 1;
            }
            (Half::Undo, _, Undo::Sent(_)) => {
                step.undo = Undo::Backoff(again);
                step.again = true;
            }
            _ => {
                self.out.repeated = true;
                return Ok(());
            }
        }
        self.tell_step(What::Refused, at);
        Ok(())
    }

    /// Sends again what is awaited.
    pub(super) fn resend(&mut self) {
        let mut any = self.deadlines();
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else { continue };
            if let Some(fence) = &self.saga.steps[at].fence {
                if fence.due < NEVER && !fence.stands {
                    any = true;
                    self.send_fence(at);
                }
                continue;
            }
            if self.given_up() {
                continue;
            }
            let (status, undo) = (self.saga.steps[at].status, self.saga.steps[at].undo);
            if matches!(status, Status::Sent(_)) && undo == Undo::None {
                any = true;
                self.repeat(at, command);
            }
            if matches!(undo, Undo::Sent(_)) {
                any = true;
                self.repeat_undo(at);
            }
        }
        self.out.repeated = !any;
    }
}
