//! Webhooks: signed, each until it is taken, also after a crash.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use eventicket_mock_gateway::{Webhooks, sign};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::world::{PATIENCE, World, send};

const SECRET: &str = "whsec_1";

/// Takes webhooks, or refuses them with the status that it is told.
struct Taker {
    seen: mpsc::Receiver<(HeaderMap, String)>,
    answer: Arc<AtomicU16>,
    url: String,
}

type Shared = (mpsc::Sender<(HeaderMap, String)>, Arc<AtomicU16>);

impl Taker {
    async fn new() -> Self {
        let (tell, seen) = mpsc::channel(64);
        let answer = Arc::new(AtomicU16::new(200));
        let take = async |State((tell, answer)): State<Shared>, headers: HeaderMap, body: String| {
            tell.send((headers, body)).await.unwrap();
            StatusCode::from_u16(answer.load(Ordering::SeqCst)).unwrap()
        };
        let router = Router::new().fallback(take).with_state((tell, Arc::clone(&answer)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { seen, answer, url }
    }

    fn webhooks(&self) -> Option<Webhooks> {
        Some(Webhooks { url: self.url.clone(), secret: SECRET.into() })
    }

    async fn next(&mut self) -> Value {
        let (headers, body) = tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("no webhook").unwrap();
        let signature = headers["Stripe-Signature"].to_str().unwrap();
        let unix = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
        assert_eq!(signature, sign(SECRET, unix, &body));
        serde_json::from_str(&body).unwrap()
    }

    async fn kinds(&mut self, most: usize) -> HashSet<String> {
        let mut kinds = HashSet::new();
        for _ in 0..most {
            kinds.insert(self.next().await["type"].as_str().unwrap().to_owned());
        }
        kinds
    }
}

#[tokio::test]
async fn changes_are_told_with_what_they_made() {
    let mut taker = Taker::new().await;
    let w = World::telling(taker.webhooks()).await;
    w.settings(json!({ "webhook_delay_ms": 0, "settle_ms": 0, "refund_fail_ms": 0 })).await;
    let intent = w.paid("pm_card_visa").await;
    let event = taker.next().await;
    assert_eq!((&event["object"], &event["type"]), (&json!("event"), &json!("payment_intent.succeeded")));
    assert_eq!(
        (&event["data"]["object"]["id"], &event["data"]["object"]["metadata"]["saga"]),
        (&json!(intent), &json!("s1"))
    );

    for (token, kind) in [
        ("pm_card_declined", "payment_intent.payment_failed"),
        ("pm_card_action_required", "payment_intent.requires_action"),
    ] {
        let intent = w.create().await;
        send(w.confirm(&intent, token, &intent)).await;
        assert_eq!(taker.next().await["type"], kind);
        send(w.cancel(&intent)).await;
        assert_eq!(taker.next().await["type"], "payment_intent.canceled");
    }
    let intent = w.create().await;
    send(w.confirm(&intent, "pm_card_processing", &intent)).await;
    assert_eq!(
        taker.kinds(2).await,
        ["payment_intent.processing", "payment_intent.succeeded"].map(String::from).into()
    );

    let intent = w.paid("pm_card_refund_fails_later").await;
    assert_eq!(taker.next().await["type"], "payment_intent.succeeded");
    w.refund(&intent).await;
    let kinds = ["refund.created", "refund.updated", "refund.failed"].map(String::from);
    assert_eq!(taker.kinds(3).await, kinds.into());
}

#[tokio::test]
async fn a_webhook_comes_again_with_the_same_id_until_it_is_taken_also_after_a_crash() {
    let mut taker = Taker::new().await;
    let mut w = World::telling(taker.webhooks()).await;
    w.settings(json!({ "webhook_delay_ms": 0 })).await;
    taker.answer.store(503, Ordering::SeqCst);
    w.paid("pm_card_visa").await;
    let first = taker.next().await;
    assert_eq!(taker.next().await, first);
    w.crash().await;
    assert_eq!(taker.next().await, first);
    taker.answer.store(200, Ordering::SeqCst);
    assert_eq!(taker.next().await, first);
    let taken = async { while w.settings(json!({})).await["unsent_webhooks"] != 0 {} };
    tokio::time::timeout(PATIENCE, taken).await.expect("taken");
    w.crash().await;
    w.paid("pm_card_visa").await;
    assert_ne!(taker.next().await["id"], first["id"], "what was taken does not come again");
}

#[tokio::test]
async fn webhooks_that_are_off_are_kept() {
    let mut taker = Taker::new().await;
    let mut w = World::telling(taker.webhooks()).await;
    w.settings(json!({ "webhook_delay_ms": 0, "webhooks": false })).await;
    let intent = w.paid("pm_card_visa").await;
    w.crash().await;
    assert_eq!(w.settings(json!({})).await["unsent_webhooks"], 1);
    w.settings(json!({ "webhooks": true })).await;
    assert_eq!(taker.next().await["data"]["object"]["id"], json!(intent));
}
