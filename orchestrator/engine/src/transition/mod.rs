//! The transition: one total match over (state, input).
//!
//! [`apply`] never panics and never waits. An input that the state does not allow is an [`Illegal`] value and leaves the
//! saga as it was; an input that changes nothing comes back as [`Output::repeated`].
//!
//! * `forward`: entering steps, sending and holding their effects, new rounds.
//! * `answers`: what services answer to effects.
//! * `timers`: what is due, deadlines, breakers, refused and lost publishes.
//! * `outside`: signals and operator actions.
//! * `fence`: what a service tells of a step before an operator's action decides on it.
//! * `unwind`: the way back.

mod answers;
mod fence;
mod forward;
mod outside;
mod timers;
mod unwind;

use crate::definition::{Definition, View};
use crate::input::{Effect, Entry, Illegal, Input, Moment, OperatorAction, Output, What};
use crate::state::{Attention, Phase, Reason, Saga};
use eventicket_planted::Fault;

pub use fence::CLOSED;
pub use outside::OPERATOR;
pub(crate) use timers::{next_deadline, reminder};

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
    let ended = saga.ended();
    let mut run = Run { definition, saga, moment, out: Output::default() };
    run.take(input)?;
    if !run.out.repeated {
        run.settle();
        if !ended && run.saga.ended() {
            run.out.effects.push(Effect::Ended);
        }
    }
    Ok(run.out)
}

/// One transition under way.
struct Run<'a, 'm> {
    definition: &'a Definition,
    saga: &'a mut Saga,
    moment: &'a Moment<'m>,
    out: Output,
}

impl Run<'_, '_> {
    fn take(&mut self, input: Input) -> Result<(), Illegal> {
        match (self.saga.phase, input) {
            (_, Input::Start) if self.saga.seq > 0 => Err(Illegal::Begun),
            (_, Input::Start) => {
                self.tell(What::Started);
                Ok(())
            }
            (_, _) if self.saga.seq == 0 => Err(Illegal::NotNow("it has not begun")),
            (_, Input::Answer { step, round, half, attempt, answer }) => {
                self.answer(&step, round, half, attempt, answer)
            }
            (_, Input::Timer | Input::Released { .. } | Input::Refused { .. } | Input::Resend | Input::Mark { .. })
                if self.saga.ended() =>
            {
                self.out.repeated = true;
                Ok(())
            }
            (_, Input::Signal { key: Some(key), .. }) if self.saga.signals.iter().any(|s| s.key == key.key) => {
                self.out.repeated = true;
                if self.saga.signals.contains(&key) { Ok(()) } else { Err(Illegal::KeyReused) }
            }
            (_, Input::Act { action: OperatorAction::Resolve { step }, actor, reason }) if self.saga.ended() => {
                self.take_note(step, &actor, &reason).map_err(|_| Illegal::Ended)
            }
            (_, Input::Signal { .. } | Input::Act { .. }) if self.saga.ended() => Err(Illegal::Ended),
            (_, Input::Timer) => {
                self.timers();
                Ok(())
            }
            (_, Input::Released { service }) => {
                self.released(&service);
                Ok(())
            }
            (_, Input::Refused { step, round, half, attempt, resend }) => {
                self.refused(&step, round, half, attempt, resend)
            }
            (_, Input::Resend) => {
                self.resend();
                Ok(())
            }
            (_, Input::Mark { step, reason }) => {
                self.out.repeated = !self.mark_named(step, reason);
                Ok(())
            }
            (Phase::Forward, Input::Signal { name, payload, key }) => self.signal(&name, payload, key),
            (_, Input::Signal { name, .. }) => Err(Illegal::NotAwaited(name)),
            (_, Input::Act { action, actor, reason }) => self.act(action, &actor, &reason),
        }
    }

    /// Moves on as far as it goes without another input; deadlines are looked at after every one.
    fn settle(&mut self) {
        if !Fault::OneShotHoldTimer.is_planted() {
            self.deadlines();
        }
        self.forward();
        self.unwind();
    }

    fn begin_unwinding(&mut self, reason: Reason) {
        if self.saga.phase != Phase::Forward {
            return;
        }
        self.saga.phase = Phase::Unwinding;
        self.saga.paused = false;
        let code = reason.code.clone();
        self.saga.reason = Some(reason);
        self.tell(What::Unwinding).error = Some(code);
        self.turn_back();
    }

    /// Marks a step for an operator; the last reason counts.
    fn mark(&mut self, at: usize, reason: String) {
        self.mark_named(self.name(at), reason);
    }

    /// True where it was not marked so before.
    fn mark_named(&mut self, step: String, reason: String) -> bool {
        if self.saga.attention.iter().any(|a| a.step == step && a.reason == reason) {
            return false;
        }
        self.saga.attention.retain(|a| a.step != step);
        let entry = self.tell(What::Attention);
        entry.step = Some(step.clone());
        entry.error = Some(reason.clone());
        self.saga.attention.push(Attention { step, reason });
        true
    }

    fn clear_attention(&mut self, at: usize) {
        let name = self.name(at);
        self.saga.attention.retain(|a| a.step != name);
    }

    /// Whether an operator gave it up, so that nothing but its fences counts.
    fn given_up(&self) -> bool {
        matches!(self.saga.phase, Phase::Abandoning | Phase::Abandoned)
    }

    fn best_effort(&self, at: usize) -> bool {
        self.definition.command(at).is_some_and(|c| c.best_effort)
    }

    fn name(&self, at: usize) -> String {
        self.definition.steps[at].name.clone()
    }

    fn current(&self) -> Option<String> {
        self.definition.steps.get(self.saga.at).map(|s| s.name.clone())
    }

    fn view(&self) -> View<'_> {
        View { definition: self.definition, saga: self.saga }
    }

    /// The time so much later, saturating.
    fn after(&self, delay: std::time::Duration) -> i64 {
        self.moment.now.saturating_add(millis(delay))
    }

    fn tell(&mut self, what: What) -> &mut Entry {
        self.out.tell(self.saga, self.moment.now, what)
    }

    fn tell_step(&mut self, what: What, at: usize) -> &mut Entry {
        let (name, round, attempts) = (self.name(at), self.saga.steps[at].round, self.saga.steps[at].attempts);
        let entry = self.tell(what);
        entry.step = Some(name);
        entry.round = (round > 1).then_some(round);
        entry.attempt = (attempts > 1).then_some(attempts);
        entry
    }

    fn tell_answer(&mut self, what: What, at: usize, attempt: u32) -> &mut Entry {
        let took = self.moment.now.saturating_sub(self.saga.steps[at].sent_at);
        let entry = self.tell_step(what, at);
        entry.attempt = (attempt > 1).then_some(attempt);
        entry.duration = Some(took);
        entry
    }

    /// Tells of an action on the step that the saga is at.
    fn note(&mut self, what: What, actor: &str, reason: &str) {
        self.note_on(what, self.current(), actor, reason);
    }

    fn note_on(&mut self, what: What, step: Option<String>, actor: &str, reason: &str) {
        let entry = self.tell(what);
        entry.step = step;
        entry.actor = Some(actor.to_owned());
        entry.reason = Some(reason.to_owned());
    }
}

/// A duration in ms, saturating.
fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
