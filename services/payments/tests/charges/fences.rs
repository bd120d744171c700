//! Fences: what has not begun never does, what is under way is closed, what has ended is told.

use eventicket_contracts::envelope::{Answer, Fenced, Half, Key, Recorded};
use eventicket_contracts::{Money, codes};
use eventicket_mock_gateway::ledger::Status;
use eventicket_payments::State;
use serde_json::json;

use crate::messages::{code, fence_item, item, refunded};
use crate::world::{Hold, PRICE, World};

fn done(amount: Option<Money>) -> Recorded {
    Recorded::Done(json!({ "amount": amount }).into())
}

#[tokio::test]
async fn rule_13_a_fence_of_a_round_that_has_not_begun_refuses_it_for_ever() {
    let mut w = World::new().await;
    for undo in [false, true] {
        let key = w.key();
        let fenced = w.fenced(&key, 1, undo).await;
        assert_eq!(fenced, Fenced { id: 1, effect: Recorded::Closed, undo: undo.then_some(Recorded::Closed) });
        assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::CLOSED, "as late or replayed");
        assert_eq!(w.state(&key).await, State::Tombstone);
        let undone = w.undone(&key).await;
        if undo { assert_eq!(code(&undone), codes::CLOSED) } else { assert_eq!(undone, refunded(None)) }
    }
    assert!(w.ledger().intents.is_empty());
    w.end().await;
}

/// A fence while a call is held: answered at once, whatever becomes of the charge.
async fn fence_beside(hold: Hold, undo: bool) -> (World, Key) {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(hold);
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    let fenced = w.fenced(&key, 1, undo).await;
    assert_eq!(fenced, Fenced { id: 1, effect: Recorded::Closed, undo: undo.then_some(Recorded::Closed) });
    w.gate.release();
    (w, key)
}

#[tokio::test]
async fn rule_13_a_fence_closes_a_charge_under_way_and_its_intent_is_cancelled() {
    let (mut w, key) = fence_beside(Hold::Before("/confirm"), false).await;
    w.until(&key, State::Void).await;
    assert_eq!(w.statuses(&key), [Status::Canceled]);
    assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::CLOSED);
    assert_eq!(w.undone(&key).await, refunded(None), "the saga may unwind the step that it skipped");
    w.end().await;
}

#[tokio::test]
async fn rule_13_what_a_closed_charge_still_brings_is_refunded() {
    for undo in [false, true] {
        let (mut w, key) = fence_beside(Hold::After("/confirm"), undo).await;
        w.until(&key, State::Refunded).await;
        assert_eq!((w.statuses(&key), w.standing(&key)), (vec![Status::Succeeded], vec![]));
        let undone = w.undone(&key).await;
        if undo {
            assert_eq!(code(&undone), codes::CLOSED)
        } else {
            assert_eq!(undone, refunded(Some(PRICE)))
        }
        assert_eq!(w.ledger().refunds.len(), 1, "nobody is paid back twice");
        w.end().await;
    }
}

#[tokio::test]
async fn rule_13_a_fence_that_finds_no_id_closes_the_row_at_once() {
    let (mut w, key) = fence_beside(Hold::After("/payment_intents"), false).await;
    assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::CLOSED);
    w.stop().await;
    assert_eq!((w.state(&key).await, w.statuses(&key)), (State::Void, vec![Status::RequiresPaymentMethod]));
    w.end().await;
}

#[tokio::test]
async fn rule_13_a_fence_closes_a_pending_charge() {
    let mut w = World::new().await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    assert_eq!(w.fenced(&key, 1, true).await.effect, Recorded::Closed);
    w.until(&key, State::Void).await;
    assert_eq!(w.act(&pending, "complete").await, 409, "the customer cannot pay any more");
    assert!(w.standing(&key).is_empty());
    w.end().await;
}

#[tokio::test]
async fn rule_13_what_is_recorded_is_told_and_an_undo_that_has_not_begun_never_does() {
    let mut w = World::new().await;
    let key = w.key();
    let Answer::Done(charged) = w.charged(&key, "pm_card_visa").await else { panic!("not charged") };
    let told = Fenced { id: 1, effect: Recorded::Done(charged), undo: None };
    assert_eq!(w.fenced(&key, 1, false).await, told);
    let closed = Fenced { id: 2, undo: Some(Recorded::Closed), ..told };
    assert_eq!(w.fenced(&key, 2, true).await, closed);
    assert_eq!(code(&w.undone(&key).await), codes::CLOSED);
    assert_eq!(w.standing(&key), [PRICE.amount], "what was taken stays until somebody gives it back by hand");

    let key = w.key();
    let Answer::Rejected(rejection) = w.charged(&key, "pm_card_declined").await else { panic!("not rejected") };
    assert_eq!(w.fenced(&key, 1, false).await.effect, Recorded::Rejected(rejection));
    w.end().await;
}

#[tokio::test]
async fn rule_13_an_undo_that_has_ended_is_told() {
    let mut w = World::new().await;
    let (paid, early, refused) = (w.key(), w.key(), w.key());
    w.charged(&paid, "pm_card_visa").await;
    w.undone(&paid).await;
    assert_eq!(w.fenced(&paid, 1, true).await.undo, Some(done(Some(PRICE))));

    w.undone(&early).await;
    let fenced = w.fenced(&early, 1, true).await;
    assert_eq!((fenced.effect, fenced.undo), (Recorded::Closed, Some(done(None))), "an undo had closed it");

    w.charged(&refused, "pm_card_refund_refused").await;
    let Answer::Rejected(rejection) = w.undone(&refused).await else { panic!("not refused") };
    assert_eq!(w.fenced(&refused, 1, true).await.undo, Some(Recorded::Rejected(rejection.clone())));
    w.send_undo_attempt(&refused, 2).await;
    assert_eq!(w.answer(&refused, Half::Undo).await, Answer::Rejected(rejection), "it is not tried again");
    w.end().await;
}

#[tokio::test]
async fn rule_13_a_fence_that_meets_a_refund_under_way_is_answered_when_its_end_is_known() {
    let mut w = World::new().await;
    let key = w.key();
    w.charged(&key, "pm_card_visa").await;
    w.gate.hold(Hold::Before("/refunds"));
    w.send_undo(&key).await;
    w.gate.holds().await;
    // Nothing but their ends answers these: the refund is held.
    w.send_fence(&key, 1, true).await;
    w.send_fence(&key, 1, true).await;
    w.gate.holds().await;
    w.gate.release();
    assert_eq!(w.fence_answer(&key).await.undo, Some(done(Some(PRICE))));
    assert_eq!(w.answer(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert_eq!(w.ledger().refunds.len(), 1);
    w.end().await;
}

#[tokio::test]
async fn rule_13_a_fence_that_awaits_a_refund_is_answered_also_after_a_crash() {
    let mut w = World::new().await;
    w.mock_settings(json!({ "refund_settle_ms": 3_600_000 })).await;
    let key = w.key();
    w.charged(&key, "pm_card_refund_pending").await;
    assert!(matches!(w.undone(&key).await, Answer::Pending(_)));
    w.send_fence(&key, 1, true).await;
    // The fence is recorded once this one, behind it, is answered.
    let other = w.key();
    w.fenced(&other, 1, true).await;
    w.crash().await;
    let refund = w.ledger().refunds.remove(0).id;
    w.mock_form(&format!("/test/refunds/{refund}/succeed"), &[]).await;
    w.replicate();
    w.send_fence(&key, 1, true).await;
    assert_eq!(w.fence_answer(&key).await.undo, Some(done(Some(PRICE))));
    w.end().await;
}

#[tokio::test]
async fn rule_13_the_same_fence_is_answered_as_before_and_a_later_one_anew() {
    let mut w = World::new().await;
    let key = w.key();
    w.charged(&key, "pm_card_visa").await;
    let first = w.fenced(&key, 1, false).await;
    assert_eq!(first.undo, None);
    w.undone(&key).await;
    assert_eq!(w.fenced(&key, 1, false).await, first);
    let second = w.fenced(&key, 2, true).await;
    assert_eq!(second.undo, Some(done(Some(PRICE))));
    assert_eq!(w.fenced(&key, 1, false).await, second, "of an earlier one the latest answer is told");
    w.end().await;
}

#[tokio::test]
async fn rule_13_a_fence_beside_its_do_closes_it_or_tells_it() {
    let mut w = World::new().await;
    for fence_first in [false, true] {
        let key = w.key();
        let charge = item(&key, Half::Do, &w.charge("pm_card_visa"), None);
        let mut both = [("charge", charge), ("fence", fence_item(&key, 1, true))];
        if fence_first {
            both.reverse();
        }
        for (action, item) in both {
            w.send(action, vec![item]).await;
        }
        let fenced = w.fence_answer(&key).await;
        if fenced.effect == Recorded::Closed {
            assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::CLOSED);
            let closed = async {
                while w.state(&key).await.is_due() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(crate::world::PATIENCE, closed).await.unwrap();
            assert!(w.standing(&key).is_empty());
        } else {
            assert_eq!(w.standing(&key), [PRICE.amount]);
        }
    }
    w.end().await;
}

#[tokio::test]
async fn rule_16_a_fence_of_an_old_round_without_a_record_needs_an_operator() {
    let mut w = World::new().await;
    let key = w.old_key();
    w.send_fence(&key, 1, true).await;
    assert!(matches!(w.answer(&key, Half::Fence).await, Answer::Dead(_)));
    assert_eq!(w.dead_letters().await, 1);
    w.stop().await;
}
