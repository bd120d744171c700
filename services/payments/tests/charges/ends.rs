//! How charges end.

use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::{SagaId, Timestamp, codes};
use eventicket_mock_gateway::ledger::Status;
use eventicket_payments::State;
use serde_json::json;

use crate::messages::{code, item};
use crate::world::{Hold, PRICE, World};

#[tokio::test]
async fn rule_01_a_charge_is_made_once_however_often_it_is_asked_for() {
    let mut w = World::new().await;
    let key = w.key();
    let body = w.charge("pm_card_visa");
    w.send("charge", vec![item(&key, Half::Do, &body, None), item(&key, Half::Do, &body, None)]).await;
    let first = w.answer(&key, Half::Do).await;
    let intent = w.ledger().intents.remove(0);
    assert_eq!(first, Answer::done(json!({ "intent": intent.id })));
    assert_eq!((intent.status, intent.amount, intent.currency.as_str()), (Status::Succeeded, 4200, "eur"));
    assert_eq!((intent.metadata["step"].as_str(), intent.metadata["round"].as_str()), ("PAY", "1"));
    assert_eq!(w.charged(&key, "pm_card_visa").await, first);
    assert_eq!(w.ledger().intents.len(), 1);

    let (what, event) = w.event().await;
    assert_eq!((what.as_str(), event.aggregate, &event.data["amount"]), ("captured", key.saga.0, &json!(PRICE)));
    let payments = w.payments(&key).await;
    assert_eq!(
        (payments.len(), payments[0].state.as_str(), payments[0].intent.as_ref()),
        (1, "done", Some(&intent.id))
    );
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_refused_charge_is_rejected_once_its_intent_is_cancelled() {
    let mut w = World::new().await;
    for (token, expected, word) in [
        ("pm_card_declined", codes::PAYMENT_DECLINED, "generic_decline"),
        ("pm_card_insufficient_funds", codes::PAYMENT_DECLINED, "insufficient_funds"),
        ("pm_card_nothing", codes::PAYMENT_METHOD_INVALID, "not known"),
    ] {
        let key = w.key();
        let Answer::Rejected(rejection) = w.charged(&key, token).await else { panic!("{token} is not rejected") };
        assert_eq!(rejection.code, expected);
        assert!(rejection.message.contains(word), "{}", rejection.message);
        assert_eq!(w.statuses(&key), [Status::Canceled]);
        assert_eq!(code(&w.charged(&key, token).await), expected, "the same answer again");
        assert_eq!(w.undone(&key).await, crate::messages::refunded(None));
    }
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_lost_answer_ends_done_with_one_charge() {
    let mut w = World::new().await;
    let key = w.key();
    assert!(matches!(w.charged(&key, "pm_card_lost_answer").await, Answer::Done(_)));
    assert_eq!(w.statuses(&key), [Status::Succeeded]);
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_slow_confirm_is_repeated_with_its_key_which_is_waited_for_while_it_is_in_use() {
    let mut w = World::new().await;
    // Half as long again as a call may take.
    w.mock_settings(json!({ "slow_ms": 1500 })).await;
    let key = w.key();
    assert!(matches!(w.charged(&key, "pm_card_slow").await, Answer::Done(_)));
    assert_eq!((w.statuses(&key), w.standing(&key).len()), (vec![Status::Succeeded], 1));
    assert_eq!(w.ledger_text().matches(&format!("\"{key}:confirm")).count(), 1, "one request, one key");
    w.end().await;
}

#[tokio::test]
async fn rule_05_a_key_that_stands_for_another_request_refuses_nothing() {
    let mut w = World::new().await;
    let key = w.key();
    w.gate.hold(Hold::After("/confirm"));
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    w.crash().await;
    w.gate.open();
    // The next start sends customers back to another address, so that the confirm's repeat differs from the first.
    w.ctx = w.ctx.clone().with_settings(|settings| settings.public_url = "http://127.0.0.1:9090".into());
    w.replicate();
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.statuses(&key), [Status::Succeeded]);
    w.end().await;
}

#[tokio::test]
async fn what_cannot_be_charged_is_rejected_without_a_call() {
    let mut w = World::new().await;
    let free = w.key();
    let mut body = w.charge("pm_card_visa");
    body["amount"]["amount"] = json!(0);
    w.send_do(&free, &body).await;
    assert_eq!(code(&w.answer(&free, Half::Do).await), codes::PAYMENT_INVALID);

    let stolen = w.key();
    let mut body = w.charge("pm_card_visa");
    body["customer"] = json!(SagaId::fresh());
    w.send_do(&stolen, &body).await;
    assert_eq!(code(&w.answer(&stolen, Half::Do).await), codes::PAYMENT_METHOD_INVALID);
    assert!(w.ledger().intents.is_empty());
    w.end().await;
}

#[tokio::test]
async fn rule_02_a_recorded_answer_comes_before_the_deadline_and_expired_records_nothing() {
    let mut w = World::new().await;
    let key = w.key();
    let late = |w: &World| item(&key, Half::Do, &w.charge("pm_card_visa"), Some(Timestamp(1)));
    w.send("charge", vec![late(&w)]).await;
    assert_eq!(w.answer(&key, Half::Do).await, Answer::Expired);
    assert!(w.rows().await.is_empty());
    let done = w.charged(&key, "pm_card_visa").await;
    w.send("charge", vec![late(&w)]).await;
    assert_eq!(w.answer(&key, Half::Do).await, done);
    w.end().await;
}

#[tokio::test]
async fn rule_16_a_do_of_an_old_saga_is_rejected() {
    let mut w = World::new().await;
    let key = w.old_key();
    assert_eq!(code(&w.charged(&key, "pm_card_visa").await), codes::TOO_OLD);
    assert!(w.rows().await.is_empty());
    w.end().await;
}

#[tokio::test]
async fn rule_16_an_undo_of_an_old_saga_without_a_record_needs_an_operator() {
    let mut w = World::new().await;
    let key = w.old_key();
    assert!(matches!(w.undone(&key).await, Answer::Dead(_)));
    assert_eq!((w.dead_letters().await, w.rows().await.len()), (1, 0));
    w.stop().await;
}

#[tokio::test]
async fn rule_05_stored_failures_are_repeated_under_new_keys() {
    let mut w = World::new().await;
    w.mock_settings(json!({"failure_rate": 0.6})).await;
    let keys: Vec<_> = (0..20).map(|_| w.key()).collect();
    let body = w.charge("pm_card_visa");
    w.send("charge", keys.iter().map(|key| item(key, Half::Do, &body, None)).collect()).await;
    for key in &keys {
        assert!(matches!(w.answer(key, Half::Do).await, Answer::Done(_)));
        let succeeded = w.statuses(key).into_iter().filter(|status| *status == Status::Succeeded).count();
        assert_eq!(succeeded, 1);
    }
    let replaced: i64 =
        sqlx::query_scalar("SELECT sum(create_key + confirm_key) FROM charges").fetch_one(&w.pool).await.unwrap();
    assert!(replaced > 0, "no failure was stored");
    w.end().await;
}

#[tokio::test]
async fn two_replicas_charge_each_round_once() {
    let mut w = World::new().await;
    w.replicate();
    let keys: Vec<_> = (0..400).map(|_| w.key()).collect();
    let body = w.charge("pm_card_visa");
    for part in keys.chunks(40).chain(keys.chunks(50)) {
        w.send("charge", part.iter().map(|key| item(key, Half::Do, &body, None)).collect()).await;
    }
    for key in &keys {
        assert!(matches!(w.answer(key, Half::Do).await, Answer::Done(_)));
    }
    assert_eq!(w.ledger().intents.iter().filter(|intent| intent.status == Status::Succeeded).count(), 400);
    assert_eq!(w.ledger().intents.len(), 400);
    assert!(w.rows().await.iter().all(|row| row.state == State::Done));
    w.end().await;
}
