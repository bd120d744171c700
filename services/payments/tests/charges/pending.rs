//! Charges that wait for a bank or a customer.

use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::{Json, codes};
use eventicket_mock_gateway::ledger::Status;
use eventicket_payments::State;
use serde_json::json;

use crate::messages::{code, refunded};
use crate::world::{PATIENCE, PRICE, World};

#[tokio::test]
async fn rule_06_pending_is_told_when_it_is_news_and_who_asks_again_has_the_gateway_asked() {
    let mut w = World::new().await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    let Answer::Pending(told) = &pending else { panic!("{pending:?}") };
    assert_eq!(told.value()["intent"], json!(w.ledger().intents[0].id));
    assert_eq!(w.charged(&key, "pm_card_action_required").await, pending, "nothing is new");
    assert_eq!(w.act(&pending, "complete").await, 200);
    assert!(matches!(w.charged(&key, "pm_card_action_required").await, Answer::Done(_)), "asked, it is known at once");
    assert_eq!(w.standing(&key), [PRICE.amount]);
    w.end().await;
}

#[tokio::test]
async fn rule_06_an_action_that_the_customer_refuses_is_a_decline() {
    let mut w = World::new().await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    assert_eq!(w.act(&pending, "fail").await, 200);
    assert_eq!(code(&w.charged(&key, "pm_card_action_required").await), codes::PAYMENT_DECLINED);
    assert_eq!(w.statuses(&key), [Status::Canceled], "no browser revives it");
    assert_eq!(w.act(&pending, "complete").await, 409);
    w.end().await;
}

#[tokio::test]
async fn rule_06_an_undo_of_a_pending_charge_cancels_it_for_good() {
    let mut w = World::new().await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    assert_eq!(w.undone(&key).await, refunded(None));
    assert_eq!(w.act(&pending, "complete").await, 409);
    assert_eq!((w.statuses(&key), w.standing(&key)), (vec![Status::Canceled], vec![]));
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_intent_that_is_processing_is_pending_and_its_undo_waits_for_what_it_brings() {
    let mut w = World::new().await;
    w.mock_settings(json!({ "settle_ms": 3_600_000 })).await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_processing").await;
    assert!(matches!(&pending, Answer::Pending(told) if told.value()["next_action"].is_null()), "{pending:?}");
    assert_eq!(w.undone(&key).await, Answer::Pending(Json::NULL), "it cannot be cancelled now");
    let intent = w.ledger().intents.remove(0).id;
    w.mock_form(&format!("/test/payment_intents/{intent}/succeed"), &[]).await;
    w.send_undo(&key).await;
    assert_eq!(w.ended(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert!(w.standing(&key).is_empty());
    w.end().await;
}

#[tokio::test]
async fn rule_06_whichever_replica_is_asked_answers() {
    let mut w = World::new().await;
    w.replicate();
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    for _ in 0..10 {
        assert_eq!(w.charged(&key, "pm_card_action_required").await, pending);
    }
    w.act(&pending, "complete").await;
    assert!(matches!(w.charged(&key, "pm_card_action_required").await, Answer::Done(_)));
    w.end().await;
}

#[tokio::test]
async fn rule_06_a_pending_charge_ends_by_itself_when_nobody_asks() {
    let mut w = World::new().await;
    w.mock_settings(json!({ "settle_ms": 0 })).await;
    let key = w.key();
    assert!(matches!(w.charged(&key, "pm_card_processing").await, Answer::Pending(_) | Answer::Done(_)));
    w.until(&key, State::Done).await;
    w.end().await;
}

#[tokio::test]
async fn rule_06_a_gateway_that_is_away_leaves_a_pending_charge_pending() {
    let mut w = World::new().await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    w.act(&pending, "complete").await;
    w.mock_settings(json!({ "unavailable_rate": 1.0 })).await;
    assert_eq!(w.charged(&key, "pm_card_action_required").await, pending);
    w.mock_settings(json!({ "unavailable_rate": 0.0 })).await;
    assert!(matches!(w.charged(&key, "pm_card_action_required").await, Answer::Done(_)));
    w.end().await;
}

/// More rows than may be under way at once wait for their customers.
#[tokio::test]
async fn rule_07_charges_that_wait_refuse_no_new_ones() {
    const MANY: i64 = 25_000;
    let mut w = World::new().await;
    w.crash().await;
    sqlx::query(
        "INSERT INTO charges (saga, step, round, state, version, owner, customer, amount, currency, description, intent,
                              reply_to, attempt, created_at, updated_at)
         SELECT gen_random_uuid(), 'PAY', 1, 'pending', 3, r.id, gen_random_uuid(), 1, 'EUR', 'Gala', 'pi_none',
                'reply.0', 1, 1, 1
         FROM generate_series(1, $1), (SELECT id FROM replicas LIMIT 1) AS r",
    )
    .bind(MANY)
    .execute(&w.pool)
    .await
    .unwrap();
    w.replicate();
    let left = || async {
        let count = "SELECT count(*) FROM charges WHERE owner NOT IN (SELECT max(id::text)::uuid FROM replicas)";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&w.pool).await.unwrap()
    };
    let taken_over = async {
        while left().await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await
        }
    };
    tokio::time::timeout(PATIENCE * 3, taken_over).await.expect("taken over");
    let key = w.key();
    assert!(matches!(w.charged(&key, "pm_card_visa").await, Answer::Done(_)));
    sqlx::query("DELETE FROM charges WHERE state = 'pending'").execute(&w.pool).await.unwrap();
    w.end().await;
}
