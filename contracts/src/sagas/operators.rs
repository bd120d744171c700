//! What operators ask for: actions in bulk, breakers, dead letters.

use serde::{Deserialize, Serialize};

use super::{Action, ListSagas};
use crate::{SagaId, Timestamp};

/// Query: [`BulkAct`] to [`BulkAnswer`].
pub const BULK: &str = "bulk";
/// Query: null to `Vec<BreakerView>`, by service.
pub const BREAKERS: &str = "breakers";
/// Query: [`SetBreaker`] to `Option<BreakerView>`; `None` where no saga calls such a service.
pub const SET_BREAKER: &str = "set_breaker";
/// Query: [`ListDeadLetters`] to [`DeadLetterPage`], oldest first.
pub const DEAD_LETTERS: &str = "dead_letters";
/// Query: a dead letter's number to `Option<DeadLetterDetail>`.
pub const DEAD_LETTER: &str = "dead_letter";
/// Query: [`HandleDeadLetter`] to `Option<Replayed>`: sent again on the subject that it came on, then taken off the list.
pub const REPLAY: &str = "replay";
/// Query: [`HandleDeadLetter`] to `Option<DeadLetter>`: taken off the list, unless one of its sagas has not ended
/// ([`codes::SAGA_UNFINISHED`](crate::codes::SAGA_UNFINISHED)).
pub const DISCARD: &str = "discard";

/// Acts on a page of the sagas that a filter finds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BulkAct {
    /// Which sagas; `limit` and `before` page through them.
    pub filter: ListSagas,
    /// What to do.
    pub action: Action,
    /// Who acts.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Tells what would become of each without doing it.
    pub dry_run: bool,
}

/// What became of a bulk action's page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BulkAnswer {
    /// One a saga, newest first.
    pub items: Vec<BulkItem>,
    /// Where the next page begins, where more sagas match.
    pub next: Option<SagaId>,
}

/// What became, or would become, of one saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BulkItem {
    /// The saga.
    pub id: SagaId,
    /// Name of its definition.
    pub kind: String,
    /// Its state before.
    pub state: String,
    /// `done`, or why not, as `past_no_return`.
    #[schema(example = "done")]
    pub outcome: String,
}

/// A service's breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BreakerView {
    /// The service whose commands it lets through or holds.
    #[schema(example = "payments")]
    pub service: String,
    /// `closed`, `open` or `half_open`.
    #[schema(example = "open")]
    pub state: String,
    /// `auto`, or `open` or `closed` as an operator set it.
    #[schema(example = "auto")]
    pub mode: String,
    /// When the next probe may go, or the probe under way counts as lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Sagas that it holds.
    pub held: u64,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Sets a breaker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetBreaker {
    /// The service.
    pub service: String,
    /// To what.
    pub mode: BreakerMode,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// How a breaker is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerMode {
    /// Holds everything until it is set otherwise.
    Open,
    /// Lets everything through until it is set otherwise.
    Closed,
    /// Counts again, from closed.
    Auto,
}

/// Reads dead letters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListDeadLetters {
    /// By service.
    pub service: Option<String>,
    /// By action.
    pub action: Option<String>,
    /// 1 to 100.
    pub limit: u32,
    /// Only with a higher number.
    pub after: Option<u64>,
}

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterPage {
    /// The letters.
    pub items: Vec<DeadLetter>,
    /// The last one's number where more follow.
    pub next: Option<u64>,
}

/// A message that could not be handled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadLetter {
    /// Its number.
    #[schema(example = 1)]
    pub id: u64,
    /// The service that could not handle it; `orchestrator` for replies.
    #[schema(example = "payments")]
    pub service: String,
    /// The action.
    #[schema(example = "charge")]
    pub action: String,
    /// Why.
    pub reason: String,
    /// The subject that it came on.
    pub subject: String,
    /// The sagas that it is about.
    pub sagas: Vec<SagaId>,
    /// When it was delivered first.
    pub first_delivery: Timestamp,
    /// When it was given up.
    pub last_delivery: Timestamp,
    /// How often it was delivered.
    pub deliveries: u64,
}

/// A dead letter with its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadLetterDetail {
    /// The same as in lists.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The message as text; payment methods in it are sealed.
    pub payload: String,
}

/// Sends a dead letter again, or discards it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandleDeadLetter {
    /// Its number.
    pub id: u64,
    /// Who.
    pub actor: String,
    /// Why; of one that is sent again it stands in the history of its sagas.
    pub reason: String,
}

/// A dead letter was sent again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Replayed {
    /// Its number.
    pub id: u64,
    /// The subject that it was sent on.
    pub subject: String,
    /// The sagas that it is about.
    pub sagas: Vec<SagaId>,
}
