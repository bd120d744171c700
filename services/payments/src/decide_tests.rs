use eventicket_contracts::envelope::Key;
use eventicket_contracts::{CustomerId, Money, SagaId};

use super::*;
use crate::charge::Terms;

const STATUSES: [IntentStatus; 6] = [
    IntentStatus::RequiresPaymentMethod,
    IntentStatus::RequiresConfirmation,
    IntentStatus::RequiresAction,
    IntentStatus::Processing,
    IntentStatus::Succeeded,
    IntentStatus::Canceled,
];
const CALLS: [Call; 6] = [Call::Create, Call::Confirm, Call::Read, Call::Cancel, Call::Refund, Call::ReadRefund];

fn charge(state: State) -> Charge {
    let amount = Money { amount: 4200, currency: eventicket_contracts::Currency::EUR };
    let method = state.needs_method().then(|| "sealed".to_owned());
    let terms = Terms { customer: CustomerId::fresh(), amount, description: "Gala".into(), method };
    let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 };
    let intent = (!matches!(state, State::Open | State::Tombstone)).then(|| "pi_first".to_owned());
    let outcome = match state {
        State::Done | State::Refunded => Some(Outcome::Done),
        State::Rejected | State::Closing | State::Void | State::Tombstone => Some(Outcome::Rejected),
        _ => None,
    };
    Charge { state, version: 7, intent, outcome, ..Charge::new(key, Some(terms)) }
}

fn seen() -> Vec<Observed> {
    let intent = |status, declined| Observed::Intent(Intent { id: "pi_other".into(), status, declined });
    let refusal =
        |already_refunded, status| Observed::Refused(Refusal { rejection: declined(), already_refunded, status });
    let mut seen = vec![Observed::InUse, Observed::Stored, Observed::Unknown("x".into())];
    seen.extend([refusal(true, None), refusal(false, None)]);
    for status in STATUSES {
        seen.extend([intent(status, None), intent(status, Some(declined())), refusal(false, Some(status))]);
    }
    for status in [RefundStatus::Pending, RefundStatus::Succeeded, RefundStatus::Failed] {
        seen.push(Observed::Refund { id: "re_1".into(), status });
    }
    seen
}

fn after(charge: &Charge, call: Call, observed: Observed) -> Option<Charge> {
    match observe(charge, call, observed) {
        Verdict::Write(after) => Some(*after),
        Verdict::Call(_) | Verdict::Later(_) => None,
    }
}

/// Every write that any observation can lead to.
fn writes(mut check: impl FnMut(&Charge, &Observed, &Charge)) {
    for state in State::ALL {
        for (call, observed) in CALLS.into_iter().flat_map(|call| seen().into_iter().map(move |o| (call, o))) {
            let before = charge(state);
            if let Some(after) = after(&before, call, observed.clone()) {
                check(&before, &observed, &after);
            }
        }
    }
}

#[test]
fn rule_05_an_intent_without_a_committed_id_is_never_confirmed_and_the_first_id_counts() {
    for state in State::ALL {
        if next_call(&charge(state)) == Some(Call::Confirm) {
            assert!(charge(state).intent.is_some());
        }
    }
    writes(|before, observed, after| {
        assert_eq!(after.version, before.version + 1);
        if before.intent.is_some() {
            assert_eq!(after.intent, before.intent, "{observed:?}");
        }
        if next_call(after) == Some(Call::Confirm) {
            assert!(after.intent.is_some(), "{observed:?}");
        }
    });
}

#[test]
fn rule_01_an_outcome_is_final_and_an_ended_row_is_never_written() {
    writes(|before, observed, after| {
        assert!(before.state.is_due(), "{:?} {observed:?}", before.state);
        if before.outcome.is_some() {
            assert_eq!(after.outcome, before.outcome);
        }
        let closed = |state| matches!(state, State::Closing | State::Refunding | State::Refunded | State::Void);
        assert!(!closed(before.state) || closed(after.state), "a closed row is never opened: {observed:?}");
    });
}

#[test]
fn rule_05_only_what_a_cancel_finds_ends_a_refused_charge() {
    writes(|before, observed, after| {
        if after.state == State::Rejected && before.state != State::Open {
            assert_eq!(before.state, State::Cancelling);
            let cancelled = match observed {
                Observed::Intent(intent) => intent.status == IntentStatus::Canceled,
                Observed::Refused(refusal) => refusal.status == Some(IntentStatus::Canceled),
                _ => false,
            };
            assert!(cancelled, "{observed:?}");
        }
    });
    let refused = |status| Observed::Refused(Refusal { rejection: declined(), already_refunded: false, status });
    let end = |status| after(&charge(State::Cancelling), Call::Cancel, refused(Some(status))).map(|c| c.state);
    assert_eq!(end(IntentStatus::Succeeded), Some(State::Done));
    assert_eq!(end(IntentStatus::Canceled), Some(State::Rejected));
    assert_eq!(end(IntentStatus::Processing), Some(State::Pending));
    let confirmed = after(&charge(State::Created), Call::Confirm, refused(Some(IntentStatus::Succeeded)));
    assert_eq!(confirmed.map(|c| c.state), Some(State::Done));
}

#[test]
fn rule_05_what_refuses_nothing_writes_nothing() {
    for (state, call) in State::ALL.into_iter().flat_map(|state| CALLS.into_iter().map(move |call| (state, call))) {
        for observed in [Observed::InUse, Observed::Unknown("503".into())] {
            assert!(matches!(observe(&charge(state), call, observed), Verdict::Later(_)), "{state:?}");
        }
    }
}

#[test]
fn rule_05_a_stored_failure_needs_a_new_key_and_a_confirm_a_look_first() {
    let open = after(&charge(State::Open), Call::Create, Observed::Stored).unwrap();
    assert_eq!((open.state, open.keys.create), (State::Open, 1));
    let created = charge(State::Created);
    assert_eq!(observe(&created, Call::Confirm, Observed::Stored), Verdict::Call(Call::Read));
    let read = |status, declined| {
        let intent = Intent { id: "pi_first".into(), status, declined };
        after(&created, Call::Read, Observed::Intent(intent)).map(|c| (c.state, c.keys.confirm))
    };
    assert_eq!(read(IntentStatus::RequiresPaymentMethod, None), Some((State::Created, 1)));
    assert_eq!(read(IntentStatus::Succeeded, None), Some((State::Done, 0)));
    assert_eq!(read(IntentStatus::RequiresPaymentMethod, Some(declined())), Some((State::Cancelling, 0)));
    assert_eq!(read(IntentStatus::Canceled, None), Some((State::Cancelling, 0)));
}

#[test]
fn rule_05_the_undo_cancels_or_refunds_and_what_was_refunded_already_is_done() {
    let refused =
        |already_refunded, status| Observed::Refused(Refusal { rejection: declined(), already_refunded, status });
    let closed = |status| after(&charge(State::Closing), Call::Cancel, refused(false, Some(status))).map(|c| c.state);
    assert_eq!(closed(IntentStatus::Succeeded), Some(State::Refunding));
    assert_eq!(closed(IntentStatus::Canceled), Some(State::Void));
    assert_eq!(closed(IntentStatus::Processing), None);
    let refunded = after(&charge(State::Refunding), Call::Refund, refused(true, None)).unwrap();
    assert_eq!((refunded.state, refunded.refunded), (State::Refunded, Some(4200)));
    let again = after(&charge(State::Refunding), Call::Refund, refused(false, None)).unwrap();
    assert_eq!((again.state, again.keys.refund, is_slow(&again)), (State::Refunding, 1, true));
}

#[test]
fn rule_01_an_undo_closes_every_state_and_never_changes_an_answer_that_was_given() {
    let asker = || Asker { reply_to: "reply.0".into(), attempt: 1 };
    for state in State::ALL {
        let before = charge(state);
        let after = undo(&before, asker()).unwrap_or_else(|| before.clone());
        assert!(!matches!(
            after.state,
            State::Open | State::Created | State::Cancelling | State::Pending | State::Done
        ));
        assert_ne!(next_call(&after), Some(Call::Confirm));
        if let Some(outcome) = before.outcome {
            assert_eq!(after.outcome, Some(outcome), "{state:?}");
        }
        assert!(after.terms.is_none_or(|terms| terms.method.is_none()), "the method is not needed any more");
        if let Some(again) = undo(&Charge { outcome: after.outcome, ..charge(after.state) }, asker()) {
            panic!("a second undo changes {state:?} to {:?}", again.state);
        }
    }
}
