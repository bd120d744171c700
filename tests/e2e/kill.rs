//! kill -9 of everything at once, and a start on what is left.

use futures::future::join_all;

use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_booking_ends_after_the_whole_group_was_killed() {
    let mut platform = Platform::start(&["--processes"]).await;
    let customers = platform.customers(200).await;
    let event = platform.event(1_000, 2_500, None).await;
    // Accepted, and not waited for.
    let accept = customers.iter().enumerate().map(|(n, token)| {
        let request = platform.booking(token, &format!("kill-{n}"), &event, Some("pm_card_visa"));
        async move { request.header("prefer", "wait=0").send().await.ok()?.json::<serde_json::Value>().await.ok() }
    });
    let first = join_all(accept).await;
    let children = platform.left_running();
    platform.kill_group();
    assert!(first.iter().flatten().count() > 0, "some were accepted");
    platform.until(&format!("nothing is left of {children:?}"), async || platform.left_running().is_empty()).await;

    platform.start_again().await;
    for (n, token) in customers.iter().enumerate() {
        // The same key finds the booking that was accepted, or books now.
        let booking = platform.book(token, &format!("kill-{n}"), &event, Some("pm_card_visa")).await;
        if let Some(before) = &first[n] {
            assert_eq!(before["id"], booking["id"], "accepted once, and still there");
        }
        assert_eq!(platform.ended(token, &booking).await["status"], "confirmed");
    }
    assert_eq!(platform.available(&event.0).await, 800);
    platform.audit().await;
    platform.stop().await;
}
