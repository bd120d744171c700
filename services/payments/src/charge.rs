//! A charge as its row records it.

use eventicket_contracts::envelope::{Answer, Fenced, Half, Key, Recorded, Rejection, Reply};
use eventicket_contracts::payments::{ChargePending, Charged, NextAction, Refunded};
use eventicket_contracts::{CustomerId, Json, Money, SagaId, codes};
use serde::{Deserialize, Serialize};

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
    /// Closed by an undo or a fence: its intent is being cancelled, or refunded where it has succeeded.
    Closing,
    /// Closed, and paid: being refunded.
    Refunding,
    /// The money was given back.
    Refunded,
    /// The gateway refuses the refund for good; only an operator's retry tries again.
    RefundRefused,
    /// The refund had succeeded, and has failed since: a saga of its own stands for it.
    RefundFailed,
    /// Closed before any money was taken.
    Void,
    /// An undo or a fence came before the charge, which is refused for ever.
    Tombstone,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Open,
        Self::Created,
        Self::Cancelling,
        Self::Pending,
        Self::Done,
        Self::Rejected,
        Self::Closing,
        Self::Refunding,
        Self::Refunded,
        Self::RefundRefused,
        Self::RefundFailed,
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
            Self::RefundRefused => "refund_refused",
            Self::RefundFailed => "refund_failed",
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
            Self::Done | Self::Rejected | Self::Void | Self::Tombstone => false,
            Self::Refunded | Self::RefundRefused | Self::RefundFailed => false,
        }
    }

    /// Whether it may take long by its nature, so that who asks has the gateway asked.
    pub(crate) const fn may_wait(self) -> bool {
        matches!(self, Self::Pending | Self::Closing | Self::Refunding)
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asker {
    pub reply_to: String,
    pub attempt: u32,
}

/// The round's last fence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fencing {
    pub id: u32,
    /// It asked for the undo, too.
    pub undo: bool,
    pub asker: Asker,
    /// None while the end of a refund under way is awaited.
    pub answer: Option<Fenced>,
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
    /// Where a pending charge's customer has to go.
    pub next_action: Option<String>,
    pub keys: Keys,
    /// The gateway's id of the refund.
    pub refund: Option<String>,
    pub refunded: Option<i64>,
    /// Why the refund was refused or failed.
    pub refund_error: Option<String>,
    pub outcome: Option<Outcome>,
    /// Of the do; beside no outcome it is what a cancel will make final.
    pub rejection: Option<Rejection>,
    pub asker: Option<Asker>,
    /// Of the undo's last attempt; none where no undo was accepted.
    pub undo_asker: Option<Asker>,
    /// Why it is undone, for the gateway's record; repeats of a refund must not differ.
    pub undo_reason: Option<String>,
    /// A fence has told how the undo stands: one that had not begun never does, one that was refused is not tried again.
    pub undo_closed: bool,
    pub fence: Option<Fencing>,
    /// The saga that stands for a refund which failed.
    pub failed_refund: Option<SagaId>,
    /// Of the command; kept in the table where it is recorded.
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
            next_action: None,
            keys: Keys::default(),
            refund: None,
            refunded: None,
            refund_error: None,
            outcome: None,
            rejection: None,
            asker: None,
            undo_asker: None,
            undo_reason: None,
            undo_closed: false,
            fence: None,
            failed_refund: None,
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

    /// Whether it differs from `before` in nothing but what every charge's way changes: state, version, intent, outcome,
    /// and the method that is not needed any more.
    pub fn is_step_from(&self, before: &Self) -> bool {
        before.version > 0 && self.beside_the_way() == before.beside_the_way()
    }

    fn beside_the_way(&self) -> impl PartialEq {
        let Self { next_action, keys, refund, refunded, refund_error, rejection, .. } = self;
        let Self { undo_asker, undo_reason, undo_closed, fence, failed_refund, .. } = self;
        let gateway = (next_action, keys, refund, refunded, refund_error, rejection);
        (gateway, (undo_asker, undo_reason, undo_closed, fence, failed_refund))
    }

    fn charged(&self) -> Charged {
        Charged { intent: self.intent.clone().unwrap_or_default() }
    }

    /// What is known of the do; `None` while it is under way.
    pub fn answer(&self) -> Option<Answer> {
        match (self.outcome, self.state) {
            (Some(Outcome::Done), _) => Some(Answer::done(self.charged())),
            (Some(Outcome::Rejected), _) => {
                let undone = || Rejection { code: codes::UNDONE.into(), message: UNDONE.into() };
                Some(Answer::Rejected(self.rejection.clone().unwrap_or_else(undone)))
            }
            (None, State::Pending) => {
                let next_action = self.next_action.clone().map(|url| NextAction { url });
                let pending = ChargePending { intent: self.charged().intent, next_action };
                Some(Answer::Pending(Json::of(&pending).unwrap_or_default()))
            }
            (None, _) => None,
        }
    }

    /// What is known of the undo; `None` while it is under way or where none was asked for.
    pub fn undo_answer(&self) -> Option<Answer> {
        if self.undo_closed && self.undo_asker.is_none() {
            return Some(Answer::rejected(codes::CLOSED, FENCED));
        }
        match self.state {
            // That it failed afterwards changes no answer that was given.
            State::Refunded | State::RefundFailed => {
                Some(Answer::done(Refunded { amount: self.terms.as_ref().map(|terms| terms.amount) }))
            }
            State::RefundRefused => Some(Answer::Rejected(self.refund_rejection())),
            State::Rejected | State::Void | State::Tombstone => Some(Answer::done(Refunded { amount: None })),
            State::Refunding if self.refund.is_some() || self.keys.refund > 0 => Some(Answer::Pending(Json::NULL)),
            State::Open | State::Created | State::Cancelling | State::Pending | State::Done => None,
            State::Closing | State::Refunding => None,
        }
    }

    fn refund_rejection(&self) -> Rejection {
        let why = self.refund_error.as_deref().unwrap_or_default();
        let message = format!("the payment gateway gives nothing back: {why}");
        Rejection { code: codes::REFUND_REFUSED.to_owned(), message }
    }

    /// What a fence of the round tells, `None` while the end of its undo is awaited.
    pub fn fenced(&self, id: u32, undo: bool) -> Option<Fenced> {
        let closed = |rejection: &&Rejection| [codes::UNDONE, codes::CLOSED].contains(&rejection.code.as_str());
        // What stands counts, also where the do was closed before its money came.
        let stands = matches!(self.state, State::RefundRefused | State::RefundFailed);
        let effect = match (self.outcome, &self.rejection) {
            (outcome, _) if stands || outcome == Some(Outcome::Done) => {
                Recorded::Done(Json::of(&self.charged()).unwrap_or_default())
            }
            (Some(Outcome::Rejected), Some(rejection)) if !closed(&rejection) => Recorded::Rejected(rejection.clone()),
            (_, _) => Recorded::Closed,
        };
        let undo = match (undo, &self.undo_asker, self.undo_answer()) {
            (false, _, _) => None,
            (true, _, _) if self.state == State::RefundRefused => Some(Recorded::Rejected(self.refund_rejection())),
            (true, None, _) => Some(Recorded::Closed),
            (true, Some(_), Some(Answer::Done(output))) => Some(Recorded::Done(output)),
            (true, Some(_), Some(Answer::Rejected(rejection))) => Some(Recorded::Rejected(rejection)),
            (true, Some(_), _) => return None,
        };
        Some(Fenced { id, effect, undo })
    }

    /// The same row, with its fence answered where what that waits for is known now.
    pub fn with_fence_answered(mut self) -> Self {
        if let Some(fence) = self.fence.as_ref().filter(|fence| fence.answer.is_none()) {
            let answer = self.fenced(fence.id, fence.undo);
            self.fence = Some(Fencing { answer, ..fence.clone() });
        }
        self
    }

    /// The replies that leave once the change from `before` is committed, with their subjects.
    pub fn replies(&self, before: &Self) -> Vec<(String, Reply)> {
        let news = |now: Option<Answer>, told: Option<Answer>| now.filter(|answer| told.as_ref() != Some(answer));
        let fenced = |charge: &Self| charge.fence.as_ref().and_then(|fence| fence.answer.as_ref()).map(Answer::done);
        let fence_asker = self.fence.as_ref().map(|fence| &fence.asker);
        let replies = [
            self.reply(self.asker.as_ref(), Half::Do, news(self.answer(), before.answer())),
            self.reply(self.undo_asker.as_ref(), Half::Undo, news(self.undo_answer(), before.undo_answer())),
            self.reply(fence_asker, Half::Fence, news(fenced(self), fenced(before))),
        ];
        replies.into_iter().flatten().collect()
    }

    /// What is told to who asks while it waits. `settling`: the gateway says that it takes time.
    pub fn standing(&self, settling: bool) -> Vec<(String, Reply)> {
        let is_pending = |answer: &Answer| matches!(answer, Answer::Pending(_));
        let closing = || (settling && self.state == State::Closing).then_some(Answer::Pending(Json::NULL));
        let undo = self.undo_answer().or_else(closing).filter(is_pending);
        let replies = [
            self.reply(self.asker.as_ref(), Half::Do, self.answer().filter(is_pending)),
            self.reply(self.undo_asker.as_ref(), Half::Undo, undo),
        ];
        replies.into_iter().flatten().collect()
    }

    fn reply(&self, asker: Option<&Asker>, half: Half, answer: Option<Answer>) -> Option<(String, Reply)> {
        let Asker { reply_to, attempt } = asker?;
        let (key, trace) = (self.key.clone(), self.trace.clone());
        Some((reply_to.clone(), Reply { key, half, attempt: *attempt, answer: answer?, trace }))
    }
}

/// Message of a rejection by an undo.
pub(crate) const UNDONE: &str = "the charge was undone";
/// Message of a rejection by a fence.
pub(crate) const FENCED: &str = "the round was closed by a fence";
