//! What people and other programs do to a saga: signals and operator actions.

use eventicket_json::Json;

use eventicket_planted::Fault;

use super::Run;
use crate::definition::{Command, Kind};
use crate::input::{Illegal, OperatorAction, What};
use crate::state::{NEVER, Phase, Purpose, Reason, SignalKey, Status, StepState, Undo};

/// Code of a saga that an operator had compensated, or gave up.
pub const OPERATOR: &str = "operator";

/// Most rounds of a step: nobody replaces a pending payment so often.
const MOST_ROUNDS: u32 = 100;

const FENCED: Illegal = Illegal::NotNow("its service is being asked");

impl Run<'_, '_> {
    /// A signal outside its wait is refused, never kept; so is one after the end, whose timer may not have fired yet.
    pub(super) fn signal(&mut self, name: &str, payload: Json, key: Option<SignalKey>) -> Result<(), Illegal> {
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
                let waited = now.saturating_sub(state.sent_at);
                self.tell_step(What::Signalled, at).duration = Some(waited);
            }
            (Kind::Command(command), Status::Pending(_) | Status::Sent(_) | Status::Backoff(_), Undo::None)
                if command.replaced_by.as_deref() == Some(name) && may_be_replaced(state) =>
            {
                state.again = false;
                state.replacement = (!payload.is_null()).then_some(payload);
                self.tell_step(What::Replaced, at);
                self.send_undo(at);
            }
            _ => return Err(refusal()),
        }
        self.saga.signals.extend(key);
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
                let first = self.may_retry()?;
                self.note_on(What::RetriedByHand, Some(self.name(first)), actor, reason);
                self.retry_now();
            }
            OperatorAction::Skip { output } => {
                self.may_skip(&output)?;
                self.note(What::Skipped, actor, reason);
                let at = self.saga.at;
                if self.saga.steps[at].attempts == 0 || Fault::SkipWithoutFence.is_planted() {
                    self.skip(at, output);
                } else {
                    self.fence(at, Purpose::Skip(output));
                }
            }
            OperatorAction::Pause => {
                self.may_go_on()?;
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
            OperatorAction::Compensate => self.compensate(actor, reason)?,
            OperatorAction::Resolve { step } => self.resolve(step, actor, reason)?,
            OperatorAction::Abandon { force } => self.abandon(force, actor, reason)?,
            OperatorAction::Replayed { step } => self.note_on(What::Replayed, Some(step), actor, reason),
        }
        Ok(())
    }

    /// The way out for a point of no return that was dead-lettered, too: what its service has recorded decides.
    fn compensate(&mut self, actor: &str, reason: &str) -> Result<(), Illegal> {
        let why = Reason { code: OPERATOR.into(), message: reason.to_owned(), step: self.current() };
        let dead = |at: &usize| self.saga.steps[*at].status == Status::Pending(NEVER);
        match self.saga.awaits_no_return(self.definition).filter(dead) {
            Some(at) if self.saga.steps[at].fence.is_some() => Err(FENCED),
            Some(at) => {
                self.note(What::CompensatedByHand, actor, reason);
                self.fence(at, Purpose::Compensate(why));
                Ok(())
            }
            None => {
                self.may_unwind()?;
                self.note(What::CompensatedByHand, actor, reason);
                self.begin_unwinding(why);
                Ok(())
            }
        }
    }

    /// What the step waits for was done by hand: its undo, a hand, or the giving back of what an abandoned saga left.
    fn resolve(&mut self, name: String, actor: &str, reason: &str) -> Result<(), Illegal> {
        let Some(at) = self.definition.position(&name) else { return self.take_note(name, actor, reason) };
        let by_hand = matches!(&self.definition.steps[at].kind, Kind::Wait(wait) if wait.by_hand.is_some());
        let over = self.passed_deadline().is_some();
        let marked = self.saga.attention.iter().any(|a| a.step == name);
        let step = &mut self.saga.steps[at];
        match (self.saga.phase, step.status, step.undo) {
            (Phase::Forward, Status::Waiting(_), _) if by_hand && over => {
                return Err(Illegal::NotNow("a deadline has passed"));
            }
            (Phase::Forward, Status::Waiting(_), _) if by_hand => {
                step.status = Status::Done;
                self.clear_attention(at);
            }
            // What is not known yet cannot have been settled by hand: it is asked for until it is.
            (Phase::Abandoned, ..) if step.fence.is_some() && marked => {
                step.fence = None;
                step.undo = if step.undo == Undo::None { Undo::None } else { Undo::Resolved };
                self.clear_attention(at);
            }
            (Phase::Forward | Phase::Unwinding, _, Undo::GaveUp) if step.fence.is_some() => return Err(FENCED),
            (Phase::Forward | Phase::Unwinding, _, Undo::GaveUp) => {
                self.note_on(What::Resolved, Some(name), actor, reason);
                self.fence(at, Purpose::Resolve);
                return Ok(());
            }
            // Nothing of it is open: the mark is taken note of.
            (_, Status::Done | Status::Rejected | Status::Skipped | Status::Omitted, Undo::None | Undo::Done)
                if marked && step.fence.is_none() =>
            {
                self.clear_attention(at);
            }
            _ => return Err(Illegal::NotNow("the step's undo has not given up, and it waits for nobody")),
        }
        self.note_on(What::Resolved, Some(name), actor, reason);
        Ok(())
    }

    /// A mark of what the definition does not know, or of a saga that has ended, is taken note of.
    pub(super) fn take_note(&mut self, name: String, actor: &str, reason: &str) -> Result<(), Illegal> {
        let marks = self.saga.attention.len();
        self.saga.attention.retain(|a| a.step != name);
        if self.saga.attention.len() == marks {
            return Err(Illegal::NoSuchStep(name));
        }
        self.note_on(What::Resolved, Some(name), actor, reason);
        Ok(())
    }

    /// Gives the saga up as it stands: at once where nothing of it was dispatched or `force` is given, else when its
    /// fences have told what stands.
    fn abandon(&mut self, force: bool, actor: &str, reason: &str) -> Result<(), Illegal> {
        match self.saga.phase {
            Phase::Abandoning if !force => return Err(Illegal::NotNow("it is being abandoned")),
            Phase::Abandoned => return Err(Illegal::Ended),
            _ => {}
        }
        if self.saga.awaits_no_return(self.definition).is_some() || self.saga.past_no_return(self.definition) {
            return Err(Illegal::PastNoReturn);
        }
        self.note(What::Abandoning, actor, reason);
        if self.saga.phase != Phase::Abandoning {
            let step = self.current();
            self.saga.reason.get_or_insert_with(|| Reason { code: OPERATOR.into(), message: reason.to_owned(), step });
            self.saga.paused = false;
            self.saga.phase = Phase::Abandoning;
            self.turn_back();
            for at in 0..self.saga.steps.len() {
                if self.needs_fence(at) {
                    self.fence(at, Purpose::Abandon);
                }
            }
        }
        if force {
            self.saga.phase = Phase::Abandoned;
            self.tell(What::Abandoned);
        }
        self.abandoned_when_all_is_known();
        Ok(())
    }

    /// Whether it is still on its way forward, or may be turned.
    fn may_go_on(&self) -> Result<(), Illegal> {
        match self.saga.phase {
            Phase::Forward => Ok(()),
            Phase::Unwinding => Err(Illegal::Unwinding),
            _ => Err(Illegal::NotNow("it is being abandoned")),
        }
    }

    fn may_unwind(&self) -> Result<(), Illegal> {
        self.may_go_on()?;
        let awaits = self.saga.awaits_no_return(self.definition).is_some();
        if self.saga.past_no_return(self.definition) || (awaits && !Fault::CancelPastNoReturn.is_planted()) {
            return Err(Illegal::PastNoReturn);
        }
        Ok(())
    }

    /// The point of no return is never skipped; what comes after it may be.
    fn may_skip(&self, output: &Json) -> Result<(), Illegal> {
        self.may_go_on()?;
        let step = self.saga.steps.get(self.saga.at);
        match self.definition.command(self.saga.at) {
            None => Err(Illegal::NotNow("a wait is not skipped: send its signal, or resolve what waits for a hand")),
            Some(command) if command.no_return => Err(Illegal::PastNoReturn),
            Some(_) if step.is_some_and(|s| s.undo != Undo::None) => {
                Err(Illegal::NotNow("its round is being replaced"))
            }
            Some(_) if step.is_some_and(|s| s.fence.is_some()) => Err(FENCED),
            Some(_) if self.passed_deadline().is_some() => Err(Illegal::NotNow("a deadline has passed")),
            Some(Command { brings: Some(fits), .. }) => {
                fits(output).map_err(|why| Illegal::Unfit { step: self.name(self.saga.at), why })
            }
            Some(_) => Ok(()),
        }
    }

    /// The first step that waits to be tried again.
    fn may_retry(&self) -> Result<usize, Illegal> {
        if self.passed_deadline().is_some() {
            return Err(Illegal::NotNow("a deadline has passed"));
        }
        (0..self.saga.steps.len())
            .find(|&at| self.saga.steps[at].fence.is_some() || self.effect_waits(at) || self.undo_waits(at))
            .ok_or(Illegal::NotNow("nothing waits to be tried again"))
    }

    fn effect_waits(&self, at: usize) -> bool {
        let step = &self.saga.steps[at];
        let goes = match self.saga.phase {
            Phase::Forward => true,
            Phase::Unwinding => self.definition.steps[at].on_unwinding,
            _ => false,
        };
        goes && step.undo == Undo::None && matches!(step.status, Status::Backoff(_) | Status::Pending(_))
    }

    fn undo_waits(&self, at: usize) -> bool {
        !self.given_up() && matches!(self.saga.steps[at].undo, Undo::GaveUp | Undo::Backoff(_) | Undo::Pending(_))
    }

    fn retry_now(&mut self) {
        for at in 0..self.saga.steps.len() {
            let Some(command) = self.definition.command(at) else { continue };
            match self.saga.steps[at].status {
                _ if self.saga.steps[at].fence.is_some() => self.send_fence(at),
                Status::Pending(_) if self.effect_waits(at) => self.repeat(at, command),
                _ if self.effect_waits(at) => self.send(at, command),
                _ if self.undo_waits(at) => {
                    // All its attempts again; their numbers go on, so that the service knows a new try.
                    let step = &mut self.saga.steps[at];
                    step.undo_spent = step.undo_attempts;
                    self.clear_attention(at);
                    self.send_undo(at);
                }
                _ => {}
            }
        }
    }
}

/// A pending round, also while it is being asked for; but not when it is asked for the last time.
fn may_be_replaced(step: &StepState) -> bool {
    step.pending && !step.last_ask && step.fence.is_none() && step.round < MOST_ROUNDS
}
