//! Undos, before, beside and after their charges.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Answer, Half};
use eventicket_mock_gateway::ledger::Status;
use eventicket_payments::State;

use crate::messages::{code, refunded};
use crate::world::{Hold, PRICE, World};

#[tokio::test]
async fn rule_01_an_undo_before_its_do_leaves_a_tombstone() {
    let mut w = World::new().await;
    let key = w.key();
    assert_eq!(w.undone(&key).await, refunded(None));
    assert_eq!(w.undone(&key).await, refunded(None));
    assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::UNDONE);
    assert!(w.ledger().intents.is_empty());
    assert_eq!(w.rows().await[0].state, State::Tombstone);
    assert!(w.payments(&key).await.is_empty());
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_undo_after_done_refunds_once() {
    let mut w = World::new().await;
    let key = w.key();
    let done = w.charged(&key, "pm_card_visa").await;
    assert_eq!(w.event().await.0, "captured");
    w.send_undo(&key).await;
    w.send_undo(&key).await;
    assert_eq!(w.answer(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert_eq!(w.event().await.0, "refunded");
    assert_eq!(w.undone(&key).await, refunded(Some(PRICE)));
    let ledger = w.ledger();
    assert_eq!((ledger.refunds.len(), ledger.refunds[0].amount, ledger.intents[0].refunded), (1, 4200, 4200));
    assert_eq!(w.rows().await[0].refunded, Some(4200));
    assert_eq!(w.charged(&key, "pm_card_visa").await, done, "the recorded answer stands");
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_undo_before_the_intent_is_known_closes_the_row_at_once() {
    let mut w = World::new().await;
    let key = w.key();
    // The intent comes to be, and its id never gets here.
    w.gate.hold(Hold::After("/payment_intents"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    assert_eq!(w.undone(&key).await, refunded(None));
    w.gate.open();
    assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::UNDONE);
    assert_eq!(w.statuses(&key), [Status::RequiresPaymentMethod]);
    assert_eq!(w.rows().await[0].state, State::Void);
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_id_is_not_committed_to_a_closed_row_and_its_intent_never_confirmed() {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(Hold::After("/payment_intents"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    assert_eq!(w.undone(&key).await, refunded(None));
    // Only now the service learns the intent's id.
    w.gate.release();
    w.stop().await;
    assert_eq!(w.statuses(&key), [Status::RequiresPaymentMethod]);
    assert_eq!((w.state(&key).await, w.rows().await[0].intent.clone()), (State::Void, None));
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_undo_beside_a_confirm_that_did_not_arrive_cancels() {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(Hold::Before("/confirm"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    assert_eq!(w.undone(&key).await, refunded(None));
    assert_eq!(w.statuses(&key), [Status::Canceled]);
    assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::UNDONE);
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_undo_beside_a_confirm_that_arrived_refunds() {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(Hold::After("/confirm"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    assert_eq!(w.undone(&key).await, refunded(Some(PRICE)));
    assert_eq!((w.statuses(&key), w.ledger().refunds.len()), (vec![Status::Succeeded], 1));
    assert_eq!([w.event().await.0, w.event().await.0], ["captured", "refunded"]);
    assert!(matches!(w.charged(&key, "pm_card_visa").await, Answer::Rejected(_)));
    w.end().await;
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_is_given_once() {
    let mut w = World::new().await;
    let key = w.key();
    w.charged(&key, "pm_card_visa").await;
    w.gate.hold(Hold::After("/refunds"));
    w.send_undo(&key).await;
    w.gate.holds().await;
    w.crash().await;
    w.gate.open();
    w.replicate();
    assert_eq!(w.answer(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert_eq!(w.ledger().refunds.len(), 1);
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_do_that_comes_again_is_not_answered_before_the_undo_has_ended() {
    let mut w = World::new().await;
    let (key, other) = (w.key(), w.key());
    w.charged(&key, "pm_card_action_required").await;
    w.gate.hold(Hold::Before("/cancel"));
    w.send_undo(&key).await;
    w.gate.holds().await;
    w.send_do(&key, &w.charge("pm_card_action_required")).await;
    w.charged(&other, "pm_card_visa").await;
    assert_eq!((w.state(&key).await, w.came(&key, Half::Do)), (State::Closing, false));
    w.gate.release();
    assert_eq!(w.answer(&key, Half::Undo).await, refunded(None));
    assert!(!w.came(&key, Half::Do), "its end is told by the undo");
    assert_eq!(code(&w.charged(&key, "pm_card_action_required").await), codes::UNDONE);
    w.end().await;
}
