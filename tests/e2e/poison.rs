//! Poison on every subject: it is dead-lettered with its reason, or refused; it stops nothing, and can be replayed and
//! discarded.

mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use eventicket_contracts::envelope::MAX_BYTES;
use eventicket_contracts::subjects::{self, Service};
use eventicket_nats::{Letter, Nats};
use futures::StreamExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use self::kinds::{LARGEST, Poison, envelopes, nested, poisons, questions};
use crate::expiry::async_nats_client;
use crate::platform::{Platform, text};

/// Whoever is asked answers by then.
const ANSWER: Duration = Duration::from_secs(10);
/// Nobody else tells what it is by then.
const QUIET: Duration = Duration::from_millis(500);
/// Queries that are not asked for anything in particular: they answer whatever they are asked.
const ANYTHING: [&str; 1] = ["qry.identity.jwks"];
/// What is logged above a warning when poison is found.
const TOLD: [&str; 3] = ["dead letter", "a reply was dead-lettered", "an input cannot be handled"];

/// A platform with a customer who books all the time.
struct Scene {
    platform: Platform,
    ada: String,
    event: (String, String),
    client: async_nats::Client,
    broker: jetstream::Context,
    nats: Nats,
}

impl Scene {
    async fn new() -> Self {
        let platform = Platform::start(&[]).await;
        let ada = platform.login("customer@demo.test").await;
        let event = platform.event(10_000, 2_000, None).await;
        let url = text(&platform.about()["nats_url"]);
        let client = async_nats_client(&url).await;
        let nats = Nats::connect(&url, "test").await.unwrap();
        Self { platform, ada, event, broker: jetstream::new(client.clone()), client, nats }
    }

    async fn sold(&self, key: &str) -> Value {
        let booking = self.platform.book(&self.ada, key, &self.event, Some("pm_card_visa")).await;
        assert_eq!(booking["status"], "confirmed", "{booking}");
        booking
    }

    /// Bookings one after the other until the end of what goes on; each is confirmed.
    async fn beside<T>(&self, name: &str, goes_on: impl Future<Output = T>) -> T {
        let over = AtomicBool::new(false);
        let selling = async {
            for n in 0.. {
                self.sold(&format!("{name}-{n}")).await;
                if over.load(Ordering::Relaxed) {
                    return n;
                }
            }
            unreachable!()
        };
        let until_then = async {
            let outcome = goes_on.await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let (sold, outcome) = tokio::join!(selling, until_then);
        assert!(sold > 0, "there were bookings meanwhile");
        outcome
    }

    async fn publish(&self, poison: &Poison) {
        let (subject, headers) = (poison.subject.clone(), poison.headers.clone());
        let sent = self.broker.publish_with_headers(subject, headers, poison.payload.clone().into()).await;
        sent.unwrap().await.unwrap_or_else(|error| panic!("{}: {error}", poison.subject));
    }

    /// The letters above this number, once there are so many.
    async fn letters(&self, after: Option<u64>, number: usize) -> Vec<Letter> {
        let read = async || self.nats.dead_letters(None, None, after, number + 1).await.unwrap();
        self.platform.until(&format!("there are {number} letters"), async || read().await.len() >= number).await;
        read().await
    }

    /// Sees that there is a letter for each poison, and none beside them.
    async fn buried(&self, poisons: &[Poison], after: Option<u64>) -> Vec<Letter> {
        let letters = self.letters(after, poisons.len()).await;
        let mut left: Vec<&Letter> = letters.iter().collect();
        for poison in poisons {
            let Some(at) = left.iter().position(|letter| poison.is_in(letter)) else {
                let same =
                    left.iter().filter(|l| l.subject == poison.subject).map(|l| (&l.service, &l.action, &l.reason));
                panic!("no letter on {} tells {:?}: {:?}", poison.subject, poison.reason, same.collect::<Vec<_>>());
            };
            left.swap_remove(at);
        }
        assert!(left.is_empty(), "{:?}", left.iter().map(|l| (&l.subject, &l.reason)).collect::<Vec<_>>());
        letters
    }

    /// Waits until all commands and replies are worked off.
    async fn drained(&self) {
        let names: Vec<String> = Service::ALL.into_iter().map(Service::stream).collect();
        for name in names.iter().map(String::as_str).chain([subjects::REPLIES_STREAM]) {
            let empty = async || {
                let stream = self.broker.get_stream(name).await.unwrap();
                stream.cached_info().state.messages == 0
            };
            self.platform.until(&format!("{name} is worked off"), empty).await;
        }
    }

    async fn request(&self, subject: &str, payload: &[u8]) -> async_nats::Message {
        let request = async_nats::Request::new().payload(payload.to_vec().into()).timeout(Some(ANSWER));
        let answer = self.client.send_request(subject.to_owned(), request).await;
        answer.unwrap_or_else(|error| panic!("{subject} with {}: {error}", String::from_utf8_lossy(payload)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_on_every_subject_is_buried_or_refused_and_stops_nothing() {
    let scene = Scene::new().await;
    let first = scene.sold("first").await;
    let (id, operator) = (text(&first["id"]), scene.platform.operator().await);
    let completed = async || scene.platform.saga(&id).await["state"] == "completed";
    scene.platform.until("its saga has ended", completed).await;
    let looks = async || {
        let of_saga = scene.platform.get(&operator, &format!("/v1/sagas/{id}")).await;
        (of_saga, scene.platform.get(&scene.ada, &format!("/v1/bookings/{id}")).await)
    };
    let before = looks().await;
    let key = format!("{id}:RESERVE:1");
    messages_are_buried_and_come_again_when_they_are_replayed(&scene, &key).await;
    scene.beside("asked", requests_are_refused(&scene, &id)).await;
    scene.beside("told", what_is_only_told_is_passed_over(&scene)).await;
    letters_of_nothing_are_listed_and_not_sent(&scene).await;
    whims_are_worked_off(&scene, &key).await;
    nobody_takes_what_is_for_nobody(&scene).await;

    scene.sold("last").await;
    assert_eq!(looks().await, before, "what had ended is as it was");
    complaints(&scene.platform);
    letters_are_discarded(&scene).await;
    scene.platform.audit().await;
}

/// Whatever was sent is about no saga, or about one that has ended: nobody needs its letters.
async fn letters_are_discarded(scene: &Scene) {
    let read = async || scene.nats.dead_letters(None, None, None, 10_000).await.unwrap();
    let letters = read().await;
    let operator = scene.platform.operator().await;
    let path = format!("/v1/dead-letters/{}/discard", letters[0].id);
    let (status, discarded) = scene.platform.post(&operator, &path, json!({"reason": "garbage"})).await;
    assert_eq!((status, &discarded["reason"]), (200, &json!(letters[0].reason)), "{discarded}");
    let rest: Vec<String> = letters[1..].iter().map(|letter| letter.id.to_string()).collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (exit, told) = scene.platform.json(&[&["dead", "discard", "--reason", "garbage"], &rest[..]].concat()).await;
    assert!(told.as_array().unwrap().iter().all(|letter| letter["outcome"] == "discarded"), "{told}");
    assert_eq!((exit, told.as_array().unwrap().len(), read().await.len()), (0, rest.len(), 0));
}

async fn messages_are_buried_and_come_again_when_they_are_replayed(scene: &Scene, key: &str) {
    let poisons = poisons(key);
    let publish = async {
        for poison in &poisons {
            scene.publish(poison).await;
        }
        scene.buried(&poisons, None).await
    };
    let letters = scene.beside("beside", publish).await;
    let ids: Vec<String> = letters.iter().map(|letter| letter.id.to_string()).collect();
    let (_, listed) = scene.platform.json(&["dead", "ls", "--limit", "1000"]).await;
    let listed: Vec<String> = listed.as_array().unwrap().iter().map(|letter| letter["id"].to_string()).collect();
    assert_eq!(listed, ids, "each is listed");

    // One of each reason by REST, all others by command. Their causes last, so they come again.
    let operator = scene.platform.operator().await;
    let one_each: BTreeMap<&str, u64> = letters.iter().map(|letter| (letter.reason.as_str(), letter.id)).collect();
    let by_rest: BTreeSet<u64> = one_each.into_values().take(40).collect();
    let replay = async {
        for id in &by_rest {
            let path = format!("/v1/dead-letters/{id}");
            let shown = scene.platform.get(&operator, &path).await;
            let letter = letters.iter().find(|letter| letter.id == *id).unwrap();
            assert_eq!((&shown["reason"], &shown["subject"]), (&json!(letter.reason), &json!(letter.subject)));
            let (status, sent) =
                scene.platform.post(&operator, &format!("{path}/replay"), json!({"reason": "again"})).await;
            assert_eq!((status, &sent["subject"]), (200, &json!(letter.subject)), "{sent}");
        }
        let rest: Vec<&str> =
            letters.iter().zip(&ids).filter(|(l, _)| !by_rest.contains(&l.id)).map(|(_, id)| id.as_str()).collect();
        let (exit, told) = scene.platform.json(&[&["dead", "replay", "--reason", "again"], &rest[..]].concat()).await;
        assert!(told.as_array().unwrap().iter().all(|letter| letter["outcome"] == "sent"), "{told}");
        assert_eq!((exit, told.as_array().unwrap().len()), (0, rest.len()));
        scene.buried(&poisons, letters.last().map(|last| last.id)).await
    };
    let again = scene.beside("replayed", replay).await;
    let all = scene.nats.dead_letters(None, None, None, 2 * poisons.len()).await.unwrap();
    assert_eq!(all.len(), again.len(), "those that were sent again are off the list");
}

async fn requests_are_refused(scene: &Scene, sold: &str) {
    let queries = queries(scene).await;
    for payload in questions() {
        for subject in &queries {
            let answer = scene.request(subject, &payload).await;
            let refused: Value = serde_json::from_slice(&answer.payload).unwrap();
            let header = answer.headers.as_ref().and_then(|headers| headers.get("Eventicket-Error"));
            let word = header.map(ToString::to_string);
            let expected = if ANYTHING.contains(&subject.as_str()) && serde_json::from_slice::<Value>(&payload).is_ok()
            {
                (None, Value::Null)
            } else {
                (Some("malformed"), json!("malformed"))
            };
            assert_eq!((word.as_deref(), refused["code"].clone()), expected, "{subject}: {refused}");
        }
        for (subject, code) in [(subjects::START, "/items/0/answer/refused/code"), (subjects::ACT, "/conflict/code")] {
            let answer: Value = serde_json::from_slice(&scene.request(subject, &payload).await.payload).unwrap();
            assert_eq!(answer.pointer(code), Some(&json!("malformed")), "{subject}: {answer}");
        }
    }
    let ask = async |subject: &str, question: Value| {
        let answer = scene.request(subject, question.to_string().as_bytes()).await;
        serde_json::from_slice::<Value>(&answer.payload).unwrap()
    };
    let output: Value = serde_json::from_str(&("[".repeat(100) + &"]".repeat(100))).unwrap();
    let skip =
        json!({"saga": sold, "owner": null, "actor": "a", "reason": "b", "action": {"skip": {"output": output}}});
    assert_eq!(ask(subjects::ACT, skip).await["conflict"]["code"], "malformed");
    // What no column takes.
    let input = json!({"event": scene.event.0, "customer": Uuid::now_v7(), "items": []});
    let start = json!({"id": Uuid::now_v7(), "definition": "booking", "owner": null, "idempotency": null, "event": null,
        "input": input, "give_up_at": i64::MAX, "trace": "\u{0}"});
    let mut unknown = start.clone();
    unknown["definition"] = "marriage".into();
    for start in [start, unknown] {
        let answers = ask(subjects::START, json!({"v": 1, "items": [start]})).await;
        let code = answers.pointer("/items/0/answer/refused/code");
        assert!(code.is_some_and(Value::is_string), "{answers}");
    }
}

/// Subjects of all queries, as the services themselves tell them.
async fn queries(scene: &Scene) -> BTreeSet<String> {
    let inbox = scene.client.new_inbox();
    let mut told = scene.client.subscribe(inbox.clone()).await.unwrap();
    scene.client.publish_with_reply("$SRV.INFO", inbox, "".into()).await.unwrap();
    let (mut queries, mut services) = (BTreeSet::new(), BTreeSet::new());
    while let Ok(Some(message)) = tokio::time::timeout(QUIET, told.next()).await {
        let about: Value = serde_json::from_slice(&message.payload).unwrap();
        services.insert(text(&about["name"]));
        queries.extend(about["endpoints"].as_array().unwrap().iter().map(|endpoint| text(&endpoint["subject"])));
    }
    let known = ["bookings", "events", "identity", "notifications", "orchestrator", "payments"];
    assert!(known.iter().all(|name| services.contains(*name)), "{services:?}");
    queries
}

/// Events and hints of status: nobody is asked, and nobody minds.
async fn what_is_only_told_is_passed_over(scene: &Scene) {
    let stream = scene.broker.get_stream(subjects::EVENTS_STREAM).await.unwrap();
    let mut names = stream.info_with_subjects(subjects::EVENTS).await.unwrap();
    let mut known = BTreeSet::new();
    while let Some(Ok((name, _))) = names.next().await {
        known.insert(name);
    }
    let confirmed = subjects::event("booking", "confirmed");
    assert!(known.len() > 5 && known.contains(&confirmed), "{known:?}");
    let event = json!({"id": Uuid::now_v7(), "aggregate": Uuid::now_v7(), "version": 1, "at": 1, "data": {}});
    for (payload, _) in envelopes("events", &event) {
        for subject in &known {
            scene.broker.publish(subject.clone(), payload.clone().into()).await.unwrap().await.unwrap();
        }
        for subject in [subjects::STATUS, subjects::IN_FLIGHT] {
            scene.client.publish(subject, payload.clone().into()).await.unwrap();
        }
    }
    // What is told of bookings still comes, behind all that.
    let last = scene.broker.get_stream(subjects::EVENTS_STREAM).await.unwrap().cached_info().state.last_sequence;
    let sold = text(&scene.sold("heard").await["id"]);
    let heard = async || {
        let mut sequence = last + 1;
        while let Ok(message) = stream.get_first_raw_message_by_subject(&confirmed, sequence).await {
            if String::from_utf8_lossy(&message.payload).contains(&sold) {
                return true;
            }
            sequence = message.sequence + 1;
        }
        false
    };
    scene.platform.until("the event is told", heard).await;
}

/// Letters that came on no subject, or on one that nobody has: they can be looked at, and stay.
async fn letters_of_nothing_are_listed_and_not_sent(scene: &Scene) {
    for origin in ["", "no subject", "cmd.nobody.charge.0"] {
        let mut headers = HeaderMap::new();
        headers.insert(subjects::HEADER_SUBJECT, origin);
        let letter =
            scene.broker.publish_with_headers("dead.nobody.charge", headers, b"\xff\xfe".to_vec().into()).await;
        let number = letter.unwrap().await.unwrap().sequence;
        let id = number.to_string();
        let (exit, shown) = scene.platform.json(&["dead", "show", &id]).await;
        assert_eq!((exit, &shown["subject"]), (0, &json!(origin)), "{shown}");
        let (exit, told) = scene.platform.json(&["dead", "replay", &id, "--reason", "perhaps"]).await;
        assert_eq!((exit, &told[0]["outcome"]), (1, &json!("refused")), "{told}");
        let (_, listed) = scene.platform.json(&["dead", "ls", "--service", "nobody"]).await;
        assert!(listed.as_array().unwrap().iter().any(|letter| letter["id"] == number), "{listed}");
    }
}

/// Items that can be read, with bodies, numbers and texts that nobody expects: each gets its answer.
async fn whims_are_worked_off(scene: &Scene, key: &str) {
    let stranger = format!("{}:PAY:{}", Uuid::now_v7(), u32::MAX);
    let bodies =
        ["null".to_owned(), nested(), format!("\"{}\"", "x".repeat(2 * MAX_BYTES)), r#"{"body": -1e999}"#.into()];
    for half in ["do", "undo", "fence"] {
        for body in &bodies {
            for key in [key, &stranger] {
                let whim = json!({"key": key, "half": half, "attempt": u32::MAX, "deadline": i64::MAX,
                    "trace": "\u{0}", "body": 0});
                let payload = json!({"v": 1, "items": [whim]}).to_string();
                let payload = payload.replace(r#""body":0"#, &format!(r#""body":{body}"#));
                for service in Service::ALL {
                    for action in service.actions() {
                        scene.publish(&Poison::of_command(service, action, payload.clone().into_bytes(), "")).await;
                    }
                }
            }
        }
        for answer in [json!({"done": null}), json!({"pending": 1}), json!({"dead": "x"}), json!({"retry": "\u{0}"})] {
            for key in [key, &stranger] {
                let whim = json!({"key": key, "half": half, "attempt": u32::MAX, "trace": "\u{0}", "answer": answer});
                let payload = json!({"v": 1, "items": [whim]}).to_string().into_bytes();
                scene.publish(&Poison::of_reply(payload, "")).await;
            }
        }
    }
    scene.beside("whims", scene.drained()).await;
    let letters = scene.nats.dead_letters(None, None, None, 10_000).await.unwrap();
    let panics: Vec<_> =
        letters.iter().filter(|l| l.reason.contains("panicked")).map(|l| (&l.subject, &l.reason)).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

async fn nobody_takes_what_is_for_nobody(scene: &Scene) {
    for subject in ["cmd.nobody.charge.0", "cmd.bookings", "reply", "evt", "dead"] {
        let refused = scene.broker.publish(subject, "{}".into()).await.unwrap().await;
        assert!(refused.is_err(), "{subject}: {refused:?}");
    }
    for subject in ["qry.nobody.event", "qry.bookings.nothing", "orc.nothing"] {
        let refused = scene.client.request(subject, "{}".into()).await.unwrap_err();
        assert_eq!(refused.kind(), async_nats::RequestErrorKind::NoResponders, "{subject}");
    }
    let too_large = vec![b'x'; LARGEST + 8 * 1024];
    for subject in [subjects::command(Service::PAYMENTS, "charge", 0), subjects::reply(0)] {
        let refused = scene.broker.publish(subject.clone(), too_large.clone().into()).await.unwrap().await;
        assert!(refused.is_err(), "{subject}: {refused:?}");
    }
}

/// Nothing panicked, and whatever is logged above a warning speaks of poison.
fn complaints(platform: &Platform) {
    let log = platform.log("eventicket.log");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors: Vec<Value> = lines.filter(|line| line["level"] == "ERROR").collect();
    assert!(!errors.is_empty(), "the log is read as it is written");
    let others: Vec<&Value> = errors.iter().filter(|l| !TOLD.iter().any(|told| l["message"] == *told)).collect();
    assert!(others.is_empty(), "{others:#?}");
    let printed = platform.complaints();
    assert!(!printed.contains("panicked at"), "{printed}");
}
