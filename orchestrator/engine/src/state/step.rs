//! Where one step of a saga stands.

use eventicket_json::Json;
use serde::{Deserialize, Serialize};

use super::{NEVER, Reason};

/// Where one step stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// The effect.
    #[serde(rename = "s")]
    pub status: Status,
    /// The compensation.
    #[serde(rename = "u", default, skip_serializing_if = "is_default")]
    pub undo: Undo,
    /// 1 for the first.
    #[serde(rename = "r", default = "one", skip_serializing_if = "is_one")]
    pub round: u32,
    /// Attempts of this round; above zero means that it may have reached the service.
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// Attempts of its undo.
    #[serde(rename = "ua", default, skip_serializing_if = "is_default")]
    pub undo_attempts: u32,
    /// First dispatch of the half under way, or the beginning of the wait, ms.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub sent_at: i64,
    /// Rounds of it that were rejected so far.
    #[serde(rename = "d", default, skip_serializing_if = "is_default")]
    pub rejections: u32,
    /// The service has answered `pending` in this round.
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub pending: bool,
    /// The last publish of the half under way was refused: the next one repeats its attempt and spends none.
    #[serde(rename = "g", default, skip_serializing_if = "is_default")]
    pub again: bool,
    /// The only publish of the round's effect was refused: it is counted as dispatched, but holds no deadline off.
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    pub unsent: bool,
    /// A deadline has passed and the pending round was asked once more.
    #[serde(rename = "l", default, skip_serializing_if = "is_default")]
    pub last_ask: bool,
    /// What it brought.
    #[serde(rename = "o", default, skip_serializing_if = "Json::is_null")]
    pub output: Json,
    /// Code and message of the last failure.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<(String, String)>,
    /// What its undo brought.
    #[serde(rename = "uo", default, skip_serializing_if = "Json::is_null")]
    pub undo_output: Json,
    /// Attempts of its undo before an operator had it tried again.
    #[serde(rename = "ub", default, skip_serializing_if = "is_default")]
    pub undo_spent: u32,
    /// The fence that is under way.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// Number of this round's fences so far.
    #[serde(rename = "fn", default, skip_serializing_if = "is_default")]
    pub fences: u32,
    /// The signal's payload that replaces the round once it is undone.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Json>,
}

/// An operator's question to a round's service, which closes what has not begun (6.13). While one is under way, its step
/// has no other timers. It is asked again until it is answered; while its service's breaker is open it is put off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fence {
    /// What its answer is for.
    #[serde(rename = "p")]
    pub purpose: Purpose,
    /// Asked again then, ms.
    #[serde(rename = "d")]
    pub due: i64,
    /// How often it was sent.
    #[serde(rename = "a")]
    pub attempts: u32,
    /// Its service's breaker is open: it is put off, and sent when the breaker lets it.
    #[serde(rename = "h", default, skip_serializing_if = "is_default")]
    pub held: bool,
    /// A former fence found that the effect stands; asked anew until it is given back.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub stands: bool,
}

/// What a fence's answer is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The step is skipped with this output, unless it happened.
    Skip(Json),
    /// The step's undo was done by hand, unless the service did it.
    Resolve,
    /// The saga unwinds with this reason, unless its point of no return happened.
    Compensate(Reason),
    /// The saga is given up.
    Abandon,
}

/// The effect of a step. Times are ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not begun.
    Idle,
    /// Ready to be sent when its service's breaker lets it.
    Held,
    /// Its answer is awaited until then.
    Sent(i64),
    /// Its next attempt is due then.
    Backoff(i64),
    /// The service works on it; asked again then.
    Pending(i64),
    /// A wait, until then where it has a time-out.
    Waiting(Option<i64>),
    /// It happened.
    Done,
    /// It did not happen.
    Rejected,
    /// All attempts are spent: it may have happened.
    Unknown,
    /// Its condition was false.
    Omitted,
    /// An operator skipped it.
    Skipped,
}

/// The compensation of a step. Times are ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Not begun, or nothing to undo.
    #[default]
    None,
    /// Waits for the undo of a later step of the same service.
    Queued,
    /// Ready to be sent when its service's breaker lets it.
    Held,
    /// Its answer is awaited until then.
    Sent(i64),
    /// Its next attempt is due then.
    Backoff(i64),
    /// The service works on it; asked again then.
    Pending(i64),
    /// Nothing is left.
    Done,
    /// It needs an operator.
    GaveUp,
    /// An operator did it by hand.
    Resolved,
}

impl StepState {
    /// A step that has not begun.
    pub fn idle() -> Self {
        Self {
            status: Status::Idle,
            undo: Undo::None,
            round: 1,
            attempts: 0,
            undo_attempts: 0,
            sent_at: 0,
            rejections: 0,
            pending: false,
            again: false,
            unsent: false,
            last_ask: false,
            output: Json::NULL,
            error: None,
            undo_output: Json::NULL,
            undo_spent: 0,
            fence: None,
            fences: 0,
            replacement: None,
        }
    }

    /// When the timer of its effect fires, ms. There is none while its undo or a fence is under way.
    pub(crate) fn effect_due(&self) -> Option<i64> {
        match self.status {
            _ if self.undo != Undo::None || self.fence.is_some() => None,
            Status::Sent(t) | Status::Backoff(t) | Status::Pending(t) if t < NEVER => Some(t),
            Status::Waiting(t) => t,
            _ => None,
        }
    }

    /// When its timers fire next, ms.
    pub fn due(&self) -> Option<i64> {
        if let Some(fence) = &self.fence {
            return Some(fence.due).filter(|due| *due < NEVER);
        }
        match self.undo {
            Undo::Sent(t) | Undo::Backoff(t) | Undo::Pending(t) => Some(t),
            _ => self.effect_due(),
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_one(value: &u32) -> bool {
    *value == 1
}
