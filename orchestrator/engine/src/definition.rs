//! What a saga is made of.

mod soundness;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eventicket_json::Json;
use uuid::Uuid;

use crate::state::{Saga, Status};

pub use soundness::Unsound;

/// Builds a command's body from what is known; an error is a defect of the definition and rejects the step.
pub type Body = Arc<dyn Fn(&View<'_>) -> Result<Json, String> + Send + Sync>;
/// Whether a step takes place.
pub type Condition = Arc<dyn Fn(&View<'_>) -> bool + Send + Sync>;
/// A point in time in milliseconds since 1970, once it is known.
pub type When = Arc<dyn Fn(&View<'_>) -> Option<i64> + Send + Sync>;
/// Whether an output is what later steps need; the error says what is wrong with it.
pub type Fits = Arc<dyn Fn(&Json) -> Result<(), String> + Send + Sync>;

/// A saga's definition. Old versions stay registered while any saga runs under them.
#[derive(Clone)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Rises with each change of its steps.
    pub version: u32,
    /// In the order in which they are carried out.
    pub steps: Vec<Step>,
    /// Points in time that start the unwinding.
    pub deadlines: Vec<Deadline>,
}

/// A point in time at which the saga unwinds.
#[derive(Clone)]
pub struct Deadline {
    /// The reason that the saga then ends with.
    pub reason: String,
    /// When; `None` while unknown.
    pub at: When,
    /// Steps that hold it off while they are in flight, done or skipped by an operator: a paid booking goes on.
    pub unless: Vec<String>,
}

/// One step.
#[derive(Clone)]
pub struct Step {
    /// Its name, as `PAY`; unique in the definition.
    pub name: String,
    /// Skipped where this is false; always taken where there is none.
    pub condition: Option<Condition>,
    /// A command or a wait.
    pub kind: Kind,
    /// Left out on the way forward; its command is sent once the saga unwinds and its condition holds, and the saga ends
    /// only after it.
    pub on_unwinding: bool,
}

/// What a step does.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // a process holds each definition once
pub enum Kind {
    /// Sends a command to a service.
    Command(Command),
    /// Waits for a signal.
    Wait(Wait),
}

/// An action of a service with its body.
#[derive(Clone)]
pub struct Call {
    /// The service, as `bookings`.
    pub service: String,
    /// The action, as `reserve`.
    pub action: String,
    /// Builds the body.
    pub body: Body,
}

/// A step that sends a command.
#[derive(Clone)]
pub struct Command {
    /// The effect.
    pub call: Call,
    /// Its compensation; none where nothing is left to undo.
    pub undo: Option<Call>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// When the effect is tried again.
    pub retry: Retry,
    /// When the compensation is tried again; when it gives up, the step is marked for attention.
    pub undo_retry: Retry,
    /// Once dispatched only its answer decides; it is sent again without limit.
    pub no_return: bool,
    /// A failure does not unwind the saga.
    pub best_effort: bool,
    /// What a rejection leads to.
    pub on_rejection: OnRejection,
    /// A signal that replaces a pending round: its undo first, then the next round. An earlier wait for the same signal
    /// takes its payload.
    pub replaced_by: Option<String>,
    /// How long a pending round waits before it is asked again.
    pub ask_every: Duration,
    /// What later steps need of its output: an operator skips it with one that fits.
    pub brings: Option<Fits>,
}

/// What a rejection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnRejection {
    /// The saga unwinds.
    Unwind,
    /// The saga waits again at the named wait, and the step takes a new round, at most so many in all.
    BackTo {
        /// Name of a wait before this step, with nothing but waits between the two.
        wait: String,
        /// Most rejected rounds; replaced ones do not count.
        rounds: u32,
    },
}

/// A step that waits for a signal; its output is the signal's payload.
#[derive(Clone)]
pub struct Wait {
    /// The signal's name.
    pub signal: String,
    /// The saga unwinds with `reason` when it has waited so long.
    pub timeout: Option<(Duration, String)>,
    /// It waits for an operator: marked for attention with this reason, until the step is resolved.
    pub by_hand: Option<String>,
}

/// Exponential backoff.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Most attempts, the first one included.
    pub attempts: u32,
    /// Delay after the first attempt.
    pub first: Duration,
    /// Longest delay.
    pub longest: Duration,
    /// Share of the delay, 0 to 1, that chance takes away.
    pub jitter: f64,
    /// Codes of transient failures after which trying again is pointless.
    pub not_on: Vec<String>,
}

impl Retry {
    /// Doubles from `first` up to `longest`, a quarter of it left to chance.
    pub fn new(attempts: u32, first: Duration, longest: Duration) -> Self {
        Self { attempts, first, longest, jitter: 0.25, not_on: Vec::new() }
    }

    /// The delay in ms after the given attempt (1 is the first); `noise` is any number.
    pub fn delay(&self, attempt: u32, noise: u64) -> i64 {
        let doubled = self.first.saturating_mul(1_u32 << attempt.saturating_sub(1).min(20));
        let full = doubled.min(self.longest).as_millis() as f64;
        let share = (noise % 1_000) as f64 / 1_000.0;
        (full * (1.0 - self.jitter.clamp(0.0, 1.0) * share)) as i64
    }

    /// The longest time from the first dispatch to giving up, each attempt running into its `timeout`.
    pub fn budget(&self, timeout: Duration) -> Duration {
        let delays: i64 = (1..self.attempts).map(|a| self.delay(a, 0)).sum();
        timeout.saturating_mul(self.attempts) + Duration::from_millis(u64::try_from(delays).unwrap_or(0))
    }
}

/// What bodies and conditions see.
pub struct View<'a> {
    /// The definition.
    pub definition: &'a Definition,
    /// The saga.
    pub saga: &'a Saga,
}

impl<'a> View<'a> {
    /// What the saga was started with.
    pub fn input(&self) -> &'a Json {
        &self.saga.input
    }

    /// The output of a step that is done or skipped with one, or the payload of a wait's signal.
    pub fn output(&self, step: &str) -> Option<&'a Json> {
        let at = self.definition.position(step)?;
        self.saga.steps.get(at).map(|s| &s.output).filter(|o| !o.is_null())
    }

    /// The current round of a step.
    pub fn round(&self, step: &str) -> u32 {
        self.definition.position(step).and_then(|at| self.saga.steps.get(at)).map_or(1, |s| s.round)
    }

    /// Whether a step's effect is known to have happened.
    pub fn is_done(&self, step: &str) -> bool {
        let at = self.definition.position(step);
        at.and_then(|at| self.saga.steps.get(at)).is_some_and(|s| s.status == Status::Done)
    }

    /// What a step's undo brought, once it is done.
    pub fn undo_output(&self, step: &str) -> Option<&'a Json> {
        let at = self.definition.position(step)?;
        self.saga.steps.get(at).map(|s| &s.undo_output).filter(|o| !o.is_null())
    }

    /// Why the saga unwinds.
    pub fn reason(&self) -> Option<&'a str> {
        self.saga.reason.as_ref().map(|r| r.code.as_str())
    }

    /// The saga's id.
    pub fn id(&self) -> Uuid {
        self.saga.id
    }
}

impl Definition {
    /// Where a step stands.
    pub fn position(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|s| s.name == step)
    }

    /// The step's command, `None` for a wait.
    pub fn command(&self, at: usize) -> Option<&Command> {
        match &self.steps.get(at)?.kind {
            Kind::Command(c) => Some(c),
            Kind::Wait(_) => None,
        }
    }

    /// The services that the effects of this definition call.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|s| match &s.kind {
            Kind::Command(c) => Some(c.call.service.as_str()),
            Kind::Wait(_) => None,
        })
    }
}

impl Step {
    /// A step that sends a command.
    pub fn command(name: &str, command: Command) -> Self {
        Self { name: name.into(), condition: None, kind: Kind::Command(command), on_unwinding: false }
    }

    /// A step that waits for a signal.
    pub fn wait(name: &str, signal: &str, timeout: Option<(Duration, String)>) -> Self {
        let wait = Wait { signal: signal.into(), timeout, by_hand: None };
        Self { name: name.into(), condition: None, kind: Kind::Wait(wait), on_unwinding: false }
    }

    /// A step that an operator does by hand, and then resolves; `why` is the reason of its mark.
    pub fn by_hand(name: &str, why: &str) -> Self {
        let wait = Wait { signal: name.into(), timeout: None, by_hand: Some(why.into()) };
        Self { name: name.into(), condition: None, kind: Kind::Wait(wait), on_unwinding: false }
    }

    /// As a best-effort step of the way back: it takes place only when the saga unwinds.
    #[must_use]
    pub fn on_unwinding(mut self) -> Self {
        self.on_unwinding = true;
        if let Kind::Command(command) = &mut self.kind {
            command.best_effort = true;
        }
        self
    }

    /// Takes place only where the condition holds.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&View<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }
}

impl Call {
    /// An action of a service.
    pub fn new(
        service: &str,
        action: &str,
        body: impl Fn(&View<'_>) -> Result<Json, String> + Send + Sync + 'static,
    ) -> Self {
        Self { service: service.into(), action: action.into(), body: Arc::new(body) }
    }
}

impl Command {
    /// A command with four attempts of five seconds, whose undo is tried for about an hour.
    pub fn new(call: Call) -> Self {
        Self {
            call,
            undo: None,
            timeout: Duration::from_secs(5),
            retry: Retry::new(4, Duration::from_millis(200), Duration::from_secs(5)),
            undo_retry: Retry::new(70, Duration::from_millis(200), Duration::from_secs(60)),
            no_return: false,
            best_effort: false,
            on_rejection: OnRejection::Unwind,
            replaced_by: None,
            ask_every: Duration::from_secs(30),
            brings: None,
        }
    }

    /// With this compensation.
    #[must_use]
    pub fn undo(mut self, call: Call) -> Self {
        self.undo = Some(call);
        self
    }

    /// With this time for each attempt.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With an output that later steps need: an operator skips it only with one that fits, the others are told why not.
    #[must_use]
    pub fn brings(mut self, fits: impl Fn(&Json) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.brings = Some(Arc::new(fits));
        self
    }

    /// With this retry policy.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// As the point of no return.
    #[must_use]
    pub fn no_return(mut self) -> Self {
        self.no_return = true;
        self
    }

    /// As a step whose failure does not unwind the saga.
    #[must_use]
    pub fn best_effort(mut self) -> Self {
        self.best_effort = true;
        self
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} [", self.name, self.version)?;
        for s in &self.steps {
            write!(f, " {}", s.name)?;
        }
        f.write_str(" ]")
    }
}
