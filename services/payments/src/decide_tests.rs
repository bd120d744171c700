use eventicket_contracts::envelope::{Answer, Half, Key, Recorded};
use eventicket_contracts::{CustomerId, Json, Money, SagaId};

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
const CALLS: [Call; 7] =
    [Call::Create, Call::Confirm, Call::Read, Call::Cancel, Call::Refund, Call::ReadRefund, Call::FindRefund];

fn charge(state: State) -> Charge {
    let amount = Money { amount: 4200, currency: eventicket_contracts::Currency::EUR };
    let method = state.needs_method().then(|| "sealed".to_owned());
    let terms = Terms { customer: CustomerId::fresh(), amount, description: "Gala".into(), method };
    let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 };
    let intent = (!matches!(state, State::Open | State::Tombstone)).then(|| "pi_first".to_owned());
    let outcome = match state {
        State::Done | State::Refunding | State::Refunded => Some(Outcome::Done),
        State::RefundRefused | State::RefundFailed => Some(Outcome::Done),
        State::Rejected | State::Closing | State::Void | State::Tombstone => Some(Outcome::Rejected),
        _ => None,
    };
    Charge { state, version: 7, intent, outcome, ..Charge::new(key, Some(terms)) }
}

fn seen() -> Vec<Observed> {
    let intent = |status, declined| {
        let next_action = (status == IntentStatus::RequiresAction).then(|| "https://bank".to_owned());
        Observed::Intent(Intent { id: "pi_other".into(), status, declined, next_action })
    };
    let refusal = |already_refunded, status| Observed::Refused(refused(already_refunded, status));
    let mut seen = vec![Observed::InUse, Observed::Stored, Observed::NoRefund, Observed::Unknown("x".into())];
    seen.extend([refusal(true, None), refusal(false, None)]);
    seen.push(Observed::Refused(Refusal { for_now: true, ..refused(false, None) }));
    for status in STATUSES {
        seen.extend([intent(status, None), intent(status, Some(declined())), refusal(false, Some(status))]);
    }
    for status in [RefundStatus::Pending, RefundStatus::Succeeded, RefundStatus::Failed] {
        seen.push(refund(status));
    }
    seen
}

fn refused(already_refunded: bool, status: Option<IntentStatus>) -> Refusal {
    Refusal { rejection: declined(), already_refunded, for_now: false, status }
}

fn refund(status: RefundStatus) -> Observed {
    Observed::Refund { id: "re_1".into(), status, reason: Some("lost_card".into()) }
}

fn asker(attempt: u32) -> Asker {
    Asker { reply_to: "reply.0".into(), attempt }
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
        let given_back = |state| matches!(state, State::Refunding | State::Refunded | State::RefundRefused);
        let closed = |state| given_back(state) || matches!(state, State::Closing | State::Void);
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
    let refused = |status| Observed::Refused(refused(false, status));
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
        let intent = Intent { id: "pi_first".into(), status, declined, next_action: None };
        after(&created, Call::Read, Observed::Intent(intent)).map(|c| (c.state, c.keys.confirm))
    };
    assert_eq!(read(IntentStatus::RequiresPaymentMethod, None), Some((State::Created, 1)));
    assert_eq!(read(IntentStatus::Succeeded, None), Some((State::Done, 0)));
    assert_eq!(read(IntentStatus::RequiresPaymentMethod, Some(declined())), Some((State::Cancelling, 0)));
    assert_eq!(read(IntentStatus::Canceled, None), Some((State::Cancelling, 0)));
}

#[test]
fn rule_05_the_undo_cancels_or_refunds_and_what_was_refunded_already_is_done() {
    let refused = |already, status| Observed::Refused(refused(already, status));
    let closed = |status| after(&charge(State::Closing), Call::Cancel, refused(false, Some(status))).map(|c| c.state);
    assert_eq!(closed(IntentStatus::Succeeded), Some(State::Refunding));
    assert_eq!(closed(IntentStatus::Canceled), Some(State::Void));
    assert_eq!(closed(IntentStatus::Processing), None);
    // Which refund it was is looked for: it may be on its way only, and one that succeeded may fail.
    let refunding = charge(State::Refunding);
    assert_eq!(observe(&refunding, Call::Refund, refused(true, None)), Verdict::Call(Call::FindRefund));
    for (found, id) in [(refund(RefundStatus::Succeeded), Some("re_1")), (Observed::NoRefund, None)] {
        let refunded = after(&refunding, Call::FindRefund, found).unwrap();
        assert_eq!((refunded.state, refunded.refunded), (State::Refunded, Some(4200)));
        assert_eq!(refunded.refund.as_deref(), id);
    }
}

#[test]
fn rule_06_a_refund_is_done_when_it_has_succeeded_and_waits_while_it_is_pending() {
    let refunding = Charge { undo_asker: Some(asker(1)), ..charge(State::Refunding) };
    assert_eq!(refunding.undo_answer(), None);
    let pending = after(&refunding, Call::Refund, refund(RefundStatus::Pending)).unwrap();
    assert_eq!((pending.state, pending.undo_answer()), (State::Refunding, Some(Answer::Pending(Json::NULL))));
    assert_eq!((next_call(&pending), is_slow(&pending)), (Some(Call::ReadRefund), true));
    assert_eq!(observe(&pending, Call::ReadRefund, refund(RefundStatus::Pending)), Verdict::Later(Delay::Slow));
    let done = after(&pending, Call::ReadRefund, refund(RefundStatus::Succeeded)).unwrap();
    assert!(matches!(done.undo_answer(), Some(Answer::Done(_))));
    // For want of balance it is tried again, slowly; the refusal is stored under its key.
    let short = Observed::Refused(Refusal { for_now: true, ..refused(false, None) });
    let again = after(&refunding, Call::Refund, short).unwrap();
    assert_eq!((again.state, again.keys.refund, is_slow(&again)), (State::Refunding, 1, true));
    assert!(matches!(again.undo_answer(), Some(Answer::Pending(_))));
}

#[test]
fn a_refund_that_is_refused_for_good_is_rejected_and_only_a_higher_attempt_tries_again() {
    let refunding = Charge { undo_asker: Some(asker(2)), ..charge(State::Refunding) };
    let no = Observed::Refused(refused(false, None));
    for seen in [no, refund(RefundStatus::Failed)] {
        let refused = after(&refunding, Call::Refund, seen).unwrap();
        let Some(Answer::Rejected(rejection)) = refused.undo_answer() else { panic!("not rejected") };
        assert_eq!((refused.state, rejection.code.as_str()), (State::RefundRefused, codes::REFUND_REFUSED));
        assert_eq!(undo(&refused, asker(2), "again"), None, "a repeat");
        let again = undo(&refused, asker(3), "again").unwrap();
        assert_eq!((again.state, again.keys.refund, again.refund.is_none()), (State::Refunding, 1, true));
        let fenced = Charge { undo_closed: true, ..refused };
        assert_eq!(undo(&fenced, asker(9), "again"), None, "a fence has told that it was refused");
    }
}

#[test]
fn rule_06_a_saga_stands_for_a_refund_that_nobody_else_looks_after() {
    let fresh = SagaId::fresh();
    let saga = |charge: Charge| charge.with_saga(fresh).failed_refund;
    let (refunding, refunded) = (charge(State::Refunding), charge(State::Refunded));
    let asked = Charge { undo_asker: Some(asker(1)), ..refunding.clone() };
    assert_eq!(saga(refunded.refund_failed(None)), Some(fresh));
    assert_eq!(saga(refunding.refund_refused(None, None)), Some(fresh), "nobody is told");
    assert_eq!(saga(asked.refund_refused(None, None)), None, "the undo is told");
    let first = SagaId::fresh();
    let known = Charge { failed_refund: Some(first), ..refunded.refund_failed(None) };
    assert_eq!(saga(known), Some(first), "one for the charge");
}

#[test]
fn rule_06_pending_tells_what_the_customer_has_to_do_when_it_is_news() {
    let created = charge(State::Created);
    let asked = Charge { asker: Some(asker(1)), ..created };
    let seen = |charge: &Charge, status, action: Option<&str>| {
        let next_action = action.map(str::to_owned);
        let intent = Intent { id: "pi_first".into(), status, declined: None, next_action };
        after(charge, Call::Read, Observed::Intent(intent))
    };
    let told = |before: &Charge, after: &Charge| {
        after.replies(before).into_iter().map(|(_, r)| (r.half, r.answer)).collect::<Vec<_>>()
    };
    let first = seen(&asked, IntentStatus::RequiresAction, Some("https://bank/1")).unwrap();
    let pending = serde_json::json!({ "intent": "pi_first", "next_action": { "url": "https://bank/1" } });
    assert_eq!(told(&asked, &first), [(Half::Do, Answer::Pending(pending.into()))]);
    assert_eq!(seen(&first, IntentStatus::RequiresAction, Some("https://bank/1")), None);
    let second = seen(&first, IntentStatus::Processing, None).unwrap();
    assert_eq!(
        told(&first, &second),
        [(Half::Do, Answer::Pending(serde_json::json!({ "intent": "pi_first" }).into()))]
    );
}

#[test]
fn rule_01_an_undo_closes_every_state_and_never_changes_an_answer_that_was_given() {
    for state in State::ALL {
        let before = charge(state);
        let after = undo(&before, asker(1), "cancelled").unwrap_or_else(|| before.clone());
        assert!(!matches!(
            after.state,
            State::Open | State::Created | State::Cancelling | State::Pending | State::Done
        ));
        assert_ne!(next_call(&after), Some(Call::Confirm));
        if let Some(outcome) = before.outcome {
            assert_eq!(after.outcome, Some(outcome), "{state:?}");
        }
        assert!(after.terms.as_ref().is_none_or(|terms| terms.method.is_none()), "the method is not needed any more");
        if let Some(again) = undo(&after, asker(1), "again") {
            assert_eq!(
                (before.state, again.state),
                (State::RefundRefused, State::Refunding),
                "a second undo changes it"
            );
        }
    }
}

#[test]
fn rule_13_a_fence_closes_what_is_under_way_and_tells_the_rest() {
    let ask = |undo| Fence { id: 1, action: "charge".into(), undo, body: Json::NULL };
    for (state, alone) in State::ALL.into_iter().flat_map(|state| [(state, true), (state, false)]) {
        let before = charge(state);
        let after = fence(&before, &ask(!alone), asker(1));
        assert_eq!(after.version, before.version + 1);
        assert_ne!(next_call(&after), Some(Call::Confirm), "{state:?}");
        assert!(after.outcome.is_some(), "{state:?} is closed or has ended");
        let fenced = after.fence.as_ref().unwrap().answer.clone().expect("no undo is under way");
        match state {
            State::Done | State::Refunding | State::Refunded | State::RefundRefused | State::RefundFailed
                if before.outcome == Some(Outcome::Done) =>
            {
                assert!(matches!(fenced.effect, Recorded::Done(_)), "{state:?}");
            }
            State::Rejected if before.rejection.is_some() => {
                assert!(matches!(fenced.effect, Recorded::Rejected(_)), "{state:?}");
            }
            _ => assert_eq!(fenced.effect, Recorded::Closed, "{state:?}"),
        }
        match (state, fenced.undo) {
            (State::RefundRefused, Some(Recorded::Rejected(no))) => assert_eq!(no.code, codes::REFUND_REFUSED),
            (_, undo) => assert_eq!(undo, (!alone).then_some(Recorded::Closed), "{state:?}: nobody undid it"),
        }
        let late = undo(&after, asker(1), "late");
        assert!(alone || late.is_none(), "{state:?}: a closed undo does not begin");
        if !alone {
            let answer = after.undo_answer();
            assert!(matches!(answer, Some(Answer::Rejected(no)) if no.code == codes::CLOSED), "{state:?}");
        }
    }
}

#[test]
fn rule_13_a_fence_that_meets_a_refund_is_answered_when_its_end_is_known() {
    let ask = Fence { id: 4, action: "charge".into(), undo: true, body: Json::NULL };
    let refunding = Charge { undo_asker: Some(asker(1)), outcome: Some(Outcome::Done), ..charge(State::Refunding) };
    let fenced = fence(&refunding, &ask, asker(7));
    assert_eq!(fenced.fence.as_ref().unwrap().answer, None);
    let ends = [(refund(RefundStatus::Succeeded), "done"), (Observed::Refused(refused(false, None)), "rejected")];
    for (seen, end) in ends {
        let ended = after(&fenced, Call::Refund, seen).unwrap().with_fence_answered();
        let replies: Vec<_> = ended.replies(&fenced).into_iter().map(|(_, reply)| reply).collect();
        let halves: Vec<_> = replies.iter().map(|reply| (reply.half, reply.attempt)).collect();
        assert_eq!(halves, [(Half::Undo, 1), (Half::Fence, 7)]);
        let Answer::Done(told) = &replies[1].answer else { panic!("a fence is done") };
        let told = told.value();
        assert_eq!((&told["id"], told["undo"].get(end).is_some()), (&serde_json::json!(4), true), "{told}");
    }
}

#[test]
fn rule_13_a_fence_tells_that_money_stands_where_a_closed_charge_was_not_given_back() {
    let closed = Charge { outcome: Some(Outcome::Rejected), ..charge(State::Refunding) };
    let closed = closed.rejected(State::Refunding, codes::CLOSED, "closed");
    let refused = closed.refund_refused(None, None);
    let failed = closed.refunded(Some("re_1".into())).refund_failed(None);
    let charged = Recorded::Done(serde_json::json!({ "intent": "pi_first" }).into());
    for undo_asker in [None, Some(asker(1))] {
        let told = Charge { undo_asker: undo_asker.clone(), ..refused.clone() }.fenced(1, true).unwrap();
        assert_eq!(told.effect, charged);
        assert!(matches!(told.undo, Some(Recorded::Rejected(no)) if no.code == codes::REFUND_REFUSED));
        let told = Charge { undo_asker: undo_asker.clone(), ..failed.clone() }.fenced(1, true).unwrap();
        assert_eq!(told.effect, charged);
        assert_eq!(matches!(told.undo, Some(Recorded::Done(_))), undo_asker.is_some(), "as recorded");
    }
}

#[test]
fn a_refund_that_a_saga_stands_for_is_not_tried_again() {
    let refused = charge(State::Refunding).refund_refused(None, None).with_saga(SagaId::fresh());
    assert!(refused.failed_refund.is_some());
    assert_eq!(undo(&refused, asker(1), "cancelled"), None, "an operator pays by hand");
    assert!(matches!(refused.undo_answer(), Some(Answer::Rejected(no)) if no.code == codes::REFUND_REFUSED));
    let alone = Charge { failed_refund: None, ..refused };
    assert_eq!(undo(&alone, asker(1), "cancelled").map(|next| next.state), Some(State::Refunding));
}
