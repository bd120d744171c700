//! Calls: keys, replay, refusals, lost answers, and what the ledger keeps.

use std::time::Duration;

use eventicket_mock_gateway::ledger::{self, Status};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{World, send};

#[tokio::test]
async fn visa_succeeds_once_and_is_refunded_once() {
    let w = World::new().await;
    let intent = w.create().await;
    let (status, body) = send(w.confirm(&intent, "pm_card_visa", "k1")).await;
    assert_eq!(
        (status, &body["status"], &body["amount_received"]),
        (StatusCode::OK, &json!("succeeded"), &json!(4200))
    );

    let (status, body) = send(w.confirm(&intent, "pm_card_visa", "k2")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("payment_intent_unexpected_state")));
    assert_eq!(body["error"]["payment_intent"]["status"], "succeeded");
    let (status, body) = send(w.cancel(&intent)).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("payment_intent_unexpected_state")));

    let refund = || w.post("/v1/refunds", &[("payment_intent", &intent)]);
    let (status, body) = send(refund()).await;
    assert_eq!((status, &body["amount"], &body["status"]), (StatusCode::OK, &json!(4200), &json!("succeeded")));
    let (status, again) = send(refund()).await;
    assert_eq!((status, &again["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("charge_already_refunded")));
    assert_eq!(w.get(&format!("/v1/refunds/{}", body["id"].as_str().unwrap())).await.1, body);
    let (_, listed) = w.get(&format!("/v1/refunds?payment_intent={intent}")).await;
    assert_eq!(listed["data"], json!([body]));
}

#[tokio::test]
async fn a_cancelled_intent_never_succeeds() {
    let w = World::new().await;
    let intent = w.create().await;
    assert_eq!(send(w.cancel(&intent)).await.1["status"], "canceled");
    let (status, body) = send(w.confirm(&intent, "pm_card_visa", "k1")).await;
    assert_eq!((status, &body["error"]["payment_intent"]["status"]), (StatusCode::BAD_REQUEST, &json!("canceled")));
    assert_eq!(w.get(&format!("/v1/payment_intents/{intent}")).await.1["status"], "canceled");
}

#[tokio::test]
async fn refusals_have_stripes_shape() {
    let w = World::new().await;
    let intent = w.create().await;
    for (token, code) in [("pm_card_declined", "generic_decline"), ("pm_card_insufficient_funds", "insufficient_funds")]
    {
        let (status, body) = send(w.confirm(&intent, token, token)).await;
        assert_eq!((status, &body["error"]["type"]), (StatusCode::PAYMENT_REQUIRED, &json!("card_error")));
        assert_eq!(body["error"]["decline_code"], code);
        assert_eq!(body["error"]["payment_intent"]["status"], "requires_payment_method");
    }
    let (status, body) = send(w.confirm(&intent, "pm_nothing", "k")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("resource_missing")));
    assert_eq!(w.get("/v1/payment_intents/pi_none").await.0, StatusCode::NOT_FOUND);
    assert_eq!(w.get("/v1/nothing").await.0, StatusCode::NOT_FOUND);
    let bare = w.client.get(format!("http://{}/v1/payment_intents?limit=1", w.address)).bearer_auth("sk_other");
    assert_eq!(send(bare).await.0, StatusCode::UNAUTHORIZED);
    let (_, listed) = w.get("/v1/payment_intents?limit=1").await;
    assert_eq!(listed["data"][0]["id"], json!(intent));
}

#[tokio::test]
async fn a_key_answers_one_request_and_the_same_each_time() {
    let w = World::new().await;
    let intent = w.create().await;
    let first = send(w.confirm(&intent, "pm_card_visa", "k1")).await;
    let replay = w.confirm(&intent, "pm_card_visa", "k1").send().await.unwrap();
    assert_eq!(replay.headers()["Idempotent-Replayed"], "true");
    assert_eq!((replay.status(), replay.json::<Value>().await.unwrap()), first);
    let (status, body) = send(w.confirm(&intent, "pm_card_declined", "k1")).await;
    assert_eq!((status, &body["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("idempotency_error")));
}

#[tokio::test]
async fn a_key_under_way_is_in_use() {
    let w = World::new().await;
    let intent = w.create().await;
    w.settings(json!({"latency_ms": 300})).await;
    let both =
        tokio::join!(send(w.confirm(&intent, "pm_card_visa", "k1")), send(w.confirm(&intent, "pm_card_visa", "k1")),);
    let mut statuses = [both.0.0.as_u16(), both.1.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn a_failure_is_stored_under_its_key() {
    let w = World::new().await;
    let intent = w.create().await;
    w.settings(json!({"failure_rate": 1.0})).await;
    assert_eq!(send(w.confirm(&intent, "pm_card_visa", "k1")).await.0, 500);
    w.settings(json!({"failure_rate": 0.0})).await;
    let replay = w.confirm(&intent, "pm_card_visa", "k1").send().await.unwrap();
    assert_eq!((replay.status().as_u16(), &replay.headers()["Idempotent-Replayed"]), (500, &"true".parse().unwrap()));
    assert_eq!(send(w.confirm(&intent, "pm_card_visa", "k2")).await.0, 200);
}

#[tokio::test]
async fn rule_05_a_lost_answer_has_charged_and_its_repeat_is_answered() {
    let w = World::new().await;
    let intent = w.create().await;
    let lost = w.confirm(&intent, "pm_card_lost_answer", "k1").send().await;
    assert!(lost.is_err(), "the connection is cut");
    assert_eq!(ledger::read(w.folder.path()).unwrap().intents[0].status, Status::Succeeded, "synced before the cut");
    let (status, body) = send(w.confirm(&intent, "pm_card_lost_answer", "k1")).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("succeeded")));
}

#[tokio::test]
async fn everything_answered_survives_a_crash() {
    let mut w = World::new().await;
    let (paid, declined) = (w.create().await, w.create().await);
    let first = send(w.confirm(&paid, "pm_card_visa", "k1")).await;
    let refused = send(w.confirm(&declined, "pm_card_declined", "k2")).await;
    let (_, refund) = send(w.post("/v1/refunds", &[("payment_intent", &paid), ("amount", "200")])).await;
    w.crash().await;

    assert_eq!(send(w.confirm(&paid, "pm_card_visa", "k1")).await, first);
    assert_eq!(send(w.confirm(&declined, "pm_card_declined", "k2")).await, refused);
    assert_eq!(w.get(&format!("/v1/refunds/{}", refund["id"].as_str().unwrap())).await.1, refund);
    let ledger = ledger::read(w.folder.path()).unwrap();
    let intents: Vec<_> = ledger.intents.iter().map(|i| (i.id.clone(), i.status, i.refunded)).collect();
    assert_eq!(intents, [(paid, Status::Succeeded, 200), (declined, Status::RequiresPaymentMethod, 0)]);
    assert_eq!(ledger.intents[0].metadata["saga"], "s1");
    assert_eq!(ledger.refunds.len(), 1);
}

#[tokio::test]
async fn the_ledger_never_holds_a_token() {
    let w = World::new().await;
    let intent = w.create().await;
    for (n, token) in ["pm_card_declined", "pm_secret_unknown", "pm_card_visa"].into_iter().enumerate() {
        send(w.confirm(&intent, token, &n.to_string())).await;
    }
    let text = std::fs::read_to_string(w.folder.path().join(ledger::FILE)).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert!(!text.contains("pm_card") && !text.contains("pm_secret"), "{text}");
}

#[tokio::test]
async fn an_asker_who_hangs_up_does_not_stop_the_change() {
    let w = World::new().await;
    let intent = w.create().await;
    w.settings(json!({"latency_ms": 300})).await;
    let hasty = w.confirm(&intent, "pm_card_visa", "k1").timeout(Duration::from_millis(100)).send().await;
    assert!(hasty.is_err_and(|error| error.is_timeout()));
    // The key stays in use until the change is made, then its answer is there.
    let answer = async {
        loop {
            let (status, body) = send(w.confirm(&intent, "pm_card_visa", "k1")).await;
            if status != StatusCode::CONFLICT {
                return (status, body);
            }
        }
    };
    let (status, body) = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap();
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("succeeded")));
}

#[tokio::test]
async fn changes_that_come_together_share_syncs() {
    let w = World::new().await;
    let before = w.settings(json!({})).await["syncs"].as_u64().unwrap();
    let form = [("amount", "4200"), ("currency", "eur")];
    let requests = (0..200).map(|_| tokio::spawn(w.post("/v1/payment_intents", &form).send()));
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let syncs = w.settings(json!({})).await["syncs"].as_u64().unwrap() - before;
    assert!(syncs < 200, "{syncs} syncs for 200 changes");
    assert_eq!(ledger::read(w.folder.path()).unwrap().intents.len(), 200);
}
