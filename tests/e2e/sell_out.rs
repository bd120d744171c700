//! A ticket is never sold twice.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_customers_and_a_hundred_tickets() {
    let platform = Platform::start(&["--replicas", "2"]).await;
    let customers = platform.customers(1_000).await;
    let event = platform.event(100, 4_200, None).await;
    let booked = customers.iter().enumerate().map(|(n, token)| {
        let (platform, event) = (&platform, &event);
        async move {
            let booking = platform.book(token, &format!("rush-{n}"), event, Some("pm_card_visa")).await;
            platform.ended(token, &booking).await
        }
    });
    let mut ends: BTreeMap<(String, String), u32> = BTreeMap::new();
    for end in join_all(booked).await {
        let word = |name: &str| end[name].as_str().unwrap_or_default().to_owned();
        *ends.entry((word("status"), word("reason"))).or_default() += 1;
    }
    let expected = [(("confirmed".into(), String::new()), 100), (("failed".into(), "sold_out".into()), 900)];
    assert_eq!(ends, BTreeMap::from(expected));
    assert_eq!(platform.charges().len(), 100);
    assert_eq!(platform.available(&event.0).await, 0);
    platform.audit().await;
}
