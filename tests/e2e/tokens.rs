//! Each test token ends as its name says, whatever is killed meanwhile.

use futures::future::join_all;
use serde_json::Value;

use crate::platform::{Platform, text};

const TOKENS: [(&str, &str); 4] = [
    ("pm_card_visa", "confirmed"),
    ("pm_card_declined", "failed"),
    ("pm_card_insufficient_funds", "failed"),
    ("pm_card_lost_answer", "confirmed"),
];
/// Bookings of each token.
const EACH: usize = 12;

/// Books with every token, several at once; each booking with the end that its token stands for.
async fn book(platform: &Platform, event: &(String, String), round: &str) -> Vec<(&'static str, &'static str, Value)> {
    let customers = platform.customers(EACH).await;
    let all = TOKENS.iter().flat_map(|&(token, end)| (0..EACH).map(move |n| (token, end, n)));
    let booked = all.map(|(method, end, n)| {
        let customer = customers[n].clone();
        async move {
            let key = format!("{round}-{method}-{n}");
            let booking = platform.book(&customer, &key, event, Some(method)).await;
            (method, end, platform.ended(&customer, &booking).await)
        }
    });
    join_all(booked).await
}

/// One charge stands for a confirmed booking, none for any other. `strict`: no step ran out of attempts.
fn check(platform: &Platform, ends: &[(&str, &str, Value)], strict: bool) {
    let charges = platform.charges();
    for (method, end, booking) in ends {
        let charged = charges.get(&text(&booking["id"])).map_or(0, Vec::len);
        if strict {
            assert_eq!(booking["status"], *end, "{method}: {booking}");
        }
        if booking["status"] == "confirmed" {
            assert_eq!((*end, charged), ("confirmed", 1), "{method}: {booking}");
        } else if *end == "failed" {
            assert_eq!(booking["reason"], "payment_declined", "{method}: {booking}");
            assert_eq!(charged, 0, "{method}: {booking}");
        } else {
            assert_eq!(booking["refund"], "done", "{method}: {booking}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_05_tokens_end_as_their_names_say() {
    let platform = Platform::start(&[]).await;
    let event = platform.event(1_000, 2_500, None).await;
    let ends = book(&platform, &event, "calm").await;
    check(&platform, &ends, true);
    platform.audit().await;
    let sold = i64::try_from(2 * EACH).unwrap();
    assert_eq!(platform.available(&event.0).await, 1_000 - sold, "what failed was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_05_tokens_end_well_with_payments_and_the_gateway_killed() {
    let platform = Platform::start(&["--processes"]).await;
    let event = platform.event(1_000, 2_500, None).await;
    for (round, part) in ["payments", "mock-gateway", "payments"].into_iter().enumerate() {
        let round = format!("{part}-{round}");
        // Killed when the first charges of the round are in the ledger: between a call and the record of its outcome.
        let before = platform.charges().len();
        let killing = async {
            platform.until("a charge is made", async || platform.charges().len() > before).await;
            platform.kill_part(part);
        };
        let (ends, ()) = tokio::join!(book(&platform, &event, &round), killing);
        check(&platform, &ends, false);
        assert!(ends.iter().any(|(_, _, booking)| booking["status"] == "confirmed"), "payments work again");
    }
    platform.audit().await;
}
