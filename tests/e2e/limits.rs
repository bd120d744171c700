//! A customer's limit holds however many requests come at once.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::json;

use crate::platform::Platform;

const CUSTOMERS: usize = 20;
const REQUESTS: usize = 50;
const LIMIT: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_limit_of_two_a_customer_is_two() {
    let platform = Platform::start(&["--replicas", "2"]).await;
    let tokens = platform.customers(CUSTOMERS).await;
    let event = platform.event_with(1_500, json!({"quantity": 1_000}), json!({"max_per_customer": LIMIT})).await;
    let all = (0..REQUESTS).flat_map(|n| tokens.iter().map(move |token| (n, token)));
    let booked = all.map(|(n, token)| {
        let (platform, event) = (&platform, &event);
        async move {
            // What is refused for now (429) is repeated with the same key.
            let booking = platform.book(token, &format!("mine-{n}"), event, Some("pm_card_visa")).await;
            platform.ended(token, &booking).await
        }
    });
    let mut ends: BTreeMap<(String, String), usize> = BTreeMap::new();
    for end in join_all(booked).await {
        let word = |name: &str| end[name].as_str().unwrap_or_default().to_owned();
        *ends.entry((word("status"), word("reason"))).or_default() += 1;
    }
    let sold = CUSTOMERS * LIMIT;
    let refused = ("failed".to_owned(), "customer_limit".to_owned());
    let expected = [(("confirmed".to_owned(), String::new()), sold), (refused, CUSTOMERS * REQUESTS - sold)];
    assert_eq!(ends, BTreeMap::from(expected));
    assert_eq!(platform.available(&event.0).await, 1_000 - i64::try_from(sold).unwrap());
    assert_eq!(platform.charges().len(), sold);
    platform.audit().await;
}
