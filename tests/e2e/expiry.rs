//! A hold that runs out is given back in time.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use futures::StreamExt;
use jiff::Timestamp;

use crate::platform::{GUARD, Platform, figure, text};

/// The target is 1 s; a test's guard is ten times that.
const LATEST: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_a_hold_that_runs_out_is_given_back_and_sold_again() {
    let platform = Platform::start(&[]).await;
    let customer = platform.login("customer@demo.test").await;
    let event = platform.event(1, 1_000, Some(2)).await;
    let nats = async_nats_client(&text(&platform.about()["nats_url"])).await;
    let stream = async_nats::jetstream::new(nats).get_stream("EVENTS").await.unwrap();
    let filter = pull::Config { filter_subject: "evt.booking.expired".into(), ..pull::Config::default() };
    let mut expired = stream.create_consumer(filter).await.unwrap().messages().await.unwrap();

    let held = platform.book(&customer, "held", &event, None).await;
    assert_eq!((held["status"].as_str(), platform.available(&event.0).await), (Some("awaiting_payment"), 0), "{held}");
    let ends: Timestamp = text(&held["hold_expires_at"]).parse().unwrap();
    platform.until("the ticket is back", async || platform.available(&event.0).await == 1).await;
    #[allow(clippy::disallowed_methods)] // the platform's own clock is the machine's
    let late = Timestamp::now().as_millisecond() - ends.as_millisecond();
    figure(&format!("given back {late} ms after the hold's end"));
    assert!((0..i64::try_from(LATEST.as_millis()).unwrap()).contains(&late), "not before, not long after: {late} ms");
    assert_eq!(platform.ended(&customer, &held).await["status"], "expired");
    let told = tokio::time::timeout(GUARD, expired.next()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&told.payload).contains(&text(&held["id"])));

    let started = Instant::now();
    let sold = platform.book(&customer, "sold", &event, Some("pm_card_visa")).await;
    assert_eq!(sold["status"], "confirmed", "{sold} after {:?}", started.elapsed());
    platform.audit().await;
}

/// A client with the credentials that stand in the address.
pub async fn async_nats_client(url: &str) -> async_nats::Client {
    let url: url::Url = url.parse().unwrap();
    let options = async_nats::ConnectOptions::new()
        .user_and_password(url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    options.connect(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())).await.unwrap()
}
