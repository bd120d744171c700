//! Fences (6.13): before an operator's action takes a step's outcome into its own hands, the round's service tells what
//! is recorded of it and closes what has not begun, so that a late or replayed command of it is refused.

use eventicket_json::Json;

use super::{REFUSED_DELAY, Run};
use crate::input::{Answer, Effect, Found, Illegal, Question, Recorded, Send, What};
use crate::state::{Fence, Half, NEVER, Phase, Purpose, Reason, Status, Undo};

/// Code of a round that a fence closed.
pub const CLOSED: &str = "closed";
/// Delay of a fence whose service is held, ms.
const HELD_DELAY: i64 = 1_000;

impl Run<'_, '_> {
    /// Opens a fence on a step and sends it.
    pub(super) fn fence(&mut self, at: usize, purpose: Purpose) {
        let step = &mut self.saga.steps[at];
        step.fences += 1;
        step.fence = Some(Fence { purpose, due: 0, attempts: 0, held: false, stands: false });
        self.send_fence(at);
    }

    /// Sends the fence that is under way, or puts it off while its service is held.
    pub(super) fn send_fence(&mut self, at: usize) {
        let Some(command) = self.definition.command(at) else { return };
        let closed = self.moment.closed.contains(&command.call.service);
        let due = if closed { self.moment.now.saturating_add(HELD_DELAY) } else { self.after(command.timeout) };
        let due = due.max(self.moment.now.saturating_add(1));
        let body = (command.call.body)(&self.view()).unwrap_or(Json::NULL);
        let step = &mut self.saga.steps[at];
        let Some(fence) = &mut step.fence else { return };
        fence.due = due;
        fence.held = closed;
        if closed {
            return;
        }
        fence.attempts += 1;
        let first = fence.attempts == 1 && !fence.stands;
        let undo = matches!(fence.purpose, Purpose::Resolve | Purpose::Abandon);
        let send = Send {
            step: self.definition.steps[at].name.clone(),
            round: step.round,
            half: Half::Fence,
            question: Some(Question { id: step.fences, undo }),
            attempt: fence.attempts,
            resend: fence.attempts > 1,
            service: command.call.service.clone(),
            action: command.call.action.clone(),
            deadline: None,
            body,
        };
        self.out.effects.push(Effect::Send(send));
        if first {
            self.tell_step(What::FenceDispatched, at);
        }
    }

    /// The answer to a fence; one to an earlier fence, or that comes twice, changes nothing.
    pub(super) fn fence_answered(&mut self, at: usize, answer: Answer) -> Result<(), Illegal> {
        let step = &self.saga.steps[at];
        let Some(fence) = step.fence.clone() else {
            self.out.repeated = true;
            return Ok(());
        };
        match answer {
            Answer::Fenced(found) if found.id == step.fences => self.found(at, fence, found),
            Answer::Fenced(found) if found.id > step.fences => Err(Illegal::NeverDispatched(self.name(at))),
            Answer::Dead { reason } | Answer::Rejected { code: reason, .. } if fence.due < NEVER => {
                // It is not sent again by itself; an operator may have it tried again.
                if let Some(fence) = &mut self.saga.steps[at].fence {
                    fence.due = NEVER;
                }
                self.clear_attention(at);
                self.mark(at, format!("its fence was refused: {reason}"));
                Ok(())
            }
            // Asked again when it is due.
            _ => {
                self.out.repeated = true;
                Ok(())
            }
        }
    }

    fn found(&mut self, at: usize, fence: Fence, found: Found) -> Result<(), Illegal> {
        self.saga.steps[at].fence = None;
        if !fence.stands {
            let code = told(&found.effect).to_owned();
            self.tell_step(What::Fenced, at).error = Some(code);
        }
        match fence.purpose {
            Purpose::Skip(output) => self.found_by_skip(at, output, found.effect),
            Purpose::Resolve => self.found_by_resolve(at, found.undo),
            Purpose::Compensate(reason) => self.found_by_compensate(at, reason, found.effect),
            Purpose::Abandon => self.found_by_abandon(at, fence.stands, found),
        }
        Ok(())
    }

    /// Forgets a fence whose question is answered otherwise: what it was meant for is over.
    pub(super) fn drop_fence(&mut self, at: usize) {
        let open = |f: &Fence| matches!(f.purpose, Purpose::Skip(_) | Purpose::Compensate(_));
        if self.saga.steps[at].fence.as_ref().is_some_and(open) {
            self.saga.steps[at].fence = None;
            self.clear_attention(at);
        }
    }

    fn found_by_skip(&mut self, at: usize, output: Json, effect: Recorded) {
        match effect {
            Recorded::Done(brought) => self.known_done(at, brought),
            Recorded::Rejected { .. } | Recorded::Closed => self.skip(at, output),
        }
    }

    /// It happened, whatever was meant to be done instead; the answer itself may have come before.
    fn known_done(&mut self, at: usize, output: Json) {
        if self.saga.steps[at].status != Status::Done {
            self.happened(at, 1, output);
        }
    }

    /// The step did not happen and will not: the saga goes on as if it had brought this.
    pub(super) fn skip(&mut self, at: usize, output: Json) {
        let step = &mut self.saga.steps[at];
        step.fence = None;
        step.status = Status::Skipped;
        step.output = output;
        self.clear_attention(at);
    }

    fn found_by_resolve(&mut self, at: usize, undo: Option<Recorded>) {
        let step = &mut self.saga.steps[at];
        match undo {
            Some(Recorded::Done(output)) => {
                step.undo = Undo::Done;
                step.undo_output = output;
                self.tell_step(What::Undone, at);
            }
            _ => step.undo = Undo::Resolved,
        }
        self.clear_attention(at);
        if self.saga.phase == Phase::Forward {
            self.replace(at);
        }
    }

    fn found_by_compensate(&mut self, at: usize, reason: Reason, effect: Recorded) {
        match effect {
            Recorded::Done(output) => self.known_done(at, output),
            Recorded::Rejected { code } => self.reject(at, &code, ""),
            Recorded::Closed => {
                let step = &mut self.saga.steps[at];
                step.status = Status::Rejected;
                step.error = Some((CLOSED.to_owned(), String::new()));
                self.clear_attention(at);
                self.begin_unwinding(reason);
            }
        }
    }

    /// What stands is listed, and asked for anew at a slow rate, until it is given back or an operator says that it was.
    fn found_by_abandon(&mut self, at: usize, again: bool, found: Found) {
        let slow = self.definition.command(at).map_or(0, |c| self.ask_later(c));
        let has_undo = self.definition.command(at).is_some_and(|c| c.undo.is_some());
        let step = &mut self.saga.steps[at];
        let undone = matches!(found.undo, Some(Recorded::Done(_)));
        // An undo that was refused has found something to undo.
        let stands = !undone
            && (matches!(found.effect, Recorded::Done(_)) || matches!(found.undo, Some(Recorded::Rejected { .. })));
        match found.effect {
            Recorded::Done(output) => (step.status, step.output) = (Status::Done, output),
            Recorded::Rejected { code } => (step.status, step.error) = (Status::Rejected, Some((code, String::new()))),
            Recorded::Closed => {
                (step.status, step.error) = (Status::Rejected, Some((CLOSED.to_owned(), String::new())));
            }
        }
        if has_undo && stands {
            step.undo = Undo::GaveUp;
            step.fences += 1;
            step.fence = Some(Fence { purpose: Purpose::Abandon, due: slow, attempts: 0, held: false, stands: true });
            if !again {
                self.clear_attention(at);
                self.mark(at, "what it did stands although the saga was given up".into());
            }
        } else {
            step.undo = if step.undo == Undo::None { Undo::None } else { Undo::Done };
            self.clear_attention(at);
        }
        self.abandoned_when_all_is_known();
    }

    /// Ends the wait for what the fences of a saga that is given up find.
    pub(super) fn abandoned_when_all_is_known(&mut self) {
        let asked = |s: &crate::StepState| s.fence.as_ref().is_some_and(|f| !f.stands);
        if self.saga.phase == Phase::Abandoning && !self.saga.steps.iter().any(asked) {
            self.saga.phase = Phase::Abandoned;
            self.tell(What::Abandoned);
        }
    }

    /// Whether something of the step may stand or still come, which only its service can tell.
    pub(super) fn needs_fence(&self, at: usize) -> bool {
        let step = &self.saga.steps[at];
        let dispatched = step.attempts > 0 || step.undo_attempts > 0;
        let over = matches!(step.undo, Undo::Done | Undo::Resolved)
            || (step.status == Status::Rejected && step.undo == Undo::None);
        self.definition.command(at).is_some() && dispatched && !over
    }

    /// Whether a timer of the step's fence fired.
    pub(super) fn fence_timer(&mut self, at: usize, now: i64) -> bool {
        let due = self.saga.steps[at].fence.as_ref().is_some_and(|f| f.due <= now);
        if due {
            self.send_fence(at);
        }
        due
    }

    /// A fence was certainly not stored: it is sent again soon. True where it is the one under way.
    pub(super) fn fence_refused(&mut self, at: usize, attempt: u32) -> bool {
        let again = self.moment.now.saturating_add(REFUSED_DELAY);
        match &mut self.saga.steps[at].fence {
            Some(fence) if fence.attempts == attempt && fence.due < NEVER => {
                fence.due = again;
                true
            }
            _ => false,
        }
    }
}

fn told(effect: &Recorded) -> &str {
    match effect {
        Recorded::Done(_) => "done",
        Recorded::Rejected { code } => code,
        Recorded::Closed => CLOSED,
    }
}
