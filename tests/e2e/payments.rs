//! Payments that come late, are pending, are given back, or cannot be.

use serde_json::{Value, json};

use crate::platform::{GUARD, Platform, text};

/// Waits until the booking looks so.
pub async fn until(
    platform: &Platform,
    token: &str,
    booking: &Value,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let path = format!("/v1/bookings/{}", text(&booking["id"]));
    let started = std::time::Instant::now();
    loop {
        let now = platform.get(token, &path).await;
        if holds(&now) {
            return now;
        }
        assert!(started.elapsed() < GUARD, "in vain: {what}: {now}");
        tokio::time::sleep(crate::platform::LOOK).await;
    }
}

fn standing(platform: &Platform, booking: &Value) -> usize {
    platform.charges().get(&text(&booking["id"])).map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_a_payment_after_the_holds_end_is_refused_or_given_back() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let event = platform.event(10, 2_000, Some(2)).await;
    // Nobody pays in time.
    let late = platform.book(&ada, "late", &event, None).await;
    assert_eq!(platform.ended(&ada, &late).await["status"], "expired");
    let answer = platform.pay(&ada, "too-late", &late, "pm_card_visa").await;
    assert_eq!(answer.status(), 409);
    // What the payment asks for is done only after the end: the intent is cancelled by then.
    let slow = platform.book(&ada, "slow", &event, Some("pm_card_action_required")).await;
    let url = text(&slow["next_action"]["url"]);
    assert_eq!(platform.ended(&ada, &slow).await["status"], "expired");
    platform
        .until("its intent is cancelled", async || {
            platform.http.post(format!("{url}/complete")).send().await.is_ok_and(|answer| answer.status() == 409)
        })
        .await;
    // A charge in flight at the end counts, and is confirmed within the grace.
    platform.payment_gateway(json!({"slow_ms": 4_000})).await;
    let paid = platform.book(&ada, "paid", &event, Some("pm_card_slow")).await;
    assert_eq!(platform.ended(&ada, &paid).await["status"], "confirmed");
    assert_eq!((standing(&platform, &late), standing(&platform, &slow), standing(&platform, &paid)), (0, 0, 1));
    assert_eq!(platform.available(&event.0).await, 9);
    platform.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payment_can_be_tried_again_and_a_repeat_is_the_first() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let event = platform.event(10, 2_000, Some(60)).await;
    let booking = platform.book(&ada, "again", &event, Some("pm_card_declined")).await;
    let seen = |b: &Value| (text(&b["status"]), b["last_decline"].clone());
    assert_eq!(seen(&booking), ("awaiting_payment".to_owned(), json!("payment_declined")), "{booking}");
    let declined = platform.pay(&ada, "first", &booking, "pm_card_insufficient_funds").await;
    assert_eq!(declined.status(), 202);
    // A lost answer is asked for again: nothing is paid anew, and another body is refused.
    let repeat = platform.pay(&ada, "first", &booking, "pm_card_insufficient_funds").await;
    assert_eq!(repeat.headers().get("idempotent-replayed").map(|v| v.to_str().unwrap()), Some("true"));
    assert_eq!(platform.pay(&ada, "first", &booking, "pm_card_visa").await.status(), 422);
    let paid: Value = platform.pay(&ada, "second", &booking, "pm_card_visa").await.json().await.unwrap();
    assert_eq!(paid["status"], "confirmed", "{paid}");
    let saga = platform.saga(&text(&booking["id"])).await;
    let pay = saga["steps"].as_array().unwrap().iter().find(|step| step["name"] == "PAY").cloned().unwrap();
    assert_eq!((pay["round"].as_i64(), standing(&platform, &booking)), (Some(3), 1));
    platform.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_06_who_cancels_while_the_payment_is_pending_is_never_charged_for_good() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let event = platform.event(10, 2_000, Some(60)).await;
    platform.payment_gateway(json!({"slow_ms": 3_000, "settle_ms": 4_000})).await;
    for (n, method) in ["pm_card_action_required", "pm_card_processing", "pm_card_slow"].into_iter().enumerate() {
        let mut order = platform.booking(&ada, &format!("cancel-{n}"), &event, Some(method)).build().unwrap();
        order.headers_mut().insert("prefer", "wait=1".parse().unwrap()); // a slow charge is in flight for longer
        let booking: Value = platform.http.execute(order).await.unwrap().json().await.unwrap();
        let (status, cancelled) =
            platform.post(&ada, &format!("/v1/bookings/{}/cancel", text(&booking["id"])), json!({})).await;
        assert_eq!((status, text(&cancelled["status"])), (200, "cancelled".to_owned()), "{method}: {cancelled}");
        if let Some(url) = booking["next_action"]["url"].as_str() {
            platform
                .until("the action comes too late", async || {
                    platform
                        .http
                        .post(format!("{url}/complete"))
                        .send()
                        .await
                        .is_ok_and(|answer| answer.status() == 409)
                })
                .await;
        }
        let end = until(&platform, &ada, &booking, "it is given back", |b| b["refund"] != "pending").await;
        assert_eq!(
            (text(&end["status"]), standing(&platform, &booking)),
            ("cancelled".to_owned(), 0),
            "{method}: {end}"
        );
    }
    platform.audit().await;
    assert_eq!(platform.available(&event.0).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_replaces_a_payment_that_waits_for_its_customer() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let event = platform.event(10, 2_000, Some(60)).await;
    let booking = platform.book(&ada, "replaced", &event, Some("pm_card_action_required")).await;
    let url = text(&booking["next_action"]["url"]);
    let paid: Value = platform.pay(&ada, "other", &booking, "pm_card_visa").await.json().await.unwrap();
    assert_eq!(paid["status"], "confirmed", "{paid}");
    assert_eq!(platform.http.post(format!("{url}/complete")).send().await.unwrap().status(), 409);
    assert_eq!(standing(&platform, &booking), 1);
    platform.audit().await;
}

/// The state of a booking's PAY.
async fn pay_state(platform: &Platform, booking: &Value) -> String {
    let saga = platform.saga(&text(&booking["id"])).await;
    let steps = saga["steps"].as_array().cloned().unwrap_or_default();
    steps.iter().find(|step| step["name"] == "PAY").map_or_else(String::new, |step| text(&step["state"]))
}

/// A booking that was charged and is then cancelled: an operator pauses its saga while PAY is in flight, so that it stays
/// before CONFIRM.
pub async fn charged_and_cancelled(platform: &Platform, token: &str, event: &(String, String), method: &str) -> Value {
    let operator = platform.login("operator@demo.test").await;
    platform.payment_gateway(json!({"latency_ms": 2_000})).await;
    let order = platform.booking(token, &format!("undo-{method}"), event, None);
    let booking: Value = order.send().await.unwrap().json().await.unwrap();
    let key = format!("pay-{method}");
    let paying = async {
        platform.until("it is being charged", async || pay_state(platform, &booking).await == "dispatched").await;
        let pause = format!("/v1/sagas/{}/pause", text(&booking["id"]));
        assert_eq!(platform.post(&operator, &pause, json!({"reason": "a test"})).await.0, 200);
        platform.until("it is charged", async || pay_state(platform, &booking).await == "done").await;
        platform.payment_gateway(json!({"latency_ms": 0})).await;
        let cancel = format!("/v1/bookings/{}/cancel", text(&booking["id"]));
        let (status, answer) = platform.post(token, &cancel, json!({})).await;
        assert_eq!(status, 200, "{answer}");
    };
    let _ = tokio::join!(platform.pay(token, &key, &booking, method), paying);
    booking
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_06_a_refund_that_fails_later_has_a_saga_of_its_own_and_is_listed() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let operator = platform.login("operator@demo.test").await;
    let event = platform.event(10, 2_000, Some(60)).await;
    let pending = charged_and_cancelled(&platform, &ada, &event, "pm_card_refund_pending").await;
    let end = until(&platform, &ada, &pending, "the refund settles", |b| b["refund"] == "done").await;
    assert_eq!((text(&end["status"]), standing(&platform, &pending)), ("cancelled".to_owned(), 0));

    let booking = charged_and_cancelled(&platform, &ada, &event, "pm_card_refund_fails_later").await;
    let list = "/v1/sagas?kind=failed_refund&state=attention";
    platform
        .until("the failure has a saga", async || {
            platform.get(&operator, list).await["items"].as_array().is_some_and(|items| items.len() == 1)
        })
        .await;
    let saga = platform.get(&operator, list).await["items"][0].clone();
    assert_eq!(saga["attention"][0]["step"], "GIVE_BACK");
    let detail = platform.saga(&text(&saga["id"])).await;
    assert_eq!(detail["input"]["booking"], booking["id"], "{detail}");
    let audit = platform.run(&["audit"]).await;
    let told = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(audit.status.success() && told.contains("refund_by_hand") && told.contains(&text(&saga["id"])), "{told}");
    // Somebody gives it back by hand.
    let (status, answer) = platform
        .post(
            &operator,
            &format!("/v1/sagas/{}/resolve", text(&saga["id"])),
            json!({"step": "GIVE_BACK", "reason": "wired"}),
        )
        .await;
    assert_eq!((status, text(&answer["state"])), (200, "completed".to_owned()), "{answer}");
    platform
        .until("who was charged is told of the money", async || {
            let mail = platform.run(&["mail", "show", "latest"]).await;
            let mail = String::from_utf8_lossy(&mail.stdout).into_owned();
            mail.contains("customer@demo.test") && mail.contains("20.00 EUR") && mail.contains(&text(&booking["id"]))
        })
        .await;
    platform.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_refund_that_is_refused_for_good_is_tried_again_or_resolved_by_hand() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let operator = platform.login("operator@demo.test").await;
    let event = platform.event(10, 2_000, Some(60)).await;
    let booking = charged_and_cancelled(&platform, &ada, &event, "pm_card_refund_refused").await;
    let id = text(&booking["id"]);
    platform.marked(&id, "PAY").await;
    assert_eq!(platform.get(&ada, &format!("/v1/bookings/{id}")).await["refund"], "attention");
    assert_eq!(platform.available(&event.0).await, 10, "a refund that hangs holds no tickets");
    // Tried again, it is refused again.
    assert_eq!(platform.post(&operator, &format!("/v1/sagas/{id}/retry"), json!({"reason": "once more"})).await.0, 200);
    platform.marked(&id, "PAY").await;
    let resolve = json!({"step": "PAY", "reason": "given back by bank transfer 4711"});
    assert_eq!(platform.post(&operator, &format!("/v1/sagas/{id}/resolve"), resolve).await.0, 200);
    let end = until(&platform, &ada, &booking, "it is resolved", |b| b["refund"] == "done").await;
    assert_eq!(end["status"], "cancelled");
    let history = platform.history(&id).await;
    let resolved =
        history.iter().find(|entry| entry.starts_with("resolved PAY operator:")).cloned().unwrap_or_default();
    assert!(resolved.ends_with("given back by bank transfer 4711"), "{history:?}");
    platform.audit().await;
}
