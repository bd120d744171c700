//! Refunds that take time, are refused, or fail after they had succeeded.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::payments::FailedRefund;
use eventicket_mock_gateway::ledger::RefundStatus;
use eventicket_payments::State;
use serde_json::json;

use crate::messages::{code, refunded};
use crate::orchestrator::Orchestrator;
use crate::world::{PRICE, World};

#[tokio::test]
async fn rule_06_a_refund_is_pending_until_the_gateway_says_that_it_succeeded() {
    for webhooks in [false, true] {
        let mut w = World::with(webhooks).await;
        w.mock_settings(json!({ "refund_settle_ms": 3_600_000, "webhook_delay_ms": 0 })).await;
        let key = w.key();
        w.charged(&key, "pm_card_refund_pending").await;
        assert!(matches!(w.undone(&key).await, Answer::Pending(_)));
        assert!(matches!(w.undone(&key).await, Answer::Pending(_)), "asked again, it is still so");
        let refund = w.ledger().refunds.remove(0);
        assert_eq!((refund.metadata["step"].as_str(), refund.metadata["reason"].as_str()), ("PAY", "cancelled"));
        w.mock_form(&format!("/test/refunds/{}/succeed", refund.id), &[]).await;
        if !webhooks {
            w.send_undo(&key).await;
        }
        assert_eq!(w.answer(&key, Half::Undo).await, refunded(Some(PRICE)), "with webhooks {webhooks}");
        assert_eq!((w.ledger().refunds.len(), w.standing(&key)), (1, vec![]));
        w.end().await;
    }
}

#[tokio::test]
async fn a_refund_that_is_refused_for_good_is_rejected_and_tried_again_by_a_higher_attempt_only() {
    let mut w = World::new().await;
    let key = w.key();
    w.charged(&key, "pm_card_refund_refused").await;
    let refused = w.undone(&key).await;
    assert_eq!(code(&refused), codes::REFUND_REFUSED);
    assert!(format!("{refused:?}").contains("charge_disputed"), "{refused:?}");
    let tries = |w: &World| w.ledger_text().matches(&format!("\"{key}:refund")).count();
    assert_eq!((w.state(&key).await, tries(&w)), (State::RefundRefused, 1));
    assert_eq!(w.undone(&key).await, refused, "a repeat");
    assert_eq!(tries(&w), 1);
    w.send_undo_attempt(&key, 2).await;
    assert_eq!(w.answer(&key, Half::Undo).await, refused);
    assert_eq!(tries(&w), 2, "an operator's retry");
    assert_eq!(w.standing(&key), [PRICE.amount]);
    w.end().await;
}

#[tokio::test]
async fn a_refund_that_never_succeeds_is_refused_and_an_operators_retry_gives_the_money_back() {
    let mut w = World::new().await;
    w.mock_settings(json!({ "refund_settle_ms": 3_600_000 })).await;
    let key = w.key();
    w.charged(&key, "pm_card_refund_pending").await;
    assert!(matches!(w.undone(&key).await, Answer::Pending(_)));
    let first = w.ledger().refunds.remove(0).id;
    w.mock_form(&format!("/test/refunds/{first}/fail"), &[]).await;
    w.send_undo(&key).await;
    assert_eq!(code(&w.answer(&key, Half::Undo).await), codes::REFUND_REFUSED);
    w.send_undo_attempt(&key, 2).await;
    assert!(matches!(w.answer(&key, Half::Undo).await, Answer::Pending(_)));
    let second = w.ledger().refunds.into_iter().find(|refund| refund.id != first).unwrap().id;
    w.mock_form(&format!("/test/refunds/{second}/succeed"), &[]).await;
    w.send_undo_attempt(&key, 2).await;
    assert_eq!(w.answer(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert!(w.standing(&key).is_empty());
    w.end().await;
}

#[tokio::test]
async fn rule_06_want_of_balance_refuses_no_refund() {
    let mut w = World::new().await;
    w.mock_settings(json!({ "balance_insufficient": true })).await;
    let key = w.key();
    w.charged(&key, "pm_card_visa").await;
    assert!(matches!(w.undone(&key).await, Answer::Pending(_)));
    assert!(matches!(w.undone(&key).await, Answer::Pending(_)), "asked, it was tried again");
    w.mock_settings(json!({ "balance_insufficient": false })).await;
    w.send_undo(&key).await;
    assert_eq!(w.ended(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert_eq!(w.ledger().refunds.len(), 1);
    w.end().await;
}

#[tokio::test]
async fn rule_05_what_somebody_else_refunded_already_is_done() {
    let mut w = World::new().await;
    let key = w.key();
    w.charged(&key, "pm_card_visa").await;
    let intent = w.ledger().intents.remove(0).id;
    w.mock_form("/v1/refunds", &[("payment_intent", &intent)]).await;
    assert_eq!(w.undone(&key).await, refunded(Some(PRICE)));
    assert_eq!(w.ledger().refunds.len(), 1);
    w.end().await;
}

/// A refund that had succeeded fails; the saga that is opened for it, once.
async fn fails_later(webhooks: bool) {
    let mut w = World::with(webhooks).await;
    let mut orchestrator = Orchestrator::new(&w).await;
    w.mock_settings(json!({ "refund_fail_ms": 300, "webhook_delay_ms": 0 })).await;
    let key = w.key();
    w.charged(&key, "pm_card_refund_fails_later").await;
    orchestrator.answers(false);
    let undone = w.undone(&key).await;
    assert_eq!(undone, refunded(Some(PRICE)));
    let first = orchestrator.start().await;
    orchestrator.answers(true);
    let again = orchestrator.start().await;
    assert_eq!((first.id, &first.input), (again.id, &again.input), "until it is answered, under one id");
    let failed: FailedRefund = first.input.read().unwrap();
    let refund = w.ledger().refunds.remove(0);
    assert_eq!((failed.booking, failed.step.as_str(), failed.round), (key.saga, "PAY", 1));
    assert_eq!((failed.customer, failed.amount), (w.customer, PRICE));
    assert_eq!(
        (failed.intent, failed.refund, failed.reason),
        (refund.intent, refund.id, "expired_or_canceled_card".into())
    );
    assert_eq!((refund.status, w.standing(&key)), (RefundStatus::Failed, vec![PRICE.amount]));
    let row = w.rows().await.remove(0);
    assert_eq!((row.state, row.failed_refund), (State::RefundFailed, Some(first.id)));
    assert_eq!(w.undone(&key).await, undone, "an answer that was given stays");
    w.until_no_starts().await;
    w.end().await;
}

#[tokio::test]
async fn rule_06_a_refund_that_fails_afterwards_opens_a_saga() {
    fails_later(true).await;
}

#[tokio::test]
async fn rule_06_a_refund_that_fails_afterwards_is_found_by_reading() {
    fails_later(false).await;
}

#[tokio::test]
async fn rule_06_a_refund_of_a_closed_charge_that_is_refused_opens_a_saga_since_no_undo_is_told() {
    let mut w = World::new().await;
    let mut orchestrator = Orchestrator::new(&w).await;
    let key = w.key();
    w.mock_settings(json!({ "settle_ms": 3_600_000 })).await;
    w.gate.hold(crate::world::Hold::After("/confirm"));
    w.send_do(&key, &w.charge("pm_card_refund_refused")).await;
    w.gate.holds().await;
    w.fenced(&key, 1, true).await;
    w.gate.release();
    let started = orchestrator.start().await;
    let row = w.rows().await.remove(0);
    assert_eq!((row.state, row.failed_refund), (State::RefundRefused, Some(started.id)));
    w.until_no_starts().await;
    w.end().await;
}
