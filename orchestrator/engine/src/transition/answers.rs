//! What services answer to effects.

use eventicket_json::Json;

use super::{DEAD, DEFINITION_ERROR, Run, TIMED_OUT};
use crate::definition::OnRejection;
use crate::input::{Answer, Illegal, What};
use crate::state::{Fence, Half, NEVER, Phase, Purpose, Reason, Status, Undo};
use eventicket_planted::Fault;

impl Run<'_, '_> {
    pub(super) fn answer(
        &mut self,
        name: &str,
        round: u32,
        half: Half,
        attempt: u32,
        answer: Answer,
    ) -> Result<(), Illegal> {
        let at = self.definition.position(name).ok_or_else(|| Illegal::NoSuchStep(name.to_owned()))?;
        let step = &self.saga.steps[at];
        let dispatched = match half {
            Half::Do => step.attempts > 0,
            Half::Undo => step.undo_attempts > 0,
            Half::Fence => step.fences > 0,
        };
        if round > step.round || (round == step.round && !dispatched) {
            return Err(Illegal::NeverDispatched(name.to_owned()));
        }
        if round < step.round || (self.given_up() && half != Half::Fence) {
            self.out.repeated = true;
            return Ok(());
        }
        match half {
            Half::Do => self.effect_answered(at, attempt, answer),
            Half::Undo => {
                self.undo_answered(at, attempt, answer);
                Ok(())
            }
            Half::Fence => self.fence_answered(at, answer),
        }
    }

    fn effect_answered(&mut self, at: usize, attempt: u32, answer: Answer) -> Result<(), Illegal> {
        let step = &self.saga.steps[at];
        let purpose = step.fence.as_ref().map(|f| &f.purpose);
        match (step.status, answer) {
            (_, Answer::Fenced(_)) => return Err(Illegal::NeverDispatched(self.name(at))),
            (Status::Done, Answer::Pending(output)) if Fault::PendingAfterDone.is_planted() => {
                self.pending(at, attempt, output);
            }
            // A round that is undone is over, whatever still comes.
            _ if matches!(step.undo, Undo::Done | Undo::Resolved) => self.out.repeated = true,
            (Status::Done, Answer::Rejected { .. }) | (Status::Rejected, Answer::Done(_)) => {
                return Err(Illegal::Contradiction(self.name(at)));
            }
            (Status::Done | Status::Rejected | Status::Skipped, _) => self.out.repeated = true,
            _ if self.saga.ended() => self.out.repeated = true,
            // A skip has what it asked for; of the rest the fence tells.
            (_, Answer::Rejected { .. }) if matches!(purpose, Some(Purpose::Skip(_))) => {
                if let Some(Fence { purpose: Purpose::Skip(output), .. }) = self.saga.steps[at].fence.take() {
                    self.skip(at, output);
                    self.tell_answer(What::Rejected, at, attempt);
                }
            }
            (_, Answer::Pending(_) | Answer::Retry { .. } | Answer::Expired | Answer::Dead { .. })
                if purpose.is_some() =>
            {
                self.out.repeated = true;
            }
            (_, Answer::Done(output)) => self.happened(at, attempt, output),
            (_, Answer::Rejected { code, message }) => {
                self.tell_answer(What::Rejected, at, attempt).error = Some(code.clone());
                self.reject(at, &code, &message);
            }
            // From here on nothing is final; a saga that no longer waits for it does not care.
            (Status::Unknown | Status::Idle | Status::Omitted | Status::Waiting(_), _) => self.out.repeated = true,
            (Status::Pending(_), Answer::Pending(output)) if step.pending && step.output == output => {
                self.out.repeated = true;
            }
            (_, Answer::Pending(output)) => self.pending(at, attempt, output),
            // Only the attempt under way can fail; what comes of an earlier one, or twice, spends nothing.
            (Status::Sent(_), Answer::Retry { code }) if attempt == step.attempts => {
                self.transient(at, attempt, What::Retrying, &code);
            }
            (Status::Sent(_), Answer::Expired) if Fault::ExpiredIsRejected.is_planted() => {
                self.reject(at, TIMED_OUT, "");
            }
            (Status::Sent(_), Answer::Expired) if attempt == step.attempts => {
                self.transient(at, attempt, What::TimedOut, TIMED_OUT);
            }
            (_, Answer::Retry { .. } | Answer::Expired) => self.out.repeated = true,
            (Status::Pending(NEVER), Answer::Dead { .. }) => self.out.repeated = true,
            (_, Answer::Dead { reason }) => self.dead(at, &reason),
        }
        Ok(())
    }

    pub(super) fn happened(&mut self, at: usize, attempt: u32, output: Json) {
        let step = &mut self.saga.steps[at];
        step.status = Status::Done;
        step.output = output;
        step.error = None;
        self.drop_fence(at);
        // An undo that gave up still needs its operator.
        let step = &self.saga.steps[at];
        if step.undo != Undo::GaveUp {
            self.clear_attention(at);
        }
        self.tell_answer(What::Done, at, attempt);
    }

    /// A definite no: nothing of this step is left to undo. An undo that was sent is awaited, or needs its operator, all
    /// the same.
    pub(super) fn reject(&mut self, at: usize, code: &str, message: &str) {
        let step = &mut self.saga.steps[at];
        step.status = Status::Rejected;
        step.error = Some((code.to_owned(), message.to_owned()));
        self.drop_fence(at);
        let step = &mut self.saga.steps[at];
        let replaced = step.undo != Undo::None;
        if replaced && step.undo_attempts > 0 {
            // It may be the undo that had it rejected, so that only the undo's own answer tells what is left.
            return;
        }
        step.undo = Undo::None;
        step.fence = None;
        step.rejections += 1;
        self.clear_attention(at);
        if self.saga.phase != Phase::Forward {
            return;
        }
        if replaced {
            return self.replace(at);
        }
        if self.best_effort(at) {
            return;
        }
        if let Some(OnRejection::BackTo { wait, rounds }) = self.definition.command(at).map(|c| &c.on_rejection) {
            // What the wait would bring cures no body that cannot be built.
            let another = code != DEFINITION_ERROR
                && self.saga.steps[at].rejections < *rounds
                && self.passed_deadline().is_none();
            if let Some(wait) = self.definition.position(wait).filter(|_| another) {
                return self.next_round(wait, at);
            }
        }
        self.begin_unwinding(Reason { code: code.into(), message: message.into(), step: Some(self.name(at)) });
    }

    fn pending(&mut self, at: usize, attempt: u32, output: Json) {
        let Some(command) = self.definition.command(at) else { return };
        let later = self.ask_later(command);
        let step = &mut self.saga.steps[at];
        let news = !step.pending || step.output != output;
        step.pending = true;
        step.output = output;
        step.status = Status::Pending(later);
        // It spends no attempt; the one that brought it stays counted as dispatched.
        step.attempts = 1;
        if step.undo == Undo::None {
            step.again = false; // an undo's publish is not the do's
        }
        step.unsent = false;
        if news {
            self.tell_answer(What::Pending, at, attempt);
        }
        // What arrives after the end is the last word: the deadline unwinds without asking once more.
        if self.passed_deadline().is_some() {
            self.saga.steps[at].last_ask = true;
        }
    }

    /// An attempt brought nothing: tries again, asks again, or gives up.
    pub(super) fn transient(&mut self, at: usize, attempt: u32, what: What, code: &str) {
        let Some(command) = self.definition.command(at) else { return };
        self.tell_answer(what, at, attempt).error = Some(code.to_owned());
        let (now, noise, later) = (self.moment.now, self.moment.noise, self.ask_later(command));
        let step = &mut self.saga.steps[at];
        step.error = Some((code.to_owned(), String::new()));
        if step.pending {
            step.status = Status::Pending(later);
            return;
        }
        let hopeless = command.retry.not_on.iter().any(|c| c == code);
        if command.no_return || (step.attempts < command.retry.attempts && !hopeless) {
            step.status = Status::Backoff(now.saturating_add(command.retry.delay(step.attempts, noise)));
            return;
        }
        self.give_up(at, code, "no attempt is left");
    }

    /// The outcome stays open: the saga unwinds, and this step's undo runs, too.
    pub(super) fn give_up(&mut self, at: usize, code: &str, message: &str) {
        let step = &mut self.saga.steps[at];
        step.status = if Fault::UnknownIsRejected.is_planted() { Status::Rejected } else { Status::Unknown };
        step.error = Some((code.to_owned(), message.to_owned()));
        self.tell_step(What::Unknown, at).error = Some(code.to_owned());
        if self.saga.phase == Phase::Forward && !self.best_effort(at) {
            self.begin_unwinding(Reason { code: code.into(), message: message.into(), step: Some(self.name(at)) });
        }
    }

    fn dead(&mut self, at: usize, reason: &str) {
        self.tell_step(What::Dead, at).error = Some(reason.to_owned());
        if self.definition.command(at).is_some_and(|c| c.no_return) {
            // Its sending stops; only an operator can find out what became of it.
            self.saga.steps[at].status = Status::Pending(NEVER);
            return self.mark(at, format!("dead-lettered: {reason}"));
        }
        self.give_up(at, DEAD, reason);
    }
}
