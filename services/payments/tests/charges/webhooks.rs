//! Webhooks: hints that are believed only when they are signed, and that change nothing they need not.

use eventicket_contracts::envelope::{Answer, Half, Key};
use eventicket_mock_gateway::ledger::Status;
use eventicket_payments::State;
use serde_json::{Value, json};

use crate::messages::{refunded, webhook};
use crate::world::{Hold, PRICE, World};

/// An intent as a webhook shows it.
fn intent(key: &Key, id: &str, status: &str) -> Value {
    let metadata = json!({ "saga": key.saga, "step": key.step, "round": key.round.to_string() });
    json!({ "id": id, "status": status, "amount": 4200, "currency": "eur", "metadata": metadata })
}

/// A round that waits for its customer, and its intent's id.
async fn pending(w: &mut World) -> (Key, String) {
    let key = w.key();
    let Answer::Pending(told) = w.charged(&key, "pm_card_action_required").await else { panic!("not pending") };
    (key, told.value()["intent"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn rule_06_a_webhook_ends_a_pending_charge_under_its_own_key() {
    let mut w = World::with_webhooks().await;
    for (act, state) in [("complete", State::Done), ("fail", State::Rejected)] {
        let key = w.key();
        let pending = w.charged(&key, "pm_card_action_required").await;
        assert_eq!(w.act(&pending, act).await, 200);
        // Nobody asks.
        assert!(w.answer(&key, Half::Do).await.is_final());
        assert_eq!(w.state(&key).await, state);
    }
    w.end().await;
}

#[tokio::test]
async fn rule_06_forged_old_and_foreign_webhooks_change_nothing() {
    let mut w = World::new().await;
    let (key, id) = pending(&mut w).await;
    let before = w.rows().await;
    let body = webhook("1", "payment_intent.succeeded", &intent(&key, &id, "succeeded"));
    let forged = w.signature(&body, 0).replace("v1=", "v1=00");
    let other = webhook("1", "payment_intent.succeeded", &intent(&key, &id, "canceled"));
    for (body, signature) in [
        (&body, forged),
        (&body, String::new()),
        (&body, w.signature(&body, 320)),
        (&body, w.signature(&body, -320)),
        (&body, w.signature(&other, 0)),
    ] {
        assert_eq!(w.post_webhook(body, &signature).await, 400, "{signature}");
    }
    let mut unknown = key.clone();
    unknown.round = 9;
    for (kind, object) in [
        ("payment_intent.succeeded", intent(&unknown, &id, "succeeded")),
        ("payment_intent.succeeded", json!({ "id": id, "status": "succeeded", "metadata": {} })),
        ("payment_intent.amount_capturable_updated", intent(&key, &id, "succeeded")),
        ("payment_intent.payment_failed", intent(&key, "pi_other", "requires_payment_method")),
        ("invoice.paid", json!({})),
    ] {
        assert_eq!(w.webhook(kind, &object).await, 200, "{kind} is nothing to us");
    }
    assert_eq!(w.rows().await, before);
    assert_eq!(w.undone(&key).await, refunded(None));
    w.end().await;
}

#[tokio::test]
async fn rule_06_a_webhook_is_answered_after_the_commit_and_has_its_effect_once() {
    let mut w = World::new().await;
    w.replicate();
    let (key, id) = pending(&mut w).await;
    w.mock_form(&format!("/test/payment_intents/{id}/succeed"), &[]).await;
    let body = webhook("1", "payment_intent.succeeded", &intent(&key, &id, "succeeded"));
    let signature = w.signature(&body, 0);
    let all = (0..8).map(|_| w.post_webhook(&body, &signature));
    assert_eq!(futures::future::join_all(all).await, [200; 8]);
    assert_eq!(w.state(&key).await, State::Done, "it is committed");
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.event().await.0, "captured");
    let version = "SELECT version FROM charges WHERE saga = $1";
    let version: i32 = sqlx::query_scalar(version).bind(key.saga.0).fetch_one(&w.pool).await.unwrap();
    assert_eq!(version, 4, "accepted, with an intent, pending, done");
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks").fetch_one(&w.pool).await.unwrap();
    assert_eq!(known, 1);
    assert_eq!(w.webhook("payment_intent.succeeded", &intent(&key, &id, "succeeded")).await, 200, "another one");
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks").fetch_one(&w.pool).await.unwrap();
    assert_eq!(known, 1, "what changes nothing is not kept");
    w.end().await;
}

#[tokio::test]
async fn rule_06_a_webhook_may_come_before_the_calls_own_answer() {
    let mut w = World::with_webhooks().await;
    w.mock_settings(json!({ "webhook_delay_ms": 0 })).await;
    let key = w.key();
    w.gate.hold(Hold::After("/confirm"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)), "the confirm's answer is still held");
    w.gate.release();
    assert_eq!(w.statuses(&key), [Status::Succeeded]);
    w.end().await;
}

#[tokio::test]
async fn rule_05_an_intent_that_is_not_the_rounds_own_is_never_committed_and_its_success_refunded() {
    let mut w = World::with_webhooks().await;
    w.mock_settings(json!({ "webhook_delay_ms": 0 })).await;
    let key = w.key();
    w.gate.hold(Hold::After("/payment_intents"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    // Somebody else makes an intent for the same round, and it succeeds before ours is known.
    let (saga, round) = (key.saga.to_string(), key.round.to_string());
    let form = [
        ("amount", "4200"),
        ("currency", "eur"),
        ("metadata[saga]", &saga),
        ("metadata[step]", &key.step),
        ("metadata[round]", &round),
    ];
    let stray = w.mock_form("/v1/payment_intents", &form).await["id"].as_str().unwrap().to_owned();
    w.mock_form(&format!("/v1/payment_intents/{stray}/confirm"), &[("payment_method", "pm_card_visa")]).await;
    assert_eq!(w.webhook("payment_intent.succeeded", &intent(&key, &stray, "succeeded")).await, 503, "not yet");
    assert_eq!(w.rows().await[0].intent, None);
    w.gate.release();
    let Answer::Done(charged) = w.answer(&key, Half::Do).await else { panic!("not charged") };
    assert_ne!(charged.value()["intent"], json!(stray));
    let other = Key { step: stray.clone(), ..key.clone() };
    let given_back = async {
        while !w.rows().await.iter().any(|row| row.key == other && row.state == State::Refunded) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, given_back).await.expect("the stray is given back");
    assert_eq!(w.webhook("payment_intent.succeeded", &intent(&key, &stray, "succeeded")).await, 200);
    assert_eq!((w.standing(&key), w.ledger().refunds.len()), (vec![PRICE.amount], 1));
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_failure_seen_by_webhook_only_marks_the_row_and_the_cancel_decides() {
    let mut w = World::new().await;
    let (key, id) = pending(&mut w).await;
    w.mock_form(&format!("/test/payment_intents/{id}/succeed"), &[]).await;
    // An old one, overtaken by the success.
    let failed = intent(&key, &id, "requires_payment_method");
    assert_eq!(w.webhook("payment_intent.payment_failed", &failed).await, 200);
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.standing(&key), [PRICE.amount]);

    let (key, id) = pending(&mut w).await;
    assert_eq!(w.webhook("payment_intent.payment_failed", &intent(&key, &id, "requires_payment_method")).await, 200);
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Rejected(_)));
    assert_eq!(w.statuses(&key), [Status::Canceled]);
    w.end().await;
}

#[tokio::test]
async fn rule_06_webhooks_that_could_not_be_taken_come_again() {
    let mut w = World::with_webhooks().await;
    w.mock_settings(json!({ "webhook_delay_ms": 0 })).await;
    let key = w.key();
    let pending = w.charged(&key, "pm_card_action_required").await;
    w.crash().await;
    assert_eq!(w.act(&pending, "complete").await, 200);
    w.crash_mock().await;
    w.restart_mock().await;
    w.replicate();
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)), "nobody asked");
    w.end().await;
}
