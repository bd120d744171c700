//! What a webhook changes: pure. It is a hint, which moves a row forward or changes nothing; what it says of an intent that
//! is not the round's own matters only where money was taken.

use eventicket_contracts::envelope::{Key, Rejection};
use eventicket_contracts::{CustomerId, Money};

use crate::charge::{Charge, Outcome, State, Terms};
use crate::decide::{Intent, RefundStatus, declined};

/// What a webhook tells, with the round that its metadata names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// The gateway's, by which a repeat is known.
    pub id: String,
    pub key: Key,
    pub told: Told,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Intent { intent: Intent, happened: Happened, amount: Money },
    Refund { id: String, intent: String, status: RefundStatus, reason: Option<String> },
}

/// To an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Succeeded,
    /// The bank or the customer takes time.
    Waits,
    /// A payment method was refused, or the intent was cancelled.
    Failed,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Hint {
    Nothing,
    /// It cannot be told yet whether it is the round's own intent: the webhook has to come again.
    NotYet,
    /// Commit the row so.
    Write(Box<Charge>),
    /// Money was taken with an intent that is not the round's own: it is given back in a row of its own.
    Stray(Box<Charge>),
}

/// What follows from an event for the row that it names.
pub(crate) fn hint(charge: &Charge, told: &Told) -> Hint {
    match told {
        Told::Intent { intent, happened, amount } if charge.intent.as_ref() == Some(&intent.id) => {
            own(charge, intent, *happened, *amount)
        }
        Told::Intent { happened: Happened::Waits | Happened::Failed, .. } => Hint::Nothing,
        // The row's own may be about to be committed; this one never is by a webhook.
        Told::Intent { .. } if charge.state == State::Open => Hint::NotYet,
        Told::Intent { intent, amount, .. } => stray(charge, &intent.id, *amount),
        Told::Refund { id, intent, status, reason } if charge.intent.as_ref() == Some(intent) => {
            refund(charge, id, *status, reason.clone())
        }
        Told::Refund { .. } => Hint::Nothing,
    }
}

fn own(charge: &Charge, intent: &Intent, happened: Happened, amount: Money) -> Hint {
    use State::{Cancelling, Closing, Created, Pending, Rejected, Void};
    let write = |next: Charge| Hint::Write(Box::new(next));
    match (happened, charge.state) {
        (Happened::Succeeded, Created | Pending | Cancelling) => write(charge.done()),
        (Happened::Succeeded, Closing) => write(charge.next(State::Refunding)),
        // The gateway never lets this be; if it is, nobody keeps the money.
        (Happened::Succeeded, Rejected | Void) => stray(charge, &intent.id, amount),
        (Happened::Waits, Created) => write(charge.pending(intent.next_action.clone())),
        (Happened::Failed, Created | Pending) => {
            let why: Rejection = intent.declined.clone().unwrap_or_else(declined);
            write(charge.cancelling(why))
        }
        _ => Hint::Nothing,
    }
}

/// A row that is named after the intent, in the place of a step, and begins where the money is given back.
fn stray(charge: &Charge, intent: &str, amount: Money) -> Hint {
    let key = Key { step: intent.to_owned(), ..charge.key.clone() };
    // A tombstone knows no customer.
    let customer = charge.terms.as_ref().map_or(CustomerId(uuid::Uuid::nil()), |terms| terms.customer);
    let description = charge.terms.as_ref().map(|terms| terms.description.clone()).unwrap_or_default();
    let row = Charge::new(key, Some(Terms { customer, amount, description, method: None }));
    Hint::Stray(Box::new(Charge {
        intent: Some(intent.to_owned()),
        outcome: Some(Outcome::Done),
        undo_reason: Some("stray".to_owned()),
        ..row.next(State::Refunding)
    }))
}

fn refund(charge: &Charge, id: &str, status: RefundStatus, reason: Option<String>) -> Hint {
    // Of another refund, or before the id of ours is known, the call's own answer says more.
    if charge.refund.as_deref() != Some(id) {
        return Hint::Nothing;
    }
    match (charge.state, status) {
        (State::Refunding, RefundStatus::Succeeded) => Hint::Write(Box::new(charge.refunded(Some(id.to_owned())))),
        (State::Refunding, RefundStatus::Failed) => {
            Hint::Write(Box::new(charge.refund_refused(Some(id.to_owned()), reason)))
        }
        (State::Refunded, RefundStatus::Failed) => Hint::Write(Box::new(charge.refund_failed(reason))),
        _ => Hint::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{IntentStatus, next_call};
    use eventicket_contracts::{Currency, SagaId};

    const PRICE: Money = Money { amount: 4200, currency: Currency::EUR };

    fn charge(state: State) -> Charge {
        let terms = Terms { customer: CustomerId::fresh(), amount: PRICE, description: "Gala".into(), method: None };
        let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 };
        let intent = (!matches!(state, State::Open | State::Tombstone)).then(|| "pi_1".to_owned());
        let refund = matches!(state, State::Refunding | State::Refunded).then(|| "re_1".to_owned());
        Charge { state, version: 7, intent, refund, ..Charge::new(key, Some(terms)) }
    }

    fn intent(id: &str, happened: Happened) -> Told {
        let status = IntentStatus::Succeeded; // what happened counts, whatever the status says
        let intent = Intent { id: id.into(), status, declined: None, next_action: None };
        Told::Intent { intent, happened, amount: PRICE }
    }

    fn state_after(state: State, told: &Told) -> Option<State> {
        match hint(&charge(state), told) {
            Hint::Write(after) => Some(after.state),
            _ => None,
        }
    }

    #[test]
    fn rule_06_a_webhook_moves_a_row_forward_or_changes_nothing() {
        use State::{Cancelling, Closing, Created, Done, Pending, Refunding};
        for state in State::ALL {
            let after = |happened| state_after(state, &intent("pi_1", happened));
            let succeeded = match state {
                Created | Pending | Cancelling => Some(Done),
                Closing => Some(Refunding),
                _ => None,
            };
            assert_eq!(after(Happened::Succeeded), succeeded, "{state:?}");
            assert_eq!(after(Happened::Waits), (state == Created).then_some(Pending), "{state:?}");
            let failed = matches!(state, Created | Pending).then_some(Cancelling);
            assert_eq!(after(Happened::Failed), failed, "only marks the row to be cancelled: {state:?}");
        }
    }

    #[test]
    fn no_webhook_of_its_intent_changes_what_was_done_once() {
        use State::{Done, RefundFailed, RefundRefused, Refunded, Refunding};
        for state in [Done, Refunding, Refunded, RefundRefused, RefundFailed] {
            for happened in [Happened::Succeeded, Happened::Waits, Happened::Failed] {
                assert_eq!(hint(&charge(state), &intent("pi_1", happened)), Hint::Nothing, "{state:?}");
            }
        }
    }

    #[test]
    fn rule_05_of_any_other_intent_only_a_success_matters_and_no_webhook_commits_an_id() {
        for state in State::ALL {
            for happened in [Happened::Waits, Happened::Failed] {
                assert_eq!(hint(&charge(state), &intent("pi_2", happened)), Hint::Nothing, "{state:?}");
            }
            let row = charge(state);
            match hint(&row, &intent("pi_2", Happened::Succeeded)) {
                Hint::NotYet => assert_eq!(state, State::Open),
                Hint::Stray(stray) => {
                    assert_eq!((stray.key.saga, stray.key.step.as_str()), (row.key.saga, "pi_2"));
                    assert_eq!((stray.state, stray.intent.as_deref()), (State::Refunding, Some("pi_2")));
                    assert!(next_call(&stray).is_some());
                }
                other => panic!("{state:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn rule_06_a_refund_that_fails_afterwards_is_told_from_one_that_never_succeeded() {
        let told = |id: &str, status| Told::Refund { id: id.into(), intent: "pi_1".into(), status, reason: None };
        for state in State::ALL {
            let after = |status| state_after(state, &told("re_1", status));
            let refunding = |after| (state == State::Refunding).then_some(after);
            assert_eq!(after(RefundStatus::Succeeded), refunding(State::Refunded), "{state:?}");
            assert_eq!(after(RefundStatus::Pending), None);
            let failed = refunding(State::RefundRefused);
            let failed = failed.or((state == State::Refunded).then_some(State::RefundFailed));
            assert_eq!(after(RefundStatus::Failed), failed, "{state:?}");
            assert_eq!(state_after(state, &told("re_2", RefundStatus::Failed)), None, "another refund's");
        }
    }
}
