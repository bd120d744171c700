//! What is fed to a saga, and what comes out of it.

use std::collections::BTreeSet;

use eventicket_json::Json;
use serde::{Deserialize, Serialize};

use crate::state::{Half, Saga, SignalKey};

/// What happens to a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// It begins; the first input, once.
    Start,
    /// A service has answered.
    Answer {
        /// The step's name.
        step: String,
        /// The round that is answered.
        round: u32,
        /// Do or undo.
        half: Half,
        /// The attempt that is answered, for the history.
        attempt: u32,
        /// The answer.
        answer: Answer,
    },
    /// Something may be due.
    Timer,
    /// A signal from outside.
    Signal {
        /// Its name.
        name: String,
        /// What it brings.
        payload: Json,
        /// A repeat with the same key changes nothing.
        key: Option<SignalKey>,
    },
    /// Somebody acts on it.
    Act {
        /// What to do.
        action: OperatorAction,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// The breaker of a service lets commands through again, or room is there again.
    Released {
        /// The service.
        service: String,
    },
    /// A command was certainly not stored: the same attempt is sent again later.
    Refused {
        /// The step's name.
        step: String,
        /// The round whose command it was.
        round: u32,
        /// Do, undo or fence.
        half: Half,
        /// Its attempt.
        attempt: u32,
        /// It was a repetition, which had spent no attempt.
        resend: bool,
    },
    /// An answer that is [`Illegal`] was dead-lettered: the saga is marked, where it is live.
    Mark {
        /// The step's name, as the answer has it.
        step: String,
        /// Why.
        reason: String,
    },
    /// Whatever is awaited is sent again: its stream or its dispatcher is lost. No attempt is spent.
    Resend,
}

/// What a service answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It happened, with this output.
    Done(Json),
    /// It did not and will not happen.
    Rejected {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// Under way.
    Pending(Json),
    /// Not recorded; try again.
    Retry {
        /// Code or text of the transient failure.
        code: String,
    },
    /// This attempt came too late; says nothing about the round.
    Expired,
    /// Dead-lettered for this reason.
    Dead {
        /// Why.
        reason: String,
    },
    /// To a fence: what is recorded of its round, which is closed now.
    Fenced(Found),
}

/// What a fence found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The fence's number.
    pub id: u32,
    /// Of the effect.
    pub effect: Recorded,
    /// Of the undo, where it was asked for.
    pub undo: Option<Recorded>,
}

/// What a service has recorded of one half of a round.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// It happened, with this output.
    Done(Json),
    /// It was refused for good.
    Rejected {
        /// Stable code.
        code: String,
    },
    /// It had not happened and will not.
    Closed,
}

/// What an operator, or the customer, may do.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorAction {
    /// Unwind, with this code as the reason.
    Cancel {
        /// Stable code.
        code: String,
    },
    /// Try now what waits for its next attempt, or what gave up.
    Retry,
    /// Go on as if the current step had brought this.
    Skip {
        /// The output.
        output: Json,
    },
    /// Begin no further step.
    Pause,
    /// Go on.
    Resume,
    /// The step's undo was done by hand.
    Resolve {
        /// The step's name.
        step: String,
    },
    /// Unwind from where it stands, also where the point of no return was dead-lettered and has not happened.
    Compensate,
    /// Give it up as it is.
    Abandon {
        /// Without waiting for what the services tell of its steps.
        force: bool,
    },
    /// A dead letter of the step was sent again; nothing changes by itself.
    Replayed {
        /// The step's name.
        step: String,
    },
}

/// The world at the time of a transition.
#[derive(Clone, Debug)]
pub struct Moment<'a> {
    /// The time, ms.
    pub now: i64,
    /// Any number, for jitter.
    pub noise: u64,
    /// Services that nothing is sent to now.
    pub closed: &'a BTreeSet<String>,
}

/// What comes out of a transition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// To be carried out once the saga is stored.
    pub effects: Vec<Effect>,
    /// To be appended to its history.
    pub history: Vec<Entry>,
    /// The input had been answered before and changed nothing.
    pub repeated: bool,
}

/// What the runtime does for a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a command.
    Send(Send),
    /// It has ended.
    Ended,
}

/// A command to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// The step's name.
    pub step: String,
    /// Its round.
    pub round: u32,
    /// Do, undo or fence.
    pub half: Half,
    /// What a fence asks; its `action` and `body` are those of the round's effect.
    pub question: Option<Question>,
    /// 1 for the first.
    pub attempt: u32,
    /// A repetition of an attempt that was sent before.
    pub resend: bool,
    /// The service.
    pub service: String,
    /// The action.
    pub action: String,
    /// Not to be carried out after, ms; undos and the point of no return have none.
    pub deadline: Option<i64>,
    /// The body.
    pub body: Json,
}

/// What a fence asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Numbers the fences of a round.
    pub id: u32,
    /// Of the undo, too.
    pub undo: bool,
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// 1, 2, 3, ...
    #[serde(rename = "n")]
    pub seq: u32,
    /// When, ms.
    #[serde(rename = "t")]
    pub at: i64,
    /// What happened.
    #[serde(rename = "w")]
    pub what: What,
    /// The step's name.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The step's round.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// The attempt.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Code of a failure or a reason.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Milliseconds from the half's first dispatch.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<i64>,
    /// Who acted.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why somebody acted.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a history entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each name says it
pub enum What {
    Started,
    Dispatched,
    Held,
    Done,
    Rejected,
    Pending,
    TimedOut,
    Retrying,
    Unknown,
    Dead,
    Omitted,
    Waiting,
    Signalled,
    Replaced,
    Unwinding,
    UndoDispatched,
    UndoHeld,
    Undone,
    UndoTimedOut,
    UndoRetrying,
    UndoPending,
    UndoGaveUp,
    Resent,
    Refused,
    Attention,
    Cancelled,
    RetriedByHand,
    Skipped,
    Paused,
    Resumed,
    Resolved,
    Abandoning,
    Abandoned,
    CompensatedByHand,
    Replayed,
    FenceDispatched,
    Fenced,
    Completed,
    Compensated,
}

/// Why an input is not taken; the saga is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// It has begun already.
    #[error("the saga has begun")]
    Begun,
    /// It has ended.
    #[error("the saga has ended")]
    Ended,
    /// A signal's key came before, with another fingerprint.
    #[error("the key was used for another signal")]
    KeyReused,
    /// It does not wait for this signal.
    #[error("the saga does not wait for {0}")]
    NotAwaited(String),
    /// The point of no return is behind, or its answer alone decides.
    #[error("the point of no return has been reached")]
    PastNoReturn,
    /// It unwinds already.
    #[error("the saga unwinds already")]
    Unwinding,
    /// There is no such step.
    #[error("the definition has no step {0}")]
    NoSuchStep(String),
    /// The answer is to a command that was never dispatched.
    #[error("{0} was never dispatched")]
    NeverDispatched(String),
    /// The answer contradicts the recorded one.
    #[error("{0} was answered otherwise before")]
    Contradiction(String),
    /// Later steps need another output of the step.
    #[error("{step} brings something else: {why}")]
    Unfit {
        /// The step that was to be skipped.
        step: String,
        /// What is wrong with the output.
        why: String,
    },
    /// The action does not fit the state.
    #[error("{0}")]
    NotNow(&'static str),
}

impl Output {
    pub(crate) fn tell(&mut self, saga: &mut Saga, now: i64, what: What) -> &mut Entry {
        saga.seq += 1;
        self.history.push(Entry {
            seq: saga.seq,
            at: now,
            what,
            step: None,
            round: None,
            attempt: None,
            error: None,
            duration: None,
            actor: None,
            reason: None,
        });
        let last = self.history.len() - 1;
        &mut self.history[last]
    }
}
