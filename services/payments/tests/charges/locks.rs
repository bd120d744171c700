//! 6.1 and 6.9: whoever changes a charge holds the lock of its saga, and nobody waits in a circle.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::{Answer, Half, Item};
use eventicket_contracts::subjects::Service;
use eventicket_kit::batch::lock_sagas;
use eventicket_payments::State;
use serde_json::json;
use sqlx::{Postgres, Transaction};

use crate::messages::{code, item};
use crate::world::{Hold, PATIENCE, World};

/// The lock of a saga.
async fn locked(w: &World, saga: SagaId) -> Transaction<'static, Postgres> {
    let mut tx = w.pool.begin().await.unwrap();
    lock_sagas(&mut tx, &[saga]).await.unwrap();
    tx
}

/// Waits until so many wait for the lock of a saga.
async fn waiting(w: &World, number: i64) {
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                   WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
    let count = async || sqlx::query_scalar::<_, i64>(waiting).fetch_one(&w.pool).await.unwrap();
    let reached = async { while count().await < number {} };
    tokio::time::timeout(PATIENCE, reached).await.expect("somebody waits for the lock");
}

#[tokio::test]
async fn rule_01_a_driver_records_what_it_saw_under_the_lock_of_the_saga() {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(Hold::After("/confirm"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    let lock = locked(&w, key.saga).await;
    w.gate.release();
    waiting(&w, 1).await;
    assert_eq!(w.state(&key).await, State::Created, "as it was");
    lock.commit().await.unwrap();
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    w.end().await;
}

#[tokio::test]
async fn rule_01_a_webhook_changes_a_charge_under_the_lock_of_the_saga() {
    let mut w = World::new().await;
    let key = w.key();
    let Answer::Pending(told) = w.charged(&key, "pm_card_action_required").await else { panic!("not pending") };
    let told = told.value();
    let id = told["intent"].as_str().unwrap();
    w.mock_form(&format!("/test/payment_intents/{id}/succeed"), &[]).await;
    let metadata = json!({ "saga": key.saga, "step": key.step, "round": "1" });
    let intent = json!({ "id": id, "status": "succeeded", "amount": 4200, "currency": "eur", "metadata": metadata });
    let lock = locked(&w, key.saga).await;
    let released = async {
        waiting(&w, 1).await;
        assert_eq!(w.state(&key).await, State::Pending, "as it was");
        lock.commit().await.unwrap();
    };
    let (told, ()) = tokio::join!(w.webhook("payment_intent.succeeded", &intent), released);
    assert_eq!((told, w.state(&key).await), (200, State::Done));
    w.end().await;
}

#[tokio::test]
async fn rule_01_a_charge_is_read_under_the_lock_of_its_saga() {
    let mut w = World::new().await;
    let key = w.key();
    let mut lock = locked(&w, key.saga).await;
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    waiting(&w, 1).await;
    // Whoever has the lock closes the round before it has begun.
    sqlx::query(
        "INSERT INTO charges (saga, step, round, state, version, owner, outcome, code, message, created_at, updated_at)
         SELECT $1, $2, 1, 'tombstone', 1, id, 'rejected', 'undone', '', 1, 1 FROM replicas LIMIT 1",
    )
    .bind(key.saga.0)
    .bind(&key.step)
    .execute(&mut *lock)
    .await
    .unwrap();
    lock.commit().await.unwrap();
    assert_eq!(code(&w.answer(&key, Half::Do).await), "undone");
    assert!(w.ledger().intents.is_empty());
    w.end().await;
}

/// Waits until both replicas ask for commands.
async fn both_pull(w: &World) {
    let service = Service::PAYMENTS;
    let pulls = async || {
        let stream = w.ctx.nats.jetstream().get_stream(service.stream()).await.unwrap();
        let consumer: Option<PullConsumer> = stream.get_consumer(service.name()).await.ok();
        consumer.map_or(0, |consumer| consumer.cached_info().num_waiting)
    };
    let both = async { while pulls().await < 2 {} };
    tokio::time::timeout(PATIENCE, both).await.expect("both replicas work");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_commands_in_opposite_order_never_deadlock() {
    let mut w = World::new().await;
    w.replicate();
    both_pull(&w).await;
    let keys: Vec<_> = (0..20).map(|_| w.key()).collect();
    let (body, reason) = (w.charge("pm_card_visa"), json!({ "reason": "late" }));
    let charges: Vec<Item> = keys.iter().map(|key| item(key, Half::Do, &body, None)).collect();
    let refunds: Vec<Item> = keys.iter().rev().map(|key| item(key, Half::Undo, &reason, None)).collect();
    // A saga in the middle is locked, so that each batch has the locks that it takes first.
    let lock = locked(&w, keys[10].saga).await;
    w.send("charge", charges).await;
    waiting(&w, 1).await;
    for _ in 0..20 {
        w.send("refund", refunds.clone()).await; // the other replica gets some of them
    }
    waiting(&w, 2).await;
    lock.commit().await.unwrap();
    for key in &keys {
        assert!(w.answer(key, Half::Undo).await.is_final());
    }
    let stream = Service::PAYMENTS.stream();
    let left = async || w.ctx.nats.jetstream().get_stream(&stream).await.unwrap().cached_info().state.messages;
    let handled = async { while left().await > 0 {} };
    tokio::time::timeout(PATIENCE, handled).await.expect("all are acknowledged");
    let pool = w.pool.clone();
    w.end().await;
    // What a connection did is counted at the latest when it ends.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''";
    let ended = async {
        while sqlx::query_scalar::<_, i64>(others).fetch_one(&pool).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the replicas' connections end");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(sqlx::query_scalar::<_, i64>(deadlocks).fetch_one(&pool).await.unwrap(), 0);
}
