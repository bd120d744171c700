//! What a charge does next: pure. [`observe`] is total over the row's state and what the gateway was seen to say.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::Rejection;

use crate::charge::{Asker, Charge, Keys, Outcome, State, UNDONE};

/// A call to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Confirm,
    Read,
    Cancel,
    Refund,
    ReadRefund,
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
    },
    Refused(Refusal),
    /// 409: another call with the same key is under way.
    InUse,
    /// A 5xx that came back as replayed: this key will never bring anything else.
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

/// The call that a row waits for; `None` where it has ended.
pub(crate) fn next_call(charge: &Charge) -> Option<Call> {
    match charge.state {
        State::Open => Some(Call::Create),
        State::Created => Some(Call::Confirm),
        State::Pending => Some(Call::Read),
        State::Cancelling | State::Closing => Some(Call::Cancel),
        State::Refunding if charge.refund.is_some() => Some(Call::ReadRefund),
        State::Refunding => Some(Call::Refund),
        State::Done | State::Rejected | State::Refunded | State::Void | State::Tombstone => None,
    }
}

/// Whether the row's next call is not to be made at once: something takes time, or a refund did not work.
pub(crate) fn is_slow(charge: &Charge) -> bool {
    let refund = charge.refund.is_some() || charge.keys.refund > 0;
    charge.state == State::Pending || (charge.state == State::Refunding && refund)
}

/// What follows from what was seen of `call`.
pub(crate) fn observe(charge: &Charge, call: Call, observed: Observed) -> Verdict {
    use State::{Cancelling, Closing, Created, Done, Open, Pending, Refunded, Refunding, Rejected, Tombstone, Void};
    let write = |next: Charge| Verdict::Write(Box::new(next));
    match (charge.state, observed) {
        // An ended row makes no calls.
        (Done | Rejected | Refunded | Void | Tombstone, _) => Verdict::Later(Delay::Slow),
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
            Some(IntentStatus::Processing) => write(charge.next(Pending)),
            _ => write(charge.cancelling(refusal.rejection)),
        },

        (Cancelling, Observed::Intent(intent)) => cancelled(charge, Some(intent.status)),
        (Cancelling, Observed::Refused(refusal)) => cancelled(charge, refusal.status),

        (Pending, Observed::Intent(intent)) => match intent.status {
            IntentStatus::Succeeded => write(charge.done()),
            IntentStatus::Canceled | IntentStatus::RequiresPaymentMethod => {
                write(charge.cancelling(intent.declined.unwrap_or_else(declined)))
            }
            IntentStatus::Processing | IntentStatus::RequiresAction | IntentStatus::RequiresConfirmation => {
                Verdict::Later(Delay::Slow)
            }
        },
        (Pending, Observed::Refused(_)) => Verdict::Later(Delay::Slow),

        (Closing, Observed::Intent(intent)) => closed(charge, Some(intent.status)),
        (Closing, Observed::Refused(refusal)) => closed(charge, refusal.status),

        (Refunding, Observed::Stored) if call == Call::Refund => write(charge.with_keys(|keys| keys.refund += 1)),
        (Refunding, Observed::Refund { id, status }) => match status {
            RefundStatus::Succeeded => write(charge.refunded()),
            RefundStatus::Pending if charge.refund.as_deref() == Some(&id) => Verdict::Later(Delay::Slow),
            RefundStatus::Pending => write(Charge { refund: Some(id), ..charge.next(Refunding) }),
            // Nothing was given back; the gateway itself never lets more be refunded than was charged.
            RefundStatus::Failed if charge.refund.is_some() => {
                write(Charge { refund: None, ..charge.with_keys(|keys| keys.refund += 1) })
            }
            RefundStatus::Failed => write(Charge { refund: Some(id), ..charge.next(Refunding) }),
        },
        (Refunding, Observed::Refused(refusal)) if refusal.already_refunded => write(charge.refunded()),
        // As for want of balance. The refusal is stored under its key.
        (Refunding, Observed::Refused(_)) if call == Call::Refund => write(charge.with_keys(|keys| keys.refund += 1)),
        (Refunding, Observed::Refused(_)) => Verdict::Later(Delay::Slow),

        // Cancels and looks have no keys, so that nothing is stored for them; and no call answers another's object.
        (Cancelling | Pending | Closing | Refunding, Observed::Stored) => Verdict::Later(Delay::Backoff),
        (Refunding, Observed::Intent(_)) => Verdict::Later(Delay::Slow),
        (Open | Created | Cancelling | Pending | Closing, Observed::Refund { .. }) => Verdict::Later(Delay::Slow),
    }
}

/// A confirm was accepted, or the intent was read after a confirm of unknown end.
fn created(charge: &Charge, call: Call, intent: Intent) -> Verdict {
    let write = |next: Charge| Verdict::Write(Box::new(next));
    match (intent.status, intent.declined) {
        (IntentStatus::Succeeded, _) => write(charge.done()),
        (IntentStatus::Processing | IntentStatus::RequiresAction, _) => write(charge.next(State::Pending)),
        (IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresConfirmation, None) if call == Call::Read => {
            write(charge.with_keys(|keys| keys.confirm += 1))
        }
        (_, why) => write(charge.cancelling(why.unwrap_or_else(declined))),
    }
}

/// A cancel told the intent's status, by its success or by its refusal.
fn cancelled(charge: &Charge, status: Option<IntentStatus>) -> Verdict {
    let write = |next: Charge| Verdict::Write(Box::new(next));
    match status {
        Some(IntentStatus::Canceled) => {
            let rejection = charge.rejection.clone().unwrap_or_else(declined);
            write(charge.refused_with(State::Rejected, rejection))
        }
        Some(IntentStatus::Succeeded) => write(charge.done()),
        Some(IntentStatus::Processing) => write(charge.next(State::Pending)),
        _ => Verdict::Later(Delay::Backoff),
    }
}

/// The same for a row that an undo closed.
fn closed(charge: &Charge, status: Option<IntentStatus>) -> Verdict {
    match status {
        Some(IntentStatus::Canceled) => Verdict::Write(Box::new(charge.next(State::Void))),
        Some(IntentStatus::Succeeded) => Verdict::Write(Box::new(charge.next(State::Refunding))),
        Some(IntentStatus::Processing) => Verdict::Later(Delay::Slow),
        _ => Verdict::Later(Delay::Backoff),
    }
}

/// What an undo makes of a row; `None` where it changes nothing.
pub(crate) fn undo(charge: &Charge, asker: Asker) -> Option<Charge> {
    let undone = |state| charge.rejected(state, codes::UNDONE, UNDONE);
    let next = match charge.state {
        State::Open => undone(State::Void),
        State::Created | State::Cancelling | State::Pending => undone(State::Closing),
        State::Done => charge.next(State::Refunding),
        State::Rejected | State::Closing | State::Refunding | State::Refunded | State::Void | State::Tombstone => {
            return None;
        }
    };
    Some(Charge { undo_asker: Some(asker), ..next })
}

fn declined() -> Rejection {
    Rejection { code: codes::PAYMENT_DECLINED.into(), message: "the payment was declined".into() }
}

impl Charge {
    fn done(&self) -> Self {
        Self { outcome: Some(Outcome::Done), rejection: None, ..self.next(State::Done) }
    }

    fn refused_with(&self, state: State, rejection: Rejection) -> Self {
        self.rejected(state, &rejection.code, rejection.message)
    }

    fn cancelling(&self, rejection: Rejection) -> Self {
        Self { rejection: Some(rejection), ..self.next(State::Cancelling) }
    }

    fn refunded(&self) -> Self {
        let refunded = self.terms.as_ref().map(|terms| terms.amount.amount);
        Self { refunded, ..self.next(State::Refunded) }
    }

    fn with_keys(&self, change: impl FnOnce(&mut Keys)) -> Self {
        let mut next = self.next(self.state);
        change(&mut next.keys);
        next
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
