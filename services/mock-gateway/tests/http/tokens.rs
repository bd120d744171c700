//! What the test tokens do that take time or fail, and that it survives a crash.

use std::time::Instant;

use eventicket_mock_gateway::ledger::{self, RefundStatus, Status};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{World, send};

#[tokio::test]
async fn slow_is_charged_late_and_its_key_is_in_use_meanwhile() {
    let w = World::new().await;
    w.settings(json!({ "slow_ms": 300 })).await;
    let intent = w.create().await;
    let begun = Instant::now();
    let (slow, beside) =
        tokio::join!(send(w.confirm(&intent, "pm_card_slow", "k1")), send(w.confirm(&intent, "pm_card_slow", "k1")),);
    let mut statuses = [slow.0.as_u16(), beside.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert!(begun.elapsed().as_millis() >= 300);
    assert_eq!(w.get(&format!("/v1/payment_intents/{intent}")).await.1["status"], "succeeded");
}

#[tokio::test]
async fn rule_05_a_cancel_beside_a_slow_confirm_wins() {
    let w = World::new().await;
    w.settings(json!({ "slow_ms": 300 })).await;
    let intent = w.create().await;
    let (slow, cancelled) = tokio::join!(async { send(w.confirm(&intent, "pm_card_slow", "k1")).await }, async {
        // The confirm is there once its key is in use.
        while send(w.confirm(&intent, "pm_card_slow", "k1")).await.0 != StatusCode::CONFLICT {}
        send(w.cancel(&intent)).await
    });
    assert_eq!(cancelled.1["status"], "canceled");
    assert_eq!(slow.1["error"]["payment_intent"]["status"], "canceled", "the late confirm is refused: {slow:?}");
}

#[tokio::test]
async fn an_action_leads_to_a_page_where_the_customer_ends_it() {
    let w = World::new().await;
    for (act, end) in [("complete", "succeeded"), ("fail", "requires_payment_method")] {
        let intent = w.create().await;
        let (status, body) = send(w.confirm(&intent, "pm_card_action_required", &intent)).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("requires_action")));
        assert_eq!(body["next_action"]["type"], "redirect_to_url");
        let url = body["next_action"]["redirect_to_url"]["url"].as_str().unwrap();
        let page = w.client.get(url).send().await.unwrap().text().await.unwrap();
        assert!(page.contains("42.00 EUR") && page.contains(&format!("/authenticate/{intent}/{act}")), "{page}");
        assert_eq!(w.client.post(format!("{url}/{act}")).send().await.unwrap().status(), 200);
        assert_eq!(w.client.post(format!("{url}/complete")).send().await.unwrap().status(), 409, "once");
        let (_, body) = w.get(&format!("/v1/payment_intents/{intent}")).await;
        assert_eq!((&body["status"], &body["next_action"]), (&json!(end), &Value::Null));
        let why = json!(if act == "fail" { Some("payment_intent_authentication_failure") } else { None });
        assert_eq!(body["last_payment_error"]["code"], why);
    }
}

#[tokio::test]
async fn rule_05_an_action_of_a_cancelled_intent_cannot_be_completed() {
    let w = World::new().await;
    let intent = w.create().await;
    send(w.confirm(&intent, "pm_card_action_required", "k1")).await;
    assert_eq!(send(w.cancel(&intent)).await.1["status"], "canceled");
    let url = format!("http://{}/authenticate/{intent}/complete", w.address);
    assert_eq!(w.client.post(url).send().await.unwrap().status(), 409);
    assert_eq!(w.get(&format!("/v1/payment_intents/{intent}")).await.1["status"], "canceled");
}

#[tokio::test]
async fn flaky_fails_each_confirm_of_a_round_in_turn_also_across_crashes() {
    let mut w = World::new().await;
    let form = [("amount", "1"), ("currency", "eur"), ("metadata[saga]", "s"), ("metadata[step]", "PAY")];
    let form = [form.as_slice(), [("metadata[round]", "1")].as_slice()].concat();
    let intent = send(w.post("/v1/payment_intents", &form)).await.1["id"].as_str().unwrap().to_owned();
    assert!(w.confirm(&intent, "pm_card_flaky_4", "k1").send().await.is_err(), "cut");
    w.crash().await;
    assert_eq!(send(w.confirm(&intent, "pm_card_flaky_4", "k1")).await.0, 500, "k1 was not stored");
    let replay = w.confirm(&intent, "pm_card_flaky_4", "k1").send().await.unwrap();
    assert_eq!((replay.status().as_u16(), &replay.headers()["Idempotent-Replayed"]), (500, &"true".parse().unwrap()));
    w.crash().await;
    assert_eq!(send(w.confirm(&intent, "pm_card_flaky_4", "k2")).await.0, 500);
    assert_eq!(w.get(&format!("/v1/payment_intents/{intent}")).await.1["status"], "succeeded");
    assert_eq!(send(w.confirm(&intent, "pm_card_flaky_4", "k3")).await.0, 503);
    let (status, body) = send(w.confirm(&intent, "pm_card_flaky_4", "k3")).await;
    assert_eq!((status, &body["error"]["payment_intent"]["status"]), (StatusCode::BAD_REQUEST, &json!("succeeded")));
}

#[tokio::test]
async fn a_processing_intent_settles_by_itself_also_after_a_crash() {
    let mut w = World::new().await;
    w.settings(json!({ "settle_ms": 400 })).await;
    let intent = w.create().await;
    assert_eq!(send(w.confirm(&intent, "pm_card_processing", "k1")).await.1["status"], "processing");
    let (status, refused) = send(w.cancel(&intent)).await;
    assert_eq!((status.as_u16(), &refused["error"]["payment_intent"]["status"]), (400, &json!("processing")));
    w.crash().await;
    w.until(&format!("/v1/payment_intents/{intent}"), "succeeded").await;
}

#[tokio::test]
async fn refunds_are_pending_fail_later_or_are_refused() {
    let mut w = World::new().await;
    w.settings(json!({ "refund_settle_ms": 3_600_000, "refund_fail_ms": 300 })).await;

    let (_, pending) = w.refund(&w.paid("pm_card_refund_pending").await).await;
    assert_eq!(pending["status"], "pending");
    let path = format!("/v1/refunds/{}", pending["id"].as_str().unwrap());
    let succeed = format!("/test/refunds/{}/succeed", pending["id"].as_str().unwrap());
    assert_eq!(send(w.post(&succeed, &[])).await.1["status"], "succeeded");
    assert_eq!(send(w.post(&succeed, &[])).await.0, 400);
    w.until(&path, "succeeded").await;

    let intent = w.paid("pm_card_refund_fails_later").await;
    let (_, failing) = w.refund(&intent).await;
    assert_eq!((&failing["status"], &failing["failure_reason"]), (&json!("succeeded"), &Value::Null));
    w.crash().await;
    let path = format!("/v1/refunds/{}", failing["id"].as_str().unwrap());
    w.until(&path, "failed").await;
    assert_eq!(w.get(&path).await.1["failure_reason"], "expired_or_canceled_card");
    let ledger = ledger::read(w.folder.path()).unwrap();
    let charge = ledger.intents.iter().find(|found| found.id == intent).unwrap();
    assert_eq!((charge.status, charge.refunded), (Status::Succeeded, 0), "the money stands again");
    assert_eq!(ledger.refunds.last().unwrap().status, RefundStatus::Failed);

    let refused = w.refund(&w.paid("pm_card_refund_refused").await).await;
    assert_eq!((refused.0.as_u16(), &refused.1["error"]["code"]), (400, &json!("charge_disputed")));
}

#[tokio::test]
async fn calls_fail_as_often_as_the_settings_say_also_after_a_crash() {
    let mut w = World::new().await;
    let intent = w.create().await;
    w.settings(json!({ "unavailable_rate": 1.0 })).await;
    w.crash().await;
    assert_eq!(send(w.confirm(&intent, "pm_card_visa", "k1")).await.0, 503);
    assert_eq!(w.get(&format!("/v1/payment_intents/{intent}")).await.0, 503);
    w.settings(json!({ "unavailable_rate": 0.0, "cut_rate": 1.0 })).await;
    assert!(w.confirm(&intent, "pm_card_visa", "k1").send().await.is_err());
    w.settings(json!({ "cut_rate": 0.0, "balance_insufficient": true })).await;
    let intent = w.paid("pm_card_visa").await;
    let (status, body) = w.refund(&intent).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!("balance_insufficient")));
    let url = format!("http://{}/test/settings", w.address);
    let unknown = w.client.post(url).bearer_auth(crate::world::KEY).json(&json!({ "latncy_ms": 1 })).send().await;
    assert_eq!(unknown.unwrap().status(), 400);
}
