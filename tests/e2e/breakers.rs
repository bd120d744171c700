//! Breakers: a payment gateway that fails every call holds bookings, which finish when it recovers; and operators.

use std::collections::BTreeMap;

use eventicket_contracts::sagas::{HISTORY, HistoryEntry};
use eventicket_nats::Nats;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::platform::{Platform, figure, text};

/// Bookings whose failures trip the breaker: somewhat more than it takes.
const FIRST: usize = 25;
/// Customers who book while it is open, and bookings of each.
const LATER: (usize, usize) = (6, 90);
/// Held sagas that the orchestrator lets go at once, and ms between two times.
const RELEASE: (usize, i64) = (200, 200);

async fn breaker(platform: &Platform, service: &str) -> Value {
    let all = platform.get(&platform.operator().await, "/v1/breakers").await;
    let all = all["items"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|breaker| breaker["service"] == service).unwrap_or_default()
}

async fn until(platform: &Platform, what: &str, holds: impl Fn(&Value) -> bool) {
    platform.until(what, async || holds(&breaker(platform, "payments").await)).await;
}

/// Books for each customer, without waiting for what becomes of it.
async fn book(platform: &Platform, customers: &[String], each: usize, event: &(String, String)) -> Vec<Value> {
    let all = customers.iter().flat_map(|customer| (0..each).map(move |n| (customer, n)));
    let book = async |(customer, n): (&String, usize)| {
        platform.accept(customer, &format!("held-{n}"), event, Some("pm_card_visa")).await
    };
    join_all(all.map(book)).await
}

/// The histories of sagas, past the API's limit of requests.
async fn histories(platform: &Platform, bookings: &[Value]) -> Vec<Vec<HistoryEntry>> {
    let nats = Nats::connect(&text(&platform.about()["nats_url"]), "test").await.unwrap();
    let read = async |booking: &Value| {
        let history: Option<Vec<HistoryEntry>> = nats.query("orchestrator", HISTORY, &booking["id"]).await.unwrap();
        history.unwrap()
    };
    join_all(bookings.iter().map(read)).await
}

/// How often PAY was sent as an attempt of its own.
fn attempts(history: &[HistoryEntry]) -> usize {
    pays(history).count()
}

/// When PAY was sent as an attempt of its own, ms.
fn pays(history: &[HistoryEntry]) -> impl Iterator<Item = i64> {
    let sent = history.iter().filter(|e| e.what == "dispatched" && e.step.as_deref() == Some("PAY"));
    sent.map(|entry| entry.at.millis())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_fails_every_call_holds_bookings_which_finish_without_a_burst() {
    let platform = Platform::alone(&["--processes"]).await;
    let customers = platform.customers(1 + LATER.0).await;
    let event = platform.event(1_000, 2_000, None).await;
    platform.payment_gateway(json!({"unavailable_rate": 1.0})).await;
    let first = book(&platform, &customers[..1], FIRST, &event).await;
    until(&platform, "it trips", |b| b["state"] == "open" && b["mode"] == "auto").await;
    let later = book(&platform, &customers[1..], LATER.1, &event).await;
    assert!(later.iter().all(|booking| booking["status"] == "pending"), "new bookings are accepted");
    // All but a probe.
    let held = first.len() + later.len() - 1;
    until(&platform, "all are held", |b| b["held"].as_u64().is_some_and(|n| n >= held as u64)).await;
    for history in histories(&platform, &later).await {
        assert_eq!(attempts(&history), 0, "nothing is spent on what is held: {history:?}");
    }
    let spent: usize = histories(&platform, &first).await.iter().map(|history| attempts(history)).sum();
    assert!(spent <= FIRST + 5, "one attempt each, and the probes: {spent}");
    let (exit, listed) = platform.json(&["breaker", "ls"]).await;
    let shown = listed.as_array().unwrap().iter().find(|b| b["service"] == "payments").unwrap();
    assert_eq!((exit, &shown["mode"]), (0, &json!("auto")));
    assert_ne!(shown["state"], "closed", "{shown}");

    // Who probes dies: that holds nobody.
    until(&platform, "it is probed", |b| b["state"] == "half_open").await;
    let killed = platform.kill_part("orchestrator");
    let alive = async || platform.about()["processes"]["orchestrator"].as_i64().is_some_and(|pid| pid != killed);
    platform.until("another one is there", alive).await;
    platform.payment_gateway(json!({"unavailable_rate": 0.0})).await;
    let all: Vec<Value> = first.iter().chain(&later).cloned().collect();
    platform.until("all are charged", async || platform.charges().len() == all.len()).await;
    until(&platform, "it closes", |b| b["state"] == "closed" && b["held"] == 0).await;
    platform.audit().await;
    let charged: BTreeMap<_, _> = platform.charges().into_iter().map(|(saga, charges)| (saga, charges.len())).collect();
    assert_eq!(charged, all.iter().map(|booking| (text(&booking["id"]), 1)).collect(), "each is charged once");
    assert_eq!(platform.available(&event.0).await, 1_000 - i64::try_from(all.len()).unwrap(), "each has its ticket");
    no_burst(&histories(&platform, &later).await);
    operators_open_close_and_free_it(&platform, &customers[0], &event).await;
    platform.audit().await;
}

/// Each was sent once, and never more at a time than are let go at once.
fn no_burst(histories: &[Vec<HistoryEntry>]) {
    let mut sent: Vec<i64> = histories.iter().flat_map(|history| pays(history)).collect();
    assert_eq!(sent.len(), histories.len(), "one attempt each");
    sent.sort_unstable();
    let within = |at: &i64| sent.iter().filter(|other| (*at..at + RELEASE.1).contains(other)).count();
    let most = sent.iter().map(within).max().unwrap();
    figure(&format!(
        "{} held bookings went on within {} ms, {most} of them in {} ms",
        sent.len(),
        sent[sent.len() - 1] - sent[0],
        RELEASE.1
    ));
    assert!(most <= 2 * RELEASE.0, "{most} at once"); // the end of one time and the begin of the next
}

async fn operators_open_close_and_free_it(platform: &Platform, customer: &str, event: &(String, String)) {
    let rest = async |mode: &str, reason: &str| {
        let path = format!("/v1/breakers/payments/{mode}");
        let (status, set) = platform.post(&platform.operator().await, &path, json!({"reason": reason})).await;
        assert_eq!(status, 200, "{set}");
        set
    };
    let command = async |mode: &str, reason: &str| {
        let (exit, set) = platform.json(&["breaker", mode, "payments", "--reason", reason]).await;
        assert_eq!(exit, 0, "{set}");
        set
    };
    let set_by = |breaker: &Value, actor: &str| {
        assert!(text(&breaker["actor"]).starts_with(actor), "{breaker}");
        ["state", "mode", "reason"].map(|name| text(&breaker[name]))
    };
    for (n, actor) in ["operator:", "cli:"].into_iter().enumerate() {
        let set = async |mode: &str, reason: &str| {
            if n == 0 { rest(mode, reason).await } else { command(mode, reason).await }
        };
        assert_eq!(set_by(&set("open", "it is being moved").await, actor), ["open", "open", "it is being moved"]);
        let held = held(platform, customer, event, n).await;
        assert_eq!(set_by(&set("close", "it is there").await, actor), ["closed", "closed", "it is there"]);
        assert_eq!(platform.ended(customer, &held).await["status"], "confirmed");
        assert_eq!(set_by(&set("auto", "all is well").await, actor), ["closed", "auto", "all is well"]);
        assert_eq!(breaker(platform, "payments").await["mode"], "auto");
    }
    let nobody = "/v1/breakers/nobody/open";
    assert_eq!(platform.post(&platform.operator().await, nobody, json!({"reason": "none"})).await.0, 404);
    let unknown = platform.run(&["breaker", "open", "nobody", "--reason", "none"]).await;
    assert_eq!(unknown.status.code(), Some(1));
}

/// Books until one is held: replicas hear of what an operator has set within a moment.
async fn held(platform: &Platform, customer: &str, event: &(String, String), round: usize) -> Value {
    for n in 0.. {
        let booking = platform.accept(customer, &format!("set-{round}-{n}"), event, Some("pm_card_visa")).await;
        let id = text(&booking["id"]);
        let state = async || text(&platform.saga(&id).await["state"]);
        platform.until("it is held, or goes on", async || ["held", "completed"].contains(&&*state().await)).await;
        if state().await == "held" {
            return booking;
        }
    }
    unreachable!("it goes on until one is held")
}
