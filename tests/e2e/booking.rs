//! One booking all the way, and its manners at the gateway.

use serde_json::{Value, json};

use crate::platform::{Platform, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_goes_from_post_to_tickets_mail_and_history() {
    let mut platform = Platform::start(&[]).await;
    let customer = platform.login("customer@demo.test").await;
    let event = platform.event(10, 4_200, None).await;
    let booking = platform.book(&customer, "walk", &event, Some("pm_card_visa")).await;
    assert_eq!(booking["status"], "confirmed", "{booking}");
    assert_eq!(booking["total"], json!({"amount": 4200, "currency": "EUR"}));
    let id = text(&booking["id"]);

    let tickets = platform.get(&customer, &format!("/v1/bookings/{id}/tickets")).await;
    let code = text(&tickets["items"][0]["code"]);
    assert_eq!((tickets["items"].as_array().unwrap().len(), code.len()), (1, 26), "{tickets}");
    assert_eq!(platform.available(&event.0).await, 9);

    let again = platform.booking(&customer, "walk", &event, Some("pm_card_visa")).send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["id"], booking["id"], "the same key is the same booking");
    let other = platform.booking(&customer, "walk", &event, Some("pm_card_declined")).send().await.unwrap();
    assert_eq!(other.status(), 422, "another body with the same key");

    platform
        .until("the mail arrives", async || {
            let mail = platform.run(&["mail", "show", "latest"]).await;
            String::from_utf8_lossy(&mail.stdout).contains(&code)
        })
        .await;
    let show = platform.run(&["saga", "show", &id]).await;
    let show = String::from_utf8_lossy(&show.stdout).into_owned();
    for step in ["RESERVE", "PAY", "CONFIRM", "NOTIFY", "completed"] {
        assert!(show.contains(step), "{step} in {show}");
    }
    platform.audit().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_unpaid_and_cancelled_bookings_and_other_peoples() {
    let platform = Platform::start(&[]).await;
    let customers = platform.customers(2).await;
    let (mine, theirs) = (&customers[0], &customers[1]);
    let free = platform.event(10, 0, None).await;
    let booking = platform.book(mine, "free", &free, None).await;
    assert_eq!(booking["status"], "confirmed", "nothing is to be paid: {booking}");

    let paid = platform.event(10, 1_000, None).await;
    let waiting = platform.book(mine, "later", &paid, None).await;
    assert_eq!(waiting["status"], "awaiting_payment", "{waiting}");
    assert_eq!(platform.available(&paid.0).await, 9);
    let path = format!("{}/v1/bookings/{}", platform.url, text(&waiting["id"]));
    let stranger = platform.http.get(&path).bearer_auth(theirs).send().await.unwrap();
    assert_eq!(stranger.status(), 404, "another customer's booking");
    let cancel = async |token: &str| {
        platform.http.post(format!("{path}/cancel")).bearer_auth(token).send().await.unwrap().status()
    };
    assert_eq!(cancel(theirs).await, 404);
    assert!(cancel(mine).await.is_success());
    assert_eq!(platform.ended(mine, &waiting).await["status"], "cancelled");
    assert_eq!(cancel(mine).await, 409, "it has ended");
    platform.until("the ticket is given back", async || platform.available(&paid.0).await == 10).await;

    let wrong = json!({"event_id": paid.0, "items": [{"ticket_type_id": paid.1, "quantity": 1}],
        "payment_method": "pm_card_visa", "expected_total": {"amount": 1, "currency": "EUR"}});
    let request = platform.http.post(format!("{}/v1/bookings", platform.url)).bearer_auth(mine);
    let answer = request.header("idempotency-key", "price").header("prefer", "wait=20").json(&wrong).send().await;
    let answer: Value = answer.unwrap().json().await.unwrap();
    assert_eq!((&answer["status"], &answer["reason"]), (&json!("failed"), &json!("price_changed")), "{answer}");
    platform.audit().await;
}
