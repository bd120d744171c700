//! Dead letters are read, sent again as they came, and taken off the list.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use eventicket_contracts::envelope::VERSION;
use eventicket_contracts::subjects::{self, Service};
use eventicket_nats::{
    ConsumerSpec, Message, Nats, Outgoing, PublishError, Pull, StreamLimits, command_headers, dead_letter,
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A command as its service gets it, with a header of somebody's own that would bind its publication.
async fn delivered(nats: &Nats, payload: &'static str) -> Message {
    let service = Service::NOTIFICATIONS;
    let mut headers = command_headers("reply.7", Some(TRACE));
    headers.insert("Nats-Expected-Stream", service.stream().as_str());
    let message = Outgoing {
        subject: subjects::command(service, "send", 0),
        id: "first".into(),
        headers,
        payload: payload.into(),
    };
    nats.publish_all(vec![message]).await.pop().unwrap().unwrap();
    let spec = ConsumerSpec {
        stream: service.stream(),
        durable: service.name().into(),
        filter: service.commands(),
        ..ConsumerSpec::default()
    };
    let mut pull = Pull::open(nats.clone(), spec, StreamLimits::small(), CancellationToken::new()).await.unwrap();
    let message = pull.next(1).await.unwrap().pop().unwrap();
    message.double_ack().await.unwrap();
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_sent_again_as_it_came_under_a_message_id_of_its_own() {
    let nats = super::nats().await;
    let message = delivered(&nats, "what it said").await;
    dead_letter(&nats, "notifications", "send", &message, "nobody could read it").await.unwrap();

    let letter = nats.dead_letters(Some("notifications"), None, None, 10).await.unwrap().pop().unwrap();
    assert_eq!((letter.service.as_str(), letter.action.as_str()), ("notifications", "send"));
    assert_eq!((letter.reason.as_str(), letter.deliveries), ("nobody could read it", 1));
    assert!(letter.id > 1_700_000_000_000_000 && letter.first_delivery <= letter.last_delivery);
    nats.publish_again(&letter).await.unwrap();
    nats.delete_letter(letter.id).await.unwrap();
    nats.delete_letter(letter.id).await.unwrap();
    assert!(nats.letter(letter.id).await.unwrap().is_none());

    let stream = nats.jetstream().get_stream(Service::NOTIFICATIONS.stream()).await.unwrap();
    let consumer = stream.create_consumer(pull::Config {
        durable_name: Some("notifications".into()),
        filter_subject: Service::NOTIFICATIONS.commands(),
        ..pull::Config::default()
    });
    let mut again = consumer.await.unwrap().messages().await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(30), again.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((&again.payload[..], &again.subject), (&b"what it said"[..], &message.subject));
    let headers = again.headers.as_ref().unwrap();
    let of = |name: &str| headers.get(name).map(ToString::to_string);
    assert_eq!(of(subjects::HEADER_REPLY).as_deref(), Some("reply.7"));
    assert_eq!(of(subjects::HEADER_SCHEMA), Some(VERSION.to_string()));
    assert_eq!(of(subjects::HEADER_TRACE).as_deref(), Some(TRACE));
    assert!(of("Nats-Msg-Id").is_some_and(|id| id != "first"), "it is no repetition to the stream");
    assert_eq!((of(subjects::HEADER_REASON), of(subjects::HEADER_SUBJECT)), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_stream_takes_any_more_stays_a_dead_letter() {
    let nats = super::nats().await;
    let message = delivered(&nats, "x").await;
    dead_letter(&nats, "notifications", "send", &message, "why").await.unwrap();
    let letter = nats.dead_letters(None, Some("send"), None, 1).await.unwrap().pop().unwrap();
    nats.jetstream().delete_stream(Service::NOTIFICATIONS.stream()).await.unwrap();
    let refused = nats.publish_again(&letter).await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    assert!(nats.letter(letter.id).await.unwrap().is_some());
    assert!(nats.dead_letters(None, None, Some(letter.id), 1).await.unwrap().is_empty());
}
