//! Where a saga stands. The runtime stores as JSON what changes in it; fields at their default are left out.

use eventicket_json::Json;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::definition::Definition;

mod step;

pub use step::{Fence, Purpose, Status, StepState, Undo};

use step::is_default;

/// A time that does not come: the due time of a point of no return that was dead-lettered.
pub const NEVER: i64 = i64::MAX;

/// A saga. The first five never change and are not in its JSON; [`Saga::read`] takes them from beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Its id.
    #[serde(skip)]
    pub id: Uuid,
    /// Name of its definition.
    #[serde(skip)]
    pub definition: String,
    /// The definition's version that it runs under until it ends.
    #[serde(skip)]
    pub version: u32,
    /// What it was started with.
    #[serde(skip)]
    pub input: Json,
    /// When it was started, ms.
    #[serde(skip)]
    pub started_at: i64,
    /// Forward, back, or ended.
    pub phase: Phase,
    /// No new step begins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused: bool,
    /// Index of the step that it is at.
    pub at: usize,
    /// One a step of the definition.
    pub steps: Vec<StepState>,
    /// Why it unwinds or was abandoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Keys of the signals that it took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<SignalKey>,
    /// Marks for an operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<Attention>,
    /// Number of the last history entry.
    pub seq: u32,
}

/// What never changes in a saga.
#[derive(Clone, Debug)]
pub struct Origin {
    /// [`Saga::id`].
    pub id: Uuid,
    /// [`Saga::definition`].
    pub definition: String,
    /// [`Saga::version`].
    pub version: u32,
    /// [`Saga::input`].
    pub input: Json,
    /// [`Saga::started_at`].
    pub started_at: i64,
}

/// A signal's idempotency key, with the fingerprint of what it came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalKey {
    /// As its sender chose it.
    #[serde(rename = "k")]
    pub key: String,
    /// Tells another signal with the same key from a repeat.
    #[serde(rename = "f")]
    pub fingerprint: String,
}

/// Which way a saga goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Towards its end.
    Forward,
    /// Back: undos are under way.
    Unwinding,
    /// An operator gives it up: what its services tell of its steps is awaited.
    Abandoning,
    /// All steps are done.
    Completed,
    /// All that had happened is undone.
    Compensated,
    /// An operator gave it up.
    Abandoned,
}

/// A saga's state as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A step is in flight.
    Running,
    /// At a wait, or a round is pending.
    Waiting,
    /// A target's breaker is open; no attempt is spent.
    Held,
    /// An operator stopped it.
    Paused,
    /// Undos are in flight.
    Compensating,
    /// Ended: all steps done.
    Completed,
    /// Ended: undone.
    Compensated,
    /// Ended: given up by an operator.
    Abandoned,
}

impl State {
    /// As it stands in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Why a saga unwinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable code.
    pub code: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The step that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A mark for an operator on a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    /// The step's name.
    pub step: String,
    /// Why.
    pub reason: String,
}

/// Do or undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// The effect.
    Do,
    /// Its compensation.
    Undo,
    /// An operator's question to the service, which closes what has not begun.
    Fence,
}

impl Saga {
    /// A saga that has not begun.
    pub fn new(id: Uuid, definition: &Definition, input: Json, now: i64) -> Self {
        Self {
            id,
            definition: definition.name.clone(),
            version: definition.version,
            input,
            started_at: now,
            phase: Phase::Forward,
            paused: false,
            at: 0,
            steps: definition.steps.iter().map(|_| StepState::idle()).collect(),
            reason: None,
            signals: Vec::new(),
            attention: Vec::new(),
            seq: 0,
        }
    }

    /// Reads a saga back from its JSON and what was stored beside it.
    ///
    /// # Errors
    /// It is not the JSON of a saga.
    pub fn read(origin: Origin, json: &str) -> serde_json::Result<Self> {
        let Origin { id, definition, version, input, started_at } = origin;
        Ok(Self { id, definition, version, input, started_at, ..serde_json::from_str(json)? })
    }

    /// What never changes in it.
    pub fn origin(&self) -> Origin {
        let (definition, input) = (self.definition.clone(), self.input.clone());
        Origin { id: self.id, definition, version: self.version, input, started_at: self.started_at }
    }

    /// Whether nothing will happen any more. One that was abandoned goes on until its fences are answered and what they
    /// found is given back.
    pub fn ended(&self) -> bool {
        match self.phase {
            Phase::Completed | Phase::Compensated => true,
            Phase::Abandoned => self.steps.iter().all(|s| s.fence.is_none()),
            Phase::Forward | Phase::Unwinding | Phase::Abandoning => false,
        }
    }

    /// The state as operators see it.
    pub fn state(&self) -> State {
        let held = || self.steps.iter().any(|s| s.status == Status::Held || s.undo == Undo::Held);
        match self.phase {
            Phase::Completed => State::Completed,
            Phase::Compensated => State::Compensated,
            Phase::Abandoned => State::Abandoned,
            Phase::Unwinding if held() => State::Held,
            Phase::Unwinding | Phase::Abandoning => State::Compensating,
            Phase::Forward if self.paused => State::Paused,
            Phase::Forward if held() => State::Held,
            Phase::Forward => match self.steps.get(self.at).map(|s| s.status) {
                Some(Status::Pending(NEVER)) => State::Running,
                Some(Status::Waiting(_) | Status::Pending(_)) => State::Waiting,
                _ => State::Running,
            },
        }
    }

    /// When it wants [`crate::Input::Timer`] next, ms; `definition` must be its own.
    pub fn next_due(&self, definition: &Definition) -> Option<i64> {
        if self.ended() {
            return None;
        }
        let steps = self.steps.iter().filter_map(StepState::due);
        let reminder = crate::transition::reminder(definition, self).map(|(due, _)| due);
        steps.chain(crate::transition::next_deadline(definition, self)).chain(reminder).min()
    }

    /// The position of the dispatched point of no return whose answer alone decides.
    pub fn awaits_no_return(&self, definition: &Definition) -> Option<usize> {
        (0..self.steps.len()).find(|&at| {
            definition.command(at).is_some_and(|c| c.no_return)
                && self.steps[at].attempts > 0
                && matches!(
                    self.steps[at].status,
                    Status::Held | Status::Sent(_) | Status::Backoff(_) | Status::Pending(_)
                )
        })
    }

    /// Whether the point of no return is done.
    pub fn past_no_return(&self, definition: &Definition) -> bool {
        (0..self.steps.len())
            .any(|at| definition.command(at).is_some_and(|c| c.no_return) && self.steps[at].status == Status::Done)
    }
}
