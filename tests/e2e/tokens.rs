//! Each test token ends as its name says, whatever is killed meanwhile, with webhooks and without.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::platform::{Platform, text};

/// Tokens with the status that a booking ends in, and the charges that stand then.
const TOKENS: [(&str, &str, usize); 9] = [
    ("pm_card_visa", "confirmed", 1),
    ("pm_card_declined", "failed", 0),
    ("pm_card_insufficient_funds", "failed", 0),
    ("pm_card_lost_answer", "confirmed", 1),
    ("pm_card_slow", "confirmed", 1),
    ("pm_card_processing", "confirmed", 1),
    ("pm_card_flaky_1", "confirmed", 1),
    ("pm_card_flaky_4", "confirmed", 1),
    ("pm_card_action_required", "confirmed", 1),
];
/// Bookings of each token.
const EACH: usize = 4;
/// Length of a hold, long enough for the slowest card.
const HOLD: u32 = 120;

/// A booking with the token that it was paid with.
struct End {
    method: &'static str,
    status: &'static str,
    charges: usize,
    booking: Value,
}

/// Books with every token, several at once, as their customers would go on: a declined card is tried five times, and
/// what a payment asks for is done.
async fn book(platform: &Platform, event: &(String, String), round: &str) -> Vec<End> {
    let customers = platform.customers(EACH).await;
    let all = TOKENS.iter().flat_map(|&token| (0..EACH).map(move |n| (token, n)));
    let booked = all.map(|((method, status, charges), n)| {
        let customer = customers[n].clone();
        async move {
            let key = format!("{round}-{method}-{n}");
            let booking = platform.book(&customer, &key, event, Some(method)).await;
            End { method, status, charges, booking: go_on(platform, &customer, &key, booking, method).await }
        }
    });
    join_all(booked).await
}

/// Does what the booking waits for until it has ended.
async fn go_on(platform: &Platform, customer: &str, key: &str, booking: Value, method: &str) -> Value {
    let path = format!("/v1/bookings/{}", text(&booking["id"]));
    for payment in 0.. {
        let now = platform.get(customer, &path).await;
        if now["status"] != "awaiting_payment" && now["status"] != "pending" && !now.is_null() {
            break;
        }
        if let Some(url) = now["next_action"]["url"].as_str() {
            // The customer's browser; a gateway that is down is tried again.
            let _ = platform.http.post(format!("{url}/complete")).send().await;
        } else if now["status"] == "awaiting_payment" && now["last_decline"].is_string() {
            let _ = platform.pay(customer, &format!("{key}-{payment}"), &booking, method).await;
        }
        tokio::time::sleep(crate::platform::LOOK).await;
    }
    platform.ended(customer, &booking).await
}

/// One charge stands for a confirmed booking, none for any other. `strict`: no step ran out of attempts.
fn check(platform: &Platform, ends: &[End], strict: bool) {
    let charges = platform.charges();
    for End { method, status, charges: expected, booking } in ends {
        let standing = charges.get(&text(&booking["id"])).map_or(0, Vec::len);
        if strict {
            assert_eq!(booking["status"], *status, "{method}: {booking}");
            assert_eq!(standing, *expected, "{method}: {booking}");
        }
        if booking["status"] == "confirmed" {
            assert_eq!((*status, standing), ("confirmed", 1), "{method}: {booking}");
        } else {
            assert_eq!(standing, 0, "{method}: {booking}");
            let expected = if *status == "failed" { "none" } else { "done" };
            assert!(booking["refund"] == expected || booking["refund"] == "done", "{method}: {booking}");
        }
    }
}

async fn calm(platform: &Platform, event: &(String, String), round: &str) {
    let ends = book(platform, event, round).await;
    check(platform, &ends, true);
    for declined in ends.iter().filter(|end| end.status == "failed") {
        assert_eq!(declined.booking["reason"], "payment_declined", "{}", declined.booking);
        let saga = platform.saga(&text(&declined.booking["id"])).await;
        let pay = saga["steps"].as_array().unwrap().iter().find(|step| step["name"] == "PAY").cloned().unwrap();
        assert_eq!(pay["round"], 5, "five declines end the booking: {pay}");
    }
    platform.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_05_tokens_end_as_their_names_say() {
    let platform = Platform::start(&["--replicas", "2"]).await;
    let event = platform.event(1_000, 2_500, Some(HOLD)).await;
    calm(&platform, &event, "calm").await;
    let sold = TOKENS.iter().filter(|(_, status, _)| *status == "confirmed").count() * EACH;
    assert_eq!(platform.available(&event.0).await, 1_000 - i64::try_from(sold).unwrap(), "what failed was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_06_nothing_hangs_on_webhooks_alone() {
    let platform = Platform::start(&["--replicas", "2"]).await;
    platform.payment_gateway(json!({"webhooks": false})).await;
    let event = platform.event(1_000, 2_500, Some(HOLD)).await;
    calm(&platform, &event, "silent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_05_tokens_end_well_with_payments_and_the_gateway_killed() {
    let platform = Platform::start(&["--processes"]).await;
    let event = platform.event(1_000, 2_500, Some(HOLD)).await;
    for (round, part) in ["payments", "mock-gateway", "payments"].into_iter().enumerate() {
        platform.payment_gateway(json!({"webhooks": round < 2})).await;
        let round = format!("{part}-{round}");
        // Killed when the first charges of the round are in the ledger: between a call and the record of its outcome.
        let before = platform.charges().len();
        let killing = async {
            platform.until("a charge is made", async || platform.charges().len() > before).await;
            platform.kill_part(part);
        };
        let (ends, ()) = tokio::join!(book(&platform, &event, &round), killing);
        check(&platform, &ends, false);
        assert!(ends.iter().any(|end| end.booking["status"] == "confirmed"), "payments work again");
    }
    platform.audit().await;
}
