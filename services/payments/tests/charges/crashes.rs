//! The service or the gateway dies between a call and its record.

use eventicket_contracts::envelope::{Answer, Half};
use eventicket_mock_gateway::ledger::Status;
use serde_json::json;

use crate::messages::item;
use crate::world::{Hold, PRICE, World};

/// The service is dropped while it waits for the held call, and started again.
async fn crash_at(hold: Hold) {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(hold);
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    w.crash().await;
    w.gate.open();
    w.replicate();
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.statuses(&key), [Status::Succeeded], "one intent, charged once");
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_crash_before_the_intent_is_made() {
    crash_at(Hold::Before("/payment_intents")).await;
}

#[tokio::test]
async fn rule_05_a_crash_between_create_and_the_record_of_its_id() {
    crash_at(Hold::After("/payment_intents")).await;
}

#[tokio::test]
async fn rule_05_a_crash_between_create_and_confirm() {
    crash_at(Hold::Before("/confirm")).await;
}

#[tokio::test]
async fn rule_05_a_crash_between_confirm_and_its_record() {
    crash_at(Hold::After("/confirm")).await;
}

#[tokio::test]
async fn rule_07_a_live_replica_takes_over_what_a_dead_one_left() {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(Hold::After("/confirm"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    w.crash().await;
    w.gate.open();
    w.replicate();
    w.replicate();
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.statuses(&key), [Status::Succeeded]);
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_gateway_that_is_down_refuses_nothing() {
    let mut w = World::new().await;
    w.crash_mock().await;
    let keys: Vec<_> = (0..50).map(|_| w.key()).collect();
    let body = w.charge("pm_card_visa");
    w.send("charge", keys.iter().map(|key| item(key, Half::Do, &body, None)).collect()).await;
    let undone = w.key();
    w.send_do(&undone, &body).await;
    w.send_undo(&undone).await;
    assert!(
        matches!(w.answer(&undone, Half::Undo).await, Answer::Done(_)),
        "an undo without an intent needs no gateway"
    );
    w.restart_mock().await;
    for key in &keys {
        assert!(matches!(w.answer(key, Half::Do).await, Answer::Done(_)));
        assert_eq!(w.statuses(key), [Status::Succeeded]);
    }
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_gateway_killed_while_it_charges_charges_once() {
    let mut w = World::new().await;
    w.mock_settings(json!({"latency_ms": 20})).await;
    let keys: Vec<_> = (0..200).map(|_| w.key()).collect();
    let body = w.charge("pm_card_visa");
    w.send("charge", keys.iter().map(|key| item(key, Half::Do, &body, None)).collect()).await;
    assert!(matches!(w.answer(&keys[0], Half::Do).await, Answer::Done(_)));
    w.crash_mock().await;
    w.restart_mock().await;
    for key in &keys[1..] {
        assert!(matches!(w.answer(key, Half::Do).await, Answer::Done(_)));
    }
    for key in &keys {
        let succeeded = w.statuses(key).into_iter().filter(|status| *status == Status::Succeeded).count();
        assert_eq!(succeeded, 1);
    }
    w.end().await;
}

#[tokio::test]
async fn rule_09_a_row_that_cannot_be_written_stops_no_other_one() {
    let mut w = World::new().await;
    let (stuck, others) = (w.key(), [w.key(), w.key(), w.key()]);
    let refuse =
        format!("ALTER TABLE charges ADD CONSTRAINT stuck CHECK (saga <> '{}' OR state <> 'done')", stuck.saga);
    sqlx::query(sqlx::AssertSqlSafe(refuse)).execute(&w.pool).await.unwrap();
    w.send_do(&stuck, &w.charge("pm_card_visa")).await;
    for key in &others {
        assert!(matches!(w.charged(key, "pm_card_visa").await, Answer::Done(_)));
    }
    assert!(w.state(&stuck).await.is_due());
    // Once the database takes it, it goes on.
    sqlx::query("ALTER TABLE charges DROP CONSTRAINT stuck").execute(&w.pool).await.unwrap();
    assert!(matches!(w.answer(&stuck, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.standing(&stuck), [PRICE.amount], "charged once");
    w.end().await;
}
