//! A charge as its row records it.

use eventicket_contracts::envelope::{Answer, Half, Key, Rejection, Reply};
use eventicket_contracts::payments::{Charged, Refunded};
use eventicket_contracts::{CustomerId, Money, codes};
use serde_json::json;

/// Where a charge stands. `Open` to `Pending` and `Closing`, `Refunding` are driven on; the others have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted; no intent's id is committed, so that none is ever confirmed.
    Open,
    /// The intent's id is committed: it may be confirmed.
    Created,
    /// Refused in some way: its intent is being cancelled, and what the cancel finds is the end.
    Cancelling,
    /// The bank or the customer takes time.
    Pending,
    /// The money was taken.
    Done,
    /// It was not and will not be.
    Rejected,
    /// Closed by an undo: its intent is being cancelled, or refunded where it has succeeded.
    Closing,
    /// Closed by an undo, and paid: being refunded.
    Refunding,
    /// The money was given back.
    Refunded,
    /// Closed by an undo before any money was taken.
    Void,
    /// An undo came before the charge, which is refused for ever.
    Tombstone,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Created,
        Self::Cancelling,
        Self::Pending,
        Self::Done,
        Self::Rejected,
        Self::Closing,
        Self::Refunding,
        Self::Refunded,
        Self::Void,
        Self::Tombstone,
    ];

    /// As the table names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Created => "created",
            Self::Cancelling => "cancelling",
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Closing => "closing",
            Self::Refunding => "refunding",
            Self::Refunded => "refunded",
            Self::Void => "void",
            Self::Tombstone => "tombstone",
        }
    }

    /// The state of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a driver has to go on with it.
    pub const fn is_due(self) -> bool {
        match self {
            Self::Open | Self::Created | Self::Cancelling | Self::Pending | Self::Closing | Self::Refunding => true,
            Self::Done | Self::Rejected | Self::Refunded | Self::Void | Self::Tombstone => false,
        }
    }

    /// Whether an intent may still be confirmed, so that the payment method is needed.
    pub const fn needs_method(self) -> bool {
        matches!(self, Self::Open | Self::Created)
    }
}

/// How the do ended; an undo does not change it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered `done`.
    Done,
    /// Answered `rejected`.
    Rejected,
}

/// What is charged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub customer: CustomerId,
    pub amount: Money,
    pub description: String,
    /// Sealed; none once it cannot be needed any more.
    pub method: Option<String>,
}

/// How often a gateway key was replaced, since a failure was stored under it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Keys {
    pub create: u32,
    pub confirm: u32,
    pub refund: u32,
}

/// Where an end is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asker {
    pub reply_to: String,
    pub attempt: u32,
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Charge {
    pub key: Key,
    pub state: State,
    pub version: i32,
    /// None in a tombstone only.
    pub terms: Option<Terms>,
    pub intent: Option<String>,
    pub keys: Keys,
    pub refund: Option<String>,
    pub refunded: Option<i64>,
    pub outcome: Option<Outcome>,
    /// Of the do; beside no outcome it is what a cancel will make final.
    pub rejection: Option<Rejection>,
    pub asker: Option<Asker>,
    pub undo_asker: Option<Asker>,
    /// Of the command; not kept in the table.
    pub trace: Option<String>,
}

impl Charge {
    /// A charge that nothing was done for yet.
    pub fn new(key: Key, terms: Option<Terms>) -> Self {
        Self {
            key,
            state: State::Open,
            version: 0,
            terms,
            intent: None,
            keys: Keys::default(),
            refund: None,
            refunded: None,
            outcome: None,
            rejection: None,
            asker: None,
            undo_asker: None,
            trace: None,
        }
    }

    /// The row after a write that leaves it in `state`.
    pub fn next(&self, state: State) -> Self {
        let mut next = Self { state, version: self.version + 1, ..self.clone() };
        if let Some(terms) = next.terms.as_mut().filter(|_| !state.needs_method()) {
            terms.method = None;
        }
        next
    }

    /// The same, with the do rejected for good.
    pub fn rejected(&self, state: State, code: &str, message: impl Into<String>) -> Self {
        let rejection = Some(Rejection { code: code.to_owned(), message: message.into() });
        Self { outcome: Some(Outcome::Rejected), rejection, ..self.next(state) }
    }

    /// What is known of the do; `None` while it is under way.
    pub fn answer(&self) -> Option<Answer> {
        match (self.outcome, self.state) {
            (Some(Outcome::Done), _) => Some(Answer::done(Charged { intent: self.intent.clone().unwrap_or_default() })),
            (Some(Outcome::Rejected), _) => {
                let undone = || Rejection { code: codes::UNDONE.into(), message: UNDONE.into() };
                Some(Answer::Rejected(self.rejection.clone().unwrap_or_else(undone)))
            }
            (None, State::Pending) => Some(Answer::Pending(json!({ "intent": self.intent }))),
            (None, _) => None,
        }
    }

    /// What is known of the undo; `None` while it is under way or where none was asked for.
    pub fn undo_answer(&self) -> Option<Answer> {
        match self.state {
            State::Refunded => Some(Answer::done(Refunded { amount: self.terms.as_ref().map(|terms| terms.amount) })),
            State::Rejected | State::Void | State::Tombstone => Some(Answer::done(Refunded { amount: None })),
            State::Open | State::Created | State::Cancelling | State::Pending | State::Done => None,
            State::Closing | State::Refunding => None,
        }
    }

    /// The replies that leave once the change from `before` is committed, with their subjects.
    pub fn replies(&self, before: &Self) -> Vec<(String, Reply)> {
        let reply = |asker: &Option<Asker>, half, answer| {
            let asker = asker.as_ref()?;
            let (key, trace) = (self.key.clone(), self.trace.clone());
            Some((asker.reply_to.clone(), Reply { key, half, attempt: asker.attempt, answer, trace }))
        };
        let told = before.answer();
        let end = self.answer().filter(|answer| told.as_ref() != Some(answer));
        let undone = self.undo_answer().filter(|_| self.undo_asker.is_some());
        let replies = [
            end.and_then(|answer| reply(&self.asker, Half::Do, answer)),
            undone.and_then(|answer| reply(&self.undo_asker, Half::Undo, answer)),
        ];
        replies.into_iter().flatten().collect()
    }
}

/// Message of a rejection by an undo.
pub(crate) const UNDONE: &str = "the charge was undone";
