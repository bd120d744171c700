//! Requests to the orchestrator and what it tells of sagas.
//!
//! * `booking`: the booking saga's input and what its customer sees of it.
//! * `in_flight`: how much is under way, for those who start sagas.
//! * `operators`: bulk actions, breakers, dead letters.

mod booking;
mod in_flight;
mod operators;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::identity::Idempotency;
use crate::{CustomerId, EventId, Json, SagaId, Timestamp};

pub use booking::{
    BOOKING, BookedItem, BookingInput, BookingStatus, BookingView, GET_BOOKINGS, GetBooking, LIST_BOOKINGS,
    ListBookings, PAYMENT_METHOD, PaymentMethod, RefundStatus, surely_called,
};
pub use in_flight::{InFlight, room};
pub use operators::{
    BREAKERS, BULK, BreakerMode, BreakerView, BulkAct, BulkAnswer, BulkItem, DEAD_LETTER, DEAD_LETTERS, DISCARD,
    DeadLetter, DeadLetterDetail, DeadLetterPage, HandleDeadLetter, ListDeadLetters, REPLAY, Replayed, SET_BREAKER,
    SetBreaker,
};

/// Name of the saga that puts an event, or a change of it, on sale.
pub const PUBLISH_EVENT: &str = "publish_event";
/// Name of the saga that stands for a refund which failed after it had succeeded.
pub const FAILED_REFUND: &str = "failed_refund";

/// An item of an envelope that is a core NATS request on [`crate::subjects::START`]. The answers, after the commit, are
/// envelopes of [`AnsweredStart`] on the request's reply subject: of all items together, or of some at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartSaga {
    /// The saga's id, made by the asker; a repeat with the same id or the same owner and key finds the first.
    pub id: SagaId,
    /// Name of its definition.
    pub definition: String,
    /// Whose it is, for owner checks and lists.
    pub owner: Option<CustomerId>,
    /// Unique with the owner.
    pub idempotency: Option<Idempotency>,
    /// The event it is about, for filters and as the ordering key of its commands.
    pub event: Option<EventId>,
    /// The definition's input.
    pub input: Json,
    /// The asker has given up after this; a start that is older is dropped.
    #[serde(with = "crate::time::millis")]
    pub give_up_at: Timestamp,
    /// W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The asker waits for what becomes of it, so that a view of the saga as it begins is not needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
}

/// The answer to one start of an envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnsweredStart {
    /// The start's id, whatever saga its answer names; nil where the start could not be read.
    pub id: SagaId,
    /// What became of it.
    pub answer: StartAnswer,
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAnswer {
    /// The saga is committed.
    Started {
        /// Its id: an earlier one's where the key was known.
        id: SagaId,
        /// False where the key or id was known.
        created: bool,
        /// The definition's view of it, as [`BookingView`]; null where it is new and its asker is blind.
        #[serde(default, skip_serializing_if = "Json::is_null")]
        view: Json,
    },
    /// The key is known with another body.
    KeyReused,
    /// Not admitted now.
    Busy {
        /// When it is worth another try.
        retry_after_ms: u64,
    },
    /// The input, or the definition's name, is not acceptable.
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
}

/// Core NATS request on [`crate::subjects::ACT`]; the answer is an [`ActAnswer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Act {
    /// The saga.
    pub saga: SagaId,
    /// Only where it belongs to this customer; `None` for operators.
    pub owner: Option<CustomerId>,
    /// Who acts.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What to do.
    pub action: Action,
    /// W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// What can be done to a saga from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Unwind it, as its customer would; refused once the point of no return is dispatched.
    Cancel,
    /// Deliver a signal to its wait.
    Signal {
        /// The wait's name for it.
        name: String,
        /// What it brings.
        payload: Json,
        /// A repeat with the same key changes nothing and is answered as the first was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency: Option<Idempotency>,
    },
    /// Try now what waits for its next attempt, or what gave up.
    Retry,
    /// Go on as if the current step had brought this output.
    Skip {
        /// The output.
        #[serde(default)]
        output: Json,
    },
    /// Unwind it from where it stands, also where its point of no return was dead-lettered and has not happened.
    Compensate,
    /// Begin no further step.
    Pause,
    /// Go on.
    Resume,
    /// What the step waits for (its undo that gave up, or a hand) was done by hand.
    Resolve {
        /// The step.
        step: String,
    },
    /// Give it up as it stands.
    Abandon {
        /// Without waiting for what its services tell of it.
        #[serde(default)]
        force: bool,
    },
    /// A dead letter of the step was sent again; only a replay says so, and nothing changes by itself.
    Replayed {
        /// The step.
        step: String,
    },
}

impl Action {
    /// As it stands in REST paths and in the history, as `retry`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Signal { .. } => "signal",
            Self::Retry => "retry",
            Self::Skip { .. } => "skip",
            Self::Compensate => "compensate",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Resolve { .. } => "resolve",
            Self::Abandon { .. } => "abandon",
            Self::Replayed { .. } => "replayed",
        }
    }
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActAnswer {
    /// It is in the saga's history.
    Done {
        /// The definition's view of the saga now.
        view: Json,
        /// It had been done before, by a request with the same key.
        #[serde(default)]
        repeated: bool,
    },
    /// No such saga, or another's.
    NotFound,
    /// Not possible in its state.
    Conflict {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
}

/// One change of status, broadcast on [`crate::subjects::STATUS`] in arrays after the commit; a hint, which may be lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The saga.
    pub id: SagaId,
    /// As [`BookingView::status`], or the saga's state where its definition has no status of its own.
    pub status: String,
    /// The saga's version: higher is later.
    pub version: i64,
    /// The definition's view of it, where somebody may wait for this status: all but `pending`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Json>,
}

/// Query: [`ListSagas`] to `Page<SagaSummary>`, newest first.
pub const LIST_SAGAS: &str = "sagas";
/// Query: [`SagaId`] to `Option<SagaDetail>`.
pub const GET_SAGA: &str = "saga";
/// Query: [`SagaId`] to `Option<Vec<HistoryEntry>>`, oldest first.
pub const HISTORY: &str = "history";

/// Reads sagas.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListSagas {
    /// By state, or `attention`, or `unfinished`.
    pub state: Option<String>,
    /// By the definition's name.
    pub kind: Option<String>,
    /// By the current step's name.
    pub step: Option<String>,
    /// By event.
    pub event: Option<EventId>,
    /// By owner.
    pub user: Option<CustomerId>,
    /// Started at or after.
    pub from: Option<Timestamp>,
    /// Started before.
    pub to: Option<Timestamp>,
    /// A whole idempotency key, or else how an id begins.
    pub q: Option<String>,
    /// 1 to 100; in bulk 1 to 500.
    pub limit: u32,
    /// Only older than this one.
    pub before: Option<SagaId>,
}

/// A page of a list, with where the next begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The last item's id where more follow.
    pub next: Option<Uuid>,
}

/// A saga in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SagaSummary {
    /// Its id.
    pub id: SagaId,
    /// Name of its definition.
    pub kind: String,
    /// The definition's version under which it runs.
    pub definition_version: u32,
    /// Its state, as `running`.
    pub state: String,
    /// The step it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The definition's own word for where it stands, as a booking's status.
    pub status: String,
    /// What an operator should look at.
    pub attention: Vec<Attention>,
    /// The event it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<CustomerId>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Trace of its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Rises with each change.
    pub version: i64,
}

/// A mark for an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attention {
    /// The step.
    pub step: String,
    /// Why.
    pub reason: String,
}

/// A saga with its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SagaDetail {
    /// The same as in lists.
    #[serde(flatten)]
    pub summary: SagaSummary,
    /// What it was started with; payment methods are sealed.
    pub input: Value,
    /// By step, in the order of its definition.
    pub steps: Vec<SagaStep>,
}

/// Where one step of a saga stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SagaStep {
    /// Its name.
    pub name: String,
    /// As `dispatched`, `done`, `undone`.
    pub state: String,
    /// The round it is in.
    pub round: u32,
    /// Sends that were counted in this round.
    pub attempts: u32,
    /// What it brought.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// The last error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One entry of a saga's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryEntry {
    /// 1, 2, 3, ...
    pub seq: u32,
    /// When.
    pub at: Timestamp,
    /// What happened, as `dispatched`, `done`, `rejected`, `cancelled`.
    pub what: String,
    /// The step, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The step's round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// The attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Code and message of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From the dispatch to the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Who acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}
