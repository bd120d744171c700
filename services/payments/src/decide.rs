//! What a charge does next: pure. [`observe`] is total over the row's state and what the gateway was seen to say.

use eventicket_contracts::envelope::{Fence, Rejection};
use eventicket_contracts::{SagaId, codes};
use eventicket_planted::Fault;

use crate::charge::{Asker, Charge, FENCED, Fencing, Keys, Outcome, State, UNDONE};

/// A call to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Confirm,
    Read,
    Cancel,
    Refund,
    ReadRefund,
    /// Looks for a refund of the intent whose id is not known.
    FindRefund,
}

/// The status of an intent at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    Succeeded,
    Canceled,
}

/// An intent as the gateway shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Intent {
    pub id: String,
    pub status: IntentStatus,
    /// Why the last payment method was refused.
    pub declined: Option<Rejection>,
    /// Where its customer has to go.
    pub next_action: Option<String>,
}

/// The status of a refund at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefundStatus {
    Pending,
    Succeeded,
    Failed,
}

/// A definite no of the gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    /// As the do is rejected for it.
    pub rejection: Rejection,
    /// The intent has been refunded.
    pub already_refunded: bool,
    /// It is so for now only, as for want of balance.
    pub for_now: bool,
    /// The intent's status where the refusal tells it.
    pub status: Option<IntentStatus>,
}

/// What was seen of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Observed {
    Intent(Intent),
    Refund {
        id: String,
        status: RefundStatus,
        /// Why it failed.
        reason: Option<String>,
    },
    /// The intent has none.
    NoRefund,
    Refused(Refusal),
    /// 409: another call with the same key is under way.
    InUse,
    /// A 5xx that came back as replayed, or the key stands for another request: it will never bring anything else.
    Stored,
    /// 401, 403, 429, other 5xx, time-outs, cut connections, answers that make no sense: nothing is known.
    Unknown(String),
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Commit the row so, then go on from it.
    Write(Box<Charge>),
    /// This call, at once.
    Call(Call),
    /// The call of the row's state again.
    Later(Delay),
}

/// How long a repeat waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    /// The same key is under way.
    Soon,
    /// The gateway is in trouble.
    Backoff,
    /// The bank or the customer takes time.
    Slow,
}

/// Where the gateway does not say why a refund failed.
const FAILED: &str = "the refund failed";

/// The call that a row waits for; `None` where it has ended.
pub(crate) fn next_call(charge: &Charge) -> Option<Call> {
    match charge.state {
        State::Open => Some(Call::Create),
        State::Created => Some(Call::Confirm),
        State::Pending => Some(Call::Read),
        State::Cancelling | State::Closing => Some(Call::Cancel),
        State::Refunding if charge.refund.is_some() => Some(Call::ReadRefund),
        State::Refunding => Some(Call::Refund),
        State::Done | State::Rejected | State::Void | State::Tombstone => None,
        State::Refunded | State::RefundRefused | State::RefundFailed => None,
    }
}

/// Whether the row's next call is not to be made at once: something takes time, or a refund did not work.
pub(crate) fn is_slow(charge: &Charge) -> bool {
    let refund = charge.refund.is_some() || charge.keys.refund > 0;
    charge.state == State::Pending || (charge.state == State::Refunding && refund)
}

/// Whether a write changed nothing but the gateway's keys: the same call again, which must not be made ever faster.
pub(crate) fn is_repeat(before: &Charge, after: &Charge) -> bool {
    let (version, keys) = (after.version, after.keys);
    let same = Charge { version, keys, ..before.clone() };
    before.keys != keys && same == *after
}

/// What follows from what was seen of `call`.
pub(crate) fn observe(charge: &Charge, call: Call, observed: Observed) -> Verdict {
    use State::{Cancelling, Closing, Created, Done, Open, Pending, Refunding, Rejected, Tombstone, Void};
    match (charge.state, observed) {
        // An ended row makes no calls.
        (Done | Rejected | Void | Tombstone, _) => Verdict::Later(Delay::Slow),
        (State::Refunded | State::RefundRefused | State::RefundFailed, _) => Verdict::Later(Delay::Slow),
        (_, Observed::InUse) => Verdict::Later(Delay::Soon),
        (_, Observed::Unknown(_)) => Verdict::Later(Delay::Backoff),

        (Open, Observed::Stored) => write(charge.with_keys(|keys| keys.create += 1)),
        (Open, Observed::Intent(intent)) => write(Charge { intent: Some(intent.id), ..charge.next(Created) }),
        // No intent came to be.
        (Open, Observed::Refused(refusal)) => write(charge.refused_with(Rejected, refusal.rejection)),

        // Whether the failed confirm did something is known by reading only.
        (Created, Observed::Stored) if call == Call::Confirm => Verdict::Call(Call::Read),
        (Created, Observed::Stored) => Verdict::Later(Delay::Backoff),
        (Created, Observed::Intent(intent)) => created(charge, call, intent),
        (Created, Observed::Refused(refusal)) => match refusal.status {
            Some(IntentStatus::Succeeded) => write(charge.done()),
            Some(IntentStatus::Processing) => write(charge.pending(None)),
            _ if Fault::DeclineBeforeCancel.is_planted() => write(charge.refused_with(Rejected, refusal.rejection)),
            _ => write(charge.cancelling(refusal.rejection)),
        },

        (Cancelling, Observed::Intent(intent)) => cancelled(charge, Some(intent.status)),
        (Cancelling, Observed::Refused(refusal)) => cancelled(charge, refusal.status),

        (Pending, Observed::Intent(intent)) => pending(charge, intent),
        (Pending, Observed::Refused(_)) => Verdict::Later(Delay::Slow),

        (Closing, Observed::Intent(intent)) => closed(charge, Some(intent.status)),
        (Closing, Observed::Refused(refusal)) => closed(charge, refusal.status),

        (Refunding, observed) => refunding(charge, call, observed),

        // Cancels and looks have no keys, so that nothing is stored for them; and no call answers another's object.
        (Cancelling | Pending | Closing, Observed::Stored) => Verdict::Later(Delay::Backoff),
        (_, Observed::Refund { .. } | Observed::NoRefund) => Verdict::Later(Delay::Slow),
    }
}

fn write(next: Charge) -> Verdict {
    Verdict::Write(Box::new(next))
}

/// A confirm was accepted, or the intent was read after a confirm of unknown end.
fn created(charge: &Charge, call: Call, intent: Intent) -> Verdict {
    match (intent.status, intent.declined) {
        (IntentStatus::Succeeded, _) => write(charge.done()),
        (IntentStatus::Processing | IntentStatus::RequiresAction, _) => write(charge.pending(intent.next_action)),
        (IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresConfirmation, None) if call == Call::Read => {
            write(charge.with_keys(|keys| keys.confirm += 1))
        }
        (_, why) => write(charge.cancelling(why.unwrap_or_else(declined))),
    }
}

/// A pending intent was read.
fn pending(charge: &Charge, intent: Intent) -> Verdict {
    match intent.status {
        IntentStatus::Succeeded => write(charge.done()),
        IntentStatus::Canceled | IntentStatus::RequiresPaymentMethod => {
            write(charge.cancelling(intent.declined.unwrap_or_else(declined)))
        }
        IntentStatus::Processing | IntentStatus::RequiresAction | IntentStatus::RequiresConfirmation => {
            let news = intent.next_action != charge.next_action;
            if news { write(charge.pending(intent.next_action)) } else { Verdict::Later(Delay::Slow) }
        }
    }
}

/// A cancel told the intent's status, by its success or by its refusal.
fn cancelled(charge: &Charge, status: Option<IntentStatus>) -> Verdict {
    match status {
        Some(IntentStatus::Canceled) => {
            let rejection = charge.rejection.clone().unwrap_or_else(declined);
            write(charge.refused_with(State::Rejected, rejection))
        }
        Some(IntentStatus::Succeeded) => write(charge.done()),
        Some(IntentStatus::Processing) => write(charge.pending(None)),
        _ => Verdict::Later(Delay::Backoff),
    }
}

/// The same for a row that an undo or a fence closed.
fn closed(charge: &Charge, status: Option<IntentStatus>) -> Verdict {
    match status {
        Some(IntentStatus::Canceled) => write(charge.next(State::Void)),
        Some(IntentStatus::Succeeded) if Fault::SucceededIsCancelled.is_planted() => write(charge.next(State::Void)),
        Some(IntentStatus::Succeeded) => write(charge.next(State::Refunding)),
        Some(IntentStatus::Processing) => Verdict::Later(Delay::Slow),
        _ => Verdict::Later(Delay::Backoff),
    }
}

/// What was seen while the money is given back.
fn refunding(charge: &Charge, call: Call, observed: Observed) -> Verdict {
    match observed {
        Observed::Stored if call == Call::Refund => write(charge.with_keys(|keys| keys.refund += 1)),
        Observed::Refund { id, status, reason } => match status {
            RefundStatus::Succeeded => write(charge.refunded(Some(id))),
            RefundStatus::Pending if charge.refund.as_deref() == Some(&id) => Verdict::Later(Delay::Slow),
            RefundStatus::Pending => write(Charge { refund: Some(id), ..charge.next(State::Refunding) }),
            RefundStatus::Failed => write(charge.refund_refused(Some(id), reason)),
        },
        // By somebody else; nothing can be looked after.
        Observed::NoRefund => write(charge.refunded(None)),
        Observed::Refused(refusal) if refusal.already_refunded => Verdict::Call(Call::FindRefund),
        Observed::Refused(_) if call != Call::Refund => Verdict::Later(Delay::Slow),
        // The refusal is stored under its key.
        Observed::Refused(refusal) if refusal.for_now => write(charge.with_keys(|keys| keys.refund += 1)),
        Observed::Refused(refusal) => write(charge.refund_refused(None, Some(refusal.rejection.message))),
        Observed::Stored | Observed::Unknown(_) => Verdict::Later(Delay::Backoff),
        Observed::Intent(_) | Observed::InUse => Verdict::Later(Delay::Slow),
    }
}

/// What an undo makes of a row; `None` where it changes nothing. Only a higher attempt tries a refund again that was
/// refused for good.
pub(crate) fn undo(charge: &Charge, asker: Asker, reason: &str) -> Option<Charge> {
    let is_first = charge.undo_asker.is_none();
    if charge.undo_closed && is_first {
        return None;
    }
    let is_new = charge.undo_asker.as_ref().is_none_or(|known| known.attempt < asker.attempt);
    let next = match charge.state {
        State::Open | State::Created | State::Cancelling | State::Pending => charge.closed(codes::UNDONE, UNDONE)?,
        State::Done => charge.next(State::Refunding),
        // A saga that asks an operator to pay by hand may have been heard: what is tried again would pay twice.
        State::RefundRefused if charge.failed_refund.is_some() => return None,
        State::RefundRefused if is_new && !charge.undo_closed => {
            let again = charge.with_keys(|keys| keys.refund += 1);
            Charge { state: State::Refunding, refund: None, refund_error: None, ..again }
        }
        State::Closing | State::Refunding if is_new => charge.next(charge.state),
        State::Closing | State::Refunding | State::RefundRefused => return None,
        State::Rejected | State::Refunded | State::RefundFailed | State::Void | State::Tombstone => return None,
    };
    let undo_reason = Some(charge.undo_reason.clone().unwrap_or_else(|| reason.to_owned()));
    Some(Charge { undo_asker: Some(asker), undo_reason, ..next })
}

/// What a fence makes of a row: what is under way is closed, as by an undo, and so is an undo that has not begun.
pub(crate) fn fence(charge: &Charge, fence: &Fence, asker: Asker) -> Charge {
    let closed = charge.closed(codes::CLOSED, FENCED).filter(|_| !Fault::FenceLeavesCharge.is_planted());
    let undo_reason = charge.undo_reason.clone().or_else(|| closed.as_ref().map(|_| codes::CLOSED.to_owned()));
    let next = closed.unwrap_or_else(|| charge.next(charge.state));
    let fencing = Fencing { id: fence.id, undo: fence.undo, asker, answer: None };
    let undo_closed = charge.undo_closed || fence.undo;
    Charge { undo_reason, undo_closed, fence: Some(fencing), ..next }.with_fence_answered()
}

impl Charge {
    pub(crate) fn done(&self) -> Self {
        Self { outcome: Some(Outcome::Done), rejection: None, next_action: None, ..self.next(State::Done) }
    }

    pub(crate) fn pending(&self, next_action: Option<String>) -> Self {
        Self { next_action, ..self.next(State::Pending) }
    }

    fn refused_with(&self, state: State, rejection: Rejection) -> Self {
        self.rejected(state, &rejection.code, rejection.message)
    }

    pub(crate) fn cancelling(&self, rejection: Rejection) -> Self {
        Self { rejection: Some(rejection), next_action: None, ..self.next(State::Cancelling) }
    }

    /// Closed while it is under way; `None` where it is not.
    fn closed(&self, code: &str, message: &str) -> Option<Self> {
        let state = match self.state {
            // Committing an id to it is refused from now on.
            State::Open => State::Void,
            State::Created | State::Cancelling | State::Pending => State::Closing,
            _ => return None,
        };
        Some(Self { next_action: None, ..self.rejected(state, code, message) })
    }

    pub(crate) fn refunded(&self, refund: Option<String>) -> Self {
        let refunded = self.terms.as_ref().map(|terms| terms.amount.amount);
        Self { refunded, refund, ..self.next(State::Refunded) }
    }

    /// Nobody but an operator can give the money back.
    pub(crate) fn refund_refused(&self, refund: Option<String>, why: Option<String>) -> Self {
        let refund_error = Some(why.unwrap_or_else(|| FAILED.to_owned()));
        Self { refund, refund_error, ..self.next(State::RefundRefused) }
    }

    /// The refund had succeeded, and the money is with us again.
    pub(crate) fn refund_failed(&self, why: Option<String>) -> Self {
        let refund_error = Some(why.unwrap_or_else(|| FAILED.to_owned()));
        Self { refunded: None, refund_error, ..self.next(State::RefundFailed) }
    }

    /// The same row, with a saga that stands for a refund which nobody else looks after: one that failed after it had
    /// succeeded, or that was refused where no undo is told of it.
    pub(crate) fn with_saga(mut self, fresh: SagaId) -> Self {
        let unheard = self.state == State::RefundRefused && self.undo_asker.is_none();
        if (unheard || self.state == State::RefundFailed) && self.failed_refund.is_none() {
            self.failed_refund = Some(fresh);
        }
        self
    }

    fn with_keys(&self, change: impl FnOnce(&mut Keys)) -> Self {
        let mut next = self.next(self.state);
        change(&mut next.keys);
        next
    }
}

pub(crate) fn declined() -> Rejection {
    Rejection { code: codes::PAYMENT_DECLINED.into(), message: "the payment was declined".into() }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
