//! Streams are made and kept up to date, and no sequence is ever used twice.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use eventicket_contracts::subjects::{self, Service};
use eventicket_nats::{
    ConsumerSpec, Nats, Outgoing, PublishError, Pull, StreamLimits, command_headers, ensure_streams,
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

async fn publish(nats: &Nats, subject: String, payload: &str) -> Result<u64, PublishError> {
    let headers = command_headers("reply.0", None);
    let message =
        Outgoing { subject, id: uuid::Uuid::new_v4().to_string(), headers, payload: payload.to_owned().into() };
    nats.publish_all(vec![message]).await.pop().unwrap()
}

fn subject() -> String {
    subjects::command(Service::BOOKINGS, "reserve", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_updated_and_the_first_sequence_stays() {
    let nats = super::nats().await;
    let stream = Service::BOOKINGS.stream();
    let before = nats.stream_mark(&stream).await.unwrap().unwrap();
    let larger = StreamLimits { commands: 16 << 20, ..StreamLimits::small() };
    ensure_streams(&nats, &larger).await.unwrap();
    let info = nats.jetstream().get_stream(&stream).await.unwrap().cached_info().clone();
    assert_eq!(info.config.max_bytes, 16 << 20);
    assert_eq!(nats.stream_mark(&stream).await.unwrap().unwrap().first, before.first);
    assert!(before.first.unwrap() > 1_700_000_000_000_000, "microseconds since 1970");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_takes_nothing_from_a_new_stream() {
    let nats = super::nats().await;
    let stream = Service::BOOKINGS.stream();
    let spec = ConsumerSpec {
        stream: stream.clone(),
        durable: "bookings".into(),
        filter: Service::BOOKINGS.commands(),
        ..ConsumerSpec::default()
    };
    let mut pull = Pull::open(nats.clone(), spec, StreamLimits::small(), CancellationToken::new()).await.unwrap();
    publish(&nats, subject(), "old").await.unwrap();
    let old = pull.next(1).await.unwrap().pop().unwrap();
    nats.jetstream().delete_stream(&stream).await.unwrap();
    ensure_streams(&nats, &StreamLimits::small()).await.unwrap();
    publish(&nats, subject(), "new").await.unwrap();

    let new = tokio::time::timeout(Duration::from_secs(30), pull.next(1)).await.unwrap().unwrap().pop().unwrap();
    assert_eq!(&new.payload[..], b"new", "the consumer was made again");
    old.ack().await.unwrap();
    nats.flush().await;
    let state = nats.jetstream().get_stream(&stream).await.unwrap().cached_info().state.clone();
    assert_eq!(state.messages, 1, "still there");
    new.double_ack().await.unwrap();
    let state = nats.jetstream().get_stream(&stream).await.unwrap().cached_info().state.clone();
    assert_eq!(state.messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_stream_takes_is_refused_not_unknown() {
    let nats = super::nats().await;
    let refused = publish(&nats, "cmd.nobody.act.0".into(), "x").await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    nats.jetstream().delete_stream(Service::BOOKINGS.stream()).await.unwrap();
    let refused = publish(&nats, subject(), "x").await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_work_queue_refuses_and_keeps_what_it_has() {
    let nats = super::nats().await;
    let large = "x".repeat(512 * 1024);
    let mut stored = 0;
    while publish(&nats, subject(), &large).await.is_ok() {
        stored += 1;
        assert!(stored < 100, "the stream has a bound");
    }
    let stream = nats.jetstream().get_stream(Service::BOOKINGS.stream()).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, stored);
    let consumer =
        stream.create_consumer(pull::Config { durable_name: Some("bookings".into()), ..pull::Config::default() });
    let mut messages = consumer.await.unwrap().messages().await.unwrap();
    let first = messages.next().await.unwrap().unwrap();
    assert_eq!(first.payload.len(), large.len());
    first.double_ack().await.unwrap();
    publish(&nats, subject(), &large).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_stream_that_was_made_again_or_went_back_shows_and_one_that_went_on_does_not() {
    let nats = super::nats().await;
    let name = Service::BOOKINGS.stream();
    let mark = async || nats.stream_mark(&name).await.unwrap().unwrap();
    let config = nats.jetstream().get_stream(&name).await.unwrap().cached_info().config.clone();
    let empty = mark().await;
    publish(&nats, subject(), "first").await.unwrap();
    let last = publish(&nats, subject(), "second").await.unwrap();
    let full = mark().await;
    assert!(full.last == last && !full.lost_since(&empty), "{full:?}");

    nats.jetstream().delete_stream(&name).await.unwrap();
    assert_eq!(nats.stream_mark(&name).await.unwrap(), None);
    nats.jetstream().create_stream(config).await.unwrap();
    publish(&nats, subject(), "first").await.unwrap();
    let older = mark().await;
    assert!(older.first == full.first && older.lost_since(&full), "an older store: {older:?}");

    nats.jetstream().delete_stream(&name).await.unwrap();
    ensure_streams(&nats, &StreamLimits::small()).await.unwrap();
    let anew = mark().await;
    assert!(anew.first > full.first && anew.lost_since(&full), "{anew:?}");
    assert!(publish(&nats, subject(), "first").await.unwrap() > last, "no sequence is used twice");
}
