//! Which sagas: for the list, and for actions in bulk.

use eventicket_contracts::sagas::ListSagas;
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_kit::FieldError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest name of a kind or step.
const MAX_NAME: usize = 64;
/// Longest search text: that of an idempotency key.
const MAX_TEXT: usize = 255;
/// What `state` may be: a state, or `attention` for those that somebody should look at, or `unfinished` for those that
/// have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String", rename_all = "snake_case")]
pub enum StateFilter {
    /// A step is in flight.
    Running,
    /// For a signal, or for a service that works on it.
    Waiting,
    /// By a breaker.
    Held,
    /// By an operator.
    Paused,
    /// Undos are in flight.
    Compensating,
    /// All steps are done.
    Completed,
    /// All is undone.
    Compensated,
    /// Given up by an operator.
    Abandoned,
    /// Somebody should look at it.
    Attention,
    /// It has not ended.
    Unfinished,
}

impl StateFilter {
    const ALL: [Self; 10] = [
        Self::Running,
        Self::Waiting,
        Self::Held,
        Self::Paused,
        Self::Compensating,
        Self::Completed,
        Self::Compensated,
        Self::Abandoned,
        Self::Attention,
        Self::Unfinished,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Abandoned => "abandoned",
            Self::Attention => "attention",
            Self::Unfinished => "unfinished",
        }
    }
}

impl TryFrom<String> for StateFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        named(&Self::ALL, Self::name, &text)
    }
}

/// The one of that name; the error says which there are.
pub fn named<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, text: &str) -> Result<T, String> {
    let names = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| format!("one of {}", names()))
}

/// Which sagas; all of these must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// A state, or `attention` for those that somebody should look at, or `unfinished` for those that have not ended.
    #[schema(example = "attention")]
    pub state: Option<StateFilter>,
    /// Name of the definition.
    #[schema(max_length = 64, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", example = "booking")]
    pub kind: Option<String>,
    /// The step they are at.
    #[schema(max_length = 64, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", example = "PAY")]
    pub step: Option<String>,
    /// About this event.
    pub event: Option<EventId>,
    /// Of this user.
    pub user: Option<CustomerId>,
    /// Started at or after.
    pub from: Option<Timestamp>,
    /// Started before.
    pub to: Option<Timestamp>,
    /// A whole idempotency key, or else how an id begins.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]*$", example = "01936f0e")]
    pub q: Option<String>,
}

impl Filter {
    /// The fields at fault; their names begin with `within`.
    pub fn errors(&self, within: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut fault = |name: &str, code: &str, detail: String| {
            errors.push(FieldError::new(format!("{within}{name}"), code, detail));
        };
        for (name, value) in [("kind", &self.kind), ("step", &self.step)] {
            if value.as_ref().is_some_and(|v| v.chars().count() > MAX_NAME) {
                fault(name, "out_of_range", format!("at most {MAX_NAME} characters"));
            } else if value.as_ref().is_some_and(|v| v.chars().any(char::is_control)) {
                fault(name, "invalid", "no control characters".to_owned());
            }
        }
        let text = |q: &String| (1..=MAX_TEXT).contains(&q.len()) && q.bytes().all(|b| b.is_ascii_graphic());
        if !self.q.as_ref().is_none_or(text) {
            fault("q", "invalid", format!("1 to {MAX_TEXT} visible ASCII characters"));
        }
        errors
    }

    /// A page of them, for the orchestrator.
    pub fn page(self, limit: u32, before: Option<SagaId>) -> ListSagas {
        let Self { state, kind, step, event, user, from, to, q } = self;
        let state = state.map(|state| state.name().to_owned());
        ListSagas { state, kind, step, event, user, from, to, q, limit, before }
    }
}
