//! The batch worker: poison stands alone, and the others proceed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull;
use eventicket_contracts::envelope::{Answer, Envelope, Half, Item, Key, MAX_ITEMS, Reply};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, SagaId};
use eventicket_nats::{
    Commands, Delivered, Fault, Handled, Nats, Outgoing, StreamLimits, WorkerLimits, command_headers, ensure_streams,
    run_worker,
};
use futures::StreamExt;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

const GUARD: Duration = Duration::from_secs(60);

/// Answers with what the body says: it panics, fails, is refused, or is done.
#[derive(Default)]
struct Clerk {
    away: AtomicU32,
}

impl Commands for Clerk {
    const SERVICE: Service = Service::NOTIFICATIONS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Fault::Transient("away".into()));
        }
        let handle = |d: &Delivered| match d.item.body.text() {
            "\"panic\"" => panic!("the item's fault"),
            "\"broken\"" => Err(Fault::Broken("a constraint".into())),
            "\"dead\"" => Ok(Handled::Dead("cannot be read".into())),
            body => Ok(Handled::Answer(Answer::done(body))),
        };
        batch.iter().map(handle).collect()
    }
}

fn item(body: &str) -> Item {
    let key = Key { saga: SagaId::fresh(), step: "NOTIFY".into(), round: 1 };
    let body = RawValue::from_string(format!("\"{body}\"")).unwrap();
    Item { key, half: Half::Do, attempt: 1, deadline: None, trace: None, body: body.into() }
}

async fn publish(nats: &Nats, subject: &str, payload: Vec<u8>) {
    let headers = command_headers(&subjects::reply(0), None);
    let id = uuid::Uuid::new_v4().to_string();
    let message = Outgoing { subject: subject.to_owned(), id, headers, payload: payload.into() };
    nats.publish_all(vec![message]).await.pop().unwrap().unwrap();
}

async fn take(nats: &Nats, stream: &str, number: usize) -> Vec<async_nats::jetstream::Message> {
    let stream = nats.jetstream().get_stream(stream).await.unwrap();
    let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(number);
    let all = tokio::time::timeout(GUARD, messages.collect::<Vec<_>>()).await.expect("the messages come");
    all.into_iter().map(Result::unwrap).collect()
}

fn work(nats: &Nats, clerk: Clerk) -> CancellationToken {
    work_in_batches(nats, clerk, 64)
}

fn work_in_batches(nats: &Nats, clerk: Clerk, batch: usize) -> CancellationToken {
    let shutdown = CancellationToken::new();
    let limits = WorkerLimits { limits: StreamLimits::small(), batch };
    let worker = run_worker(nats.clone(), Arc::new(clerk), limits, Clock::system(), shutdown.clone());
    tokio::spawn(async move { worker.await.unwrap() });
    shutdown
}

/// The answers to these items, by key.
async fn answers(nats: &Nats, items: usize) -> BTreeMap<Key, Answer> {
    replies(nats, items).await.into_iter().map(|r| (r.key, r.answer)).collect()
}

/// The first replies to so many items.
async fn replies(nats: &Nats, items: usize) -> Vec<Reply> {
    let mut replies = BTreeMap::new();
    let stream = nats.jetstream().get_stream(subjects::REPLIES_STREAM).await.unwrap();
    let config = pull::Config { durable_name: Some("reader".into()), ..pull::Config::default() };
    let mut messages = stream.get_or_create_consumer("reader", config).await.unwrap().messages().await.unwrap();
    while replies.len() < items {
        let message = tokio::time::timeout(GUARD, messages.next()).await.expect("a reply").unwrap().unwrap();
        message.double_ack().await.unwrap();
        let envelope: Envelope<Reply> = serde_json::from_slice(&message.payload).unwrap();
        replies.extend(envelope.items.into_iter().map(|r| (r.key.clone(), r)));
    }
    replies.into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_isolated_by_splitting_and_the_others_proceed() {
    let nats = super::nats().await;
    let bodies = ["a", "b", "panic", "c", "broken", "d", "dead", "e"];
    let items: Vec<Item> = bodies.iter().map(|b| item(b)).collect();
    let payload = serde_json::to_vec(&Envelope::new(items.iter().collect::<Vec<_>>())).unwrap();
    publish(&nats, &subjects::command(Service::NOTIFICATIONS, "send", 0), payload).await;
    let shutdown = work(&nats, Clerk::default());

    let answers = answers(&nats, bodies.len()).await;
    let dead = |key: &Key| matches!(&answers[key], Answer::Dead(_));
    let poison: Vec<&str> = items.iter().zip(bodies).filter(|(i, _)| dead(&i.key)).map(|(_, b)| b).collect();
    assert_eq!(poison, ["panic", "broken", "dead"]);
    let letters = take(&nats, subjects::DEADLETTERS_STREAM, 3).await;
    let mut reasons: Vec<String> = Vec::new();
    for letter in &letters {
        let envelope: Envelope<Item> = serde_json::from_slice(&letter.payload).unwrap();
        assert_eq!(envelope.items.len(), 1, "the poison stands alone");
        reasons.push(letter.headers.as_ref().unwrap().get(subjects::HEADER_REASON).unwrap().to_string());
    }
    reasons.sort();
    assert_eq!(reasons, ["a constraint", "cannot be read", "panicked: the item's fault"]);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_08_the_same_replies_again_are_another_message() {
    let nats = super::nats().await;
    let payload = serde_json::to_vec(&Envelope::new(vec![&item("again")])).unwrap();
    for _ in 0..3 {
        publish(&nats, &subjects::command(Service::NOTIFICATIONS, "send", 0), payload.clone()).await;
    }
    let shutdown = work_in_batches(&nats, Clerk::default(), 1);

    let replies = take(&nats, subjects::REPLIES_STREAM, 3).await;
    assert!(replies.iter().all(|reply| reply.payload == replies[0].payload), "they say the same");
    let id = |m: &async_nats::jetstream::Message| m.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
    assert_eq!(replies.iter().map(id).collect::<BTreeSet<_>>().len(), 3);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_fence_is_a_command_like_others_and_a_dead_one_is_told() {
    let nats = super::nats().await;
    let fence = |body| Item { half: Half::Fence, ..item(body) };
    let (good, dead) = (fence("good"), fence("panic"));
    let payload = serde_json::to_vec(&Envelope::new(vec![&good, &dead])).unwrap();
    publish(&nats, &subjects::command(Service::NOTIFICATIONS, subjects::FENCE, 0), payload).await;
    let shutdown = work(&nats, Clerk::default());

    let replies = replies(&nats, 2).await;
    let of = |item: &Item| replies.iter().find(|r| r.key == item.key).unwrap();
    assert_eq!((of(&good).half, &of(&good).answer), (Half::Fence, &Answer::done("\"good\"")));
    assert_eq!((of(&dead).half, &of(&dead).answer), (Half::Fence, &Answer::Dead("panicked: the item's fault".into())));
    let letter = take(&nats, subjects::DEADLETTERS_STREAM, 1).await.remove(0);
    assert_eq!(letter.subject.as_str(), subjects::dead_letter("notifications", subjects::FENCE));
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_is_not_known_is_dead_lettered_whole_and_stops_nothing() {
    let nats = super::nats().await;
    let one = |i: &Item| serde_json::to_vec(&Envelope::new(vec![i])).unwrap();
    let (unknown, shard, good) = (item("x"), item("x"), item("good"));
    let future = serde_json::json!({"v": 9, "items": []}).to_string().into_bytes();
    publish(&nats, "cmd.notifications.send.0", b"not json".to_vec()).await;
    publish(&nats, "cmd.notifications.send.0", future).await;
    publish(&nats, "cmd.notifications.shout.0", one(&unknown)).await;
    publish(&nats, "cmd.notifications.send.7", one(&shard)).await;
    publish(&nats, "cmd.notifications.send.0", one(&good)).await;
    let shutdown = work(&nats, Clerk::default());

    let answers = answers(&nats, 3).await;
    assert_eq!(answers[&good.key], Answer::done("\"good\""));
    assert!(matches!(answers[&unknown.key], Answer::Dead(_)) && matches!(answers[&shard.key], Answer::Dead(_)));
    let letters = take(&nats, subjects::DEADLETTERS_STREAM, 4).await;
    let mut subjects: Vec<&str> = letters.iter().map(|l| l.subject.as_str()).collect();
    subjects.sort_unstable();
    let expected =
        ["dead.notifications.send", "dead.notifications.send", "dead.notifications.send", "dead.notifications.shout"];
    assert_eq!(subjects, expected);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_is_too_large_or_whose_answers_go_nowhere_is_dead_lettered_and_told() {
    let nats = super::nats().await;
    let (many, astray, good) = (item("many"), item("astray"), item("good"));
    let envelope = |items: Vec<&Item>| serde_json::to_vec(&Envelope::new(items)).unwrap();
    let subject = subjects::command(Service::NOTIFICATIONS, "send", 0);
    publish(&nats, &subject, envelope(vec![&many; MAX_ITEMS + 1])).await;
    let (headers, payload) = (command_headers("nobody.listens", None), envelope(vec![&astray]).into());
    let nowhere = Outgoing { subject: subject.clone(), id: "astray".into(), headers, payload };
    nats.publish_all(vec![nowhere]).await.pop().unwrap().unwrap();
    publish(&nats, &subject, envelope(vec![&good])).await;
    let shutdown = work(&nats, Clerk::default());

    let answers = answers(&nats, 3).await;
    assert_eq!(answers[&good.key], Answer::done("\"good\""));
    let letters = nats.dead_letters(None, None, None, 9).await.unwrap();
    let reasons: Vec<Answer> = letters.iter().map(|letter| Answer::Dead(letter.reason.clone())).collect();
    assert_eq!(reasons, [answers[&many.key].clone(), answers[&astray.key].clone()]);
    assert_eq!(letters[1].reason, "no answer goes to nobody.listens");
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_too_often_is_dead_lettered_unseen_and_done_when_it_is_replayed() {
    let nats = super::nats().await;
    let (deadly, good) = (item("deadly"), item("good"));
    let one = |i: &Item| serde_json::to_vec(&Envelope::new(vec![i])).unwrap();
    let (service, subject) = (Service::NOTIFICATIONS, subjects::command(Service::NOTIFICATIONS, "send", 0));
    publish(&nats, &subject, one(&deadly)).await;
    // The worker's own consumer, which counts deliveries: as often as a worker may have died of it.
    let stream = nats.jetstream().get_stream(service.stream()).await.unwrap();
    let durable_name = Some(service.name().to_owned());
    let config = pull::Config { durable_name, filter_subject: service.commands(), ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    for _ in 0..20 {
        let message = consumer.fetch().max_messages(1).expires(GUARD).messages().await.unwrap().next().await;
        message.expect("it is delivered").unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
    }
    publish(&nats, &subject, one(&good)).await;
    let _shutdown = work(&nats, Clerk::default());

    let answers = self::answers(&nats, 2).await;
    let reason = "delivered 21 times without an end";
    assert_eq!((&answers[&good.key], &answers[&deadly.key]), (&Answer::done("\"good\""), &Answer::Dead(reason.into())));
    let letter = nats.dead_letters(None, None, None, 9).await.unwrap().remove(0);
    assert_eq!((letter.reason.as_str(), letter.deliveries), (reason, 21));
    nats.publish_again(&letter).await.unwrap();
    assert_eq!(self::answers(&nats, 1).await[&deadly.key], Answer::done("\"deadly\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_a_batch_waits_for_its_dependency_and_makes_no_dead_letter() {
    let nats = super::nats().await;
    let (first, second) = (item("first"), item("second"));
    let one = |i: &Item| serde_json::to_vec(&Envelope::new(vec![i])).unwrap();
    let subject = subjects::command(Service::NOTIFICATIONS, "send", 0);
    publish(&nats, &subject, one(&first)).await;
    let shutdown = work(&nats, Clerk { away: AtomicU32::new(4) });
    assert_eq!(answers(&nats, 1).await[&first.key], Answer::done("\"first\""));
    shutdown.cancel();

    // One that never comes back ends with its worker, and the command waits for the next.
    publish(&nats, &subject, one(&second)).await;
    let never = work(&nats, Clerk { away: AtomicU32::new(u32::MAX) });
    never.cancel();
    let _shutdown = work(&nats, Clerk::default());
    assert_eq!(answers(&nats, 1).await[&second.key], Answer::done("\"second\""));
    let dead = nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
    assert_eq!(dead.cached_info().state.messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_reply_was_not_stored_comes_again_soon() {
    let nats = super::nats().await;
    nats.jetstream().delete_stream(subjects::REPLIES_STREAM).await.unwrap();
    let lost = item("lost");
    let subject = subjects::command(Service::NOTIFICATIONS, "send", 0);
    publish(&nats, &subject, serde_json::to_vec(&Envelope::new(vec![&lost])).unwrap()).await;
    let _shutdown = work(&nats, Clerk::default());
    let consumer = nats.jetstream().get_stream(Service::NOTIFICATIONS.stream()).await.unwrap();
    let seen_twice = async {
        loop {
            let info = consumer.consumer_info(Service::NOTIFICATIONS.name()).await;
            if info.is_ok_and(|info| info.num_redelivered > 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    // Without being given back it would come again after half a minute.
    tokio::time::timeout(Duration::from_secs(15), seen_twice).await.expect("it is given back");
    ensure_streams(&nats, &StreamLimits::small()).await.unwrap();
    assert_eq!(answers(&nats, 1).await[&lost.key], Answer::done("\"lost\""));
}
