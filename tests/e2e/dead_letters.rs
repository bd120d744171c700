//! Dead letters: each reason is listed, shown and replayed, and the others proceed; what is marked for one can be ended.

use async_nats::HeaderMap;
use async_nats::jetstream::{Context, new};
use eventicket_contracts::subjects;
use eventicket_mock_gateway::ledger::Status;
use eventicket_planted::{Fault, VARIABLE};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::expiry::async_nats_client;
use crate::payments::until;
use crate::platform::{Platform, text};

/// A platform with a customer and an event.
struct Scene {
    platform: Platform,
    ada: String,
    event: (String, String),
    broker: Context,
}

impl Scene {
    async fn new(fault: Option<Fault>) -> Self {
        let planted = fault.map(|fault| vec![(VARIABLE, fault.name().to_owned()), ("RUST_BACKTRACE", "0".to_owned())]);
        let platform = Platform::start_with(planted.unwrap_or_default(), &[]).await;
        let ada = platform.login("customer@demo.test").await;
        let event = platform.event(100, 2_000, Some(120)).await;
        let broker = broker(&platform).await;
        Self { platform, ada, event, broker }
    }

    /// Starts the platform again without its fault.
    async fn mended(&mut self) {
        self.platform.stop().await;
        self.platform.environment.clear();
        self.platform.start_again().await;
        self.broker = broker(&self.platform).await;
    }

    /// A booking that waits for a payment method.
    async fn unpaid(&self, key: &str) -> Value {
        self.platform.book(&self.ada, key, &self.event, None).await
    }

    /// A booking that is confirmed, as all are that nothing is wrong with.
    async fn sold(&self, key: &str) -> Value {
        let booking = self.platform.book(&self.ada, key, &self.event, Some("pm_card_visa")).await;
        assert_eq!(booking["status"], "confirmed", "{booking}");
        booking
    }

    async fn seen(&self, booking: &Value, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&self.platform, &self.ada, booking, what, holds).await
    }

    /// Waits until its saga has ended so.
    async fn ended(&self, booking: &Value, state: &str) {
        let id = text(&booking["id"]);
        self.platform
            .until(&format!("{id} is {state}"), async || self.platform.saga(&id).await["state"] == state)
            .await;
    }

    async fn cancel(&self, booking: &Value) {
        let path = format!("/v1/bookings/{}/cancel", text(&booking["id"]));
        assert_eq!(self.platform.post(&self.ada, &path, json!({})).await.0, 200);
    }

    async fn publish(&self, subject: &str, payload: Vec<u8>) {
        self.broker.publish(subject.to_owned(), payload.into()).await.unwrap().await.unwrap();
    }

    /// All letters, the oldest first.
    async fn letters(&self) -> Vec<Value> {
        let page = self.platform.get(&self.platform.operator().await, "/v1/dead-letters?limit=100").await;
        page["items"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
    }

    /// The latest letter of this reason, once there is one with a number above `after`.
    async fn letter(&self, reason: &str, after: u64) -> Value {
        let found = async || {
            let mut letters = self.letters().await;
            letters.retain(|letter| text(&letter["reason"]).contains(reason) && number(letter) > after);
            letters.pop()
        };
        self.platform.until(&format!("a letter: {reason}"), async || found().await.is_some()).await;
        found().await.unwrap()
    }

    /// The letter of an action about a booking, once it is there.
    async fn letter_of(&self, booking: &Value, action: &str) -> Value {
        let about = |letter: &Value| letter["action"] == action && letter["sagas"] == json!([booking["id"]]);
        let found = async || self.letters().await.into_iter().find(about);
        self.platform.until(&format!("a letter of {action}"), async || found().await.is_some()).await;
        found().await.unwrap()
    }

    /// By REST.
    async fn replay(&self, letter: &Value, reason: &str) {
        let path = format!("/v1/dead-letters/{}/replay", number(letter));
        let operator = self.platform.operator().await;
        let (status, told) = self.platform.post(&operator, &path, json!({"reason": reason})).await;
        assert_eq!((status, &told["subject"]), (200, &letter["subject"]), "{told}");
    }

    /// By the command line, in this order.
    async fn replay_by_command(&self, letters: &[&Value], reason: &str) {
        let numbers: Vec<String> = letters.iter().map(|letter| number(letter).to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let (exit, told) = self.platform.json(&[&["dead", "replay", "--reason", reason], &numbers[..]].concat()).await;
        let sent = |letter: &&Value| json!({"id": letter["id"], "outcome": "sent"});
        assert_eq!((exit, told), (0, letters.iter().map(sent).collect()));
    }

    /// An operator's action by REST.
    async fn act(&self, booking: &Value, action: &str, fields: Value) -> (u16, Value) {
        let path = format!("/v1/sagas/{}/{action}", text(&booking["id"]));
        self.platform.post(&self.platform.operator().await, &path, fields).await
    }
}

/// JetStream of the platform's broker.
pub async fn broker(platform: &Platform) -> Context {
    new(async_nats_client(&text(&platform.about()["nats_url"])).await)
}

fn number(letter: &Value) -> u64 {
    letter["id"].as_u64().unwrap()
}

fn key(booking: &Value, step: &str) -> String {
    format!("{}:{step}:1", text(&booking["id"]))
}

/// A command alone in its envelope.
fn command(key: &str, half: &str, body: Value) -> Vec<u8> {
    json!({"v": 1, "items": [{"key": key, "half": half, "attempt": 1, "body": body}]}).to_string().into()
}

/// A reply alone in its envelope.
fn reply(key: &str, answer: Value) -> Vec<u8> {
    json!({"v": 1, "items": [{"key": key, "half": "do", "attempt": 1, "answer": answer}]}).to_string().into()
}

/// Whether a letter shows what was sent, whose fields may stand in another order.
fn shows(shown: &Value, payload: &[u8]) -> bool {
    let (shown, sent) = (text(shown), String::from_utf8_lossy(payload).into_owned());
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    shown == sent || (json(&shown).is_some() && json(&shown) == json(&sent))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_listed_shown_and_replayed_and_the_others_proceed() {
    let scene = Scene::new(None).await;
    let live = scene.unpaid("live").await;
    commands_that_cannot_be_handled(&scene, &live).await;
    let contradicted = replies_that_nobody_awaits(&scene).await;
    scene.cancel(&live).await;
    scene.ended(&live, "compensated").await;
    scene.ended(&json!({"id": contradicted}), "completed").await;

    // Those of sagas that have ended are told. Those that are about no saga of ours are violations until they are taken off.
    let ended = [text(&live["id"]), contradicted];
    let told: Vec<String> = ended.iter().map(|saga| format!("warning dead_letter {saga}")).collect();
    let findings = scene.platform.findings().await;
    let is_told = |finding: &&String| told.contains(finding);
    assert!(told.iter().all(|known| findings.contains(known)), "{findings:?}");
    let strange =
        |other: &String| other.starts_with("violation dead_letter") && !ended.iter().any(|id| other.contains(id));
    assert!(findings.iter().filter(|finding| !is_told(finding)).all(strange), "{findings:?}");
    let stream = scene.broker.get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
    for letter in scene.letters().await {
        if !ended.iter().any(|saga| letter["sagas"] == json!([saga])) {
            stream.delete_message(number(&letter)).await.unwrap();
        }
    }
    scene.platform.audit().await;
}

/// About a booking whose RESERVE is done, so that its saga takes their answers for repeats.
async fn commands_that_cannot_be_handled(scene: &Scene, live: &Value) {
    let (key, stranger) = (key(live, "RESERVE"), Uuid::now_v7().to_string());
    let price = json!({"amount": 2_000, "currency": "EUR"});
    let charge = json!({"customer": Uuid::now_v7(), "amount": price, "method": "sealed", "description": "a\u{0}b"});
    let future = json!({"v": 2, "items": [{"key": key, "half": "do", "attempt": 1, "body": {}}]});
    let about = |body| command(&key, "do", body);
    let poisons: [(&str, Vec<u8>, &str, Option<&str>); 7] = [
        ("cmd.bookings.reserve.0", vec![0xff, 0xfe, 0], "not an envelope of commands", None),
        ("cmd.bookings.upgrade.0", about(json!({})), "bookings takes no upgrade", live["id"].as_str()),
        ("cmd.bookings.reserve.7", about(json!({})), "cmd.bookings.reserve.7", live["id"].as_str()),
        ("cmd.bookings.reserve.0", future.to_string().into(), "envelope version 2", live["id"].as_str()),
        ("cmd.bookings.reserve.0", about(json!({"event": 1})), "the body cannot be read", live["id"].as_str()),
        ("cmd.bookings.release.0", about(json!({})), "there is no release as Do", live["id"].as_str()),
        // PostgreSQL takes no such text: an error of class 22.
        ("cmd.payments.charge.0", command(&format!("{stranger}:PAY:1"), "do", charge), "0x00", Some(&stranger)),
    ];
    let publish = async {
        for (subject, payload, ..) in &poisons {
            scene.publish(subject, payload.clone()).await;
        }
    };
    tokio::join!(join_all((0..10).map(async |n| scene.sold(&format!("beside-{n}")).await)), publish);

    for (subject, payload, reason, saga) in &poisons {
        let letter = scene.letter(reason, 0).await;
        let mut origin = subject.split('.').skip(1);
        assert_eq!((letter["service"].as_str(), letter["action"].as_str()), (origin.next(), origin.next()), "{letter}");
        assert_eq!(
            (&letter["subject"], &letter["sagas"]),
            (&json!(subject), &saga.iter().copied().collect()),
            "{letter}"
        );
        let path = format!("/v1/dead-letters/{}", number(&letter));
        let shown = scene.platform.get(&scene.platform.operator().await, &path).await;
        assert!(shows(&shown["payload"], payload), "{shown}");
        // As long as its cause lasts it comes again, with another number.
        let why = format!("replayed: {reason}");
        scene.replay(&letter, &why).await;
        scene.letter(reason, number(&letter)).await;
        assert!(!scene.letters().await.iter().any(|known| known["id"] == letter["id"]), "it is off the list");
        if *saga == live["id"].as_str() {
            scene.platform.acted(&text(&live["id"]), "replayed", "operator:", &why).await;
        }
    }
    let (exit, listed) = scene.platform.json(&["dead", "ls"]).await;
    assert_eq!((exit, listed), (0, scene.letters().await.into_iter().collect()), "the command line lists the same");
    let last = scene.letters().await.pop().unwrap();
    let (exit, shown) = scene.platform.json(&["dead", "show", &number(&last).to_string()]).await;
    assert_eq!((exit, &shown["id"], shown["payload"].is_string()), (0, &last["id"], true), "{shown}");
}

/// Tells whose saga was contradicted.
async fn replies_that_nobody_awaits(scene: &Scene) -> String {
    let (contradicted, unasked) = (scene.unpaid("contradicted").await, scene.unpaid("unasked").await);
    let rejected = json!({"rejected": {"code": "sold_out", "message": "no"}});
    let stranger = format!("{}:PAY:1", Uuid::now_v7());
    let replies = [
        (b"not json".to_vec(), "not an envelope of replies"),
        (json!({"v": 9, "items": []}).to_string().into(), "envelope version 9"),
        (reply(&key(&contradicted, "RESERVE"), rejected), "RESERVE was answered otherwise before"),
        (reply(&key(&unasked, "PAY"), json!({"done": {"intent": "pi_x"}})), "PAY was never dispatched"),
        (reply(&stranger, json!({"done": null})), "no such saga"),
    ];
    let publish = async {
        for (payload, _) in &replies {
            scene.publish(&subjects::reply(0), payload.clone()).await;
        }
    };
    tokio::join!(join_all((0..5).map(async |n| scene.sold(&format!("meanwhile-{n}")).await)), publish);
    for (payload, reason) in &replies {
        let letter = scene.letter(reason, 0).await;
        assert_eq!((text(&letter["service"]), text(&letter["action"])), ("orchestrator".into(), "reply".into()));
        let (_, shown) = scene.platform.json(&["dead", "show", &number(&letter).to_string()]).await;
        assert!(shows(&shown["payload"], payload), "{shown}");
        let why = format!("replayed: {reason}");
        scene.replay_by_command(&[&letter], &why).await;
        scene.letter(reason, number(&letter)).await;
        if let [saga] = letter["sagas"].as_array().unwrap().as_slice()
            && [&contradicted["id"], &unasked["id"]].contains(&saga)
        {
            scene.platform.acted(&text(saga), "replayed", "cli:", &why).await;
        }
    }
    // Their live sagas are marked, and can go on; then a replay changes nothing any more.
    scene.platform.marked(&text(&contradicted["id"]), "RESERVE").await;
    scene.platform.marked(&text(&unasked["id"]), "PAY").await;
    assert_eq!(scene.platform.standing(&unasked), 0, "a reply that nobody awaits is no payment");
    for (key, booking) in [("pay-contradicted", &contradicted), ("pay-unasked", &unasked)] {
        let paid = scene.platform.pay(&scene.ada, key, booking, "pm_card_visa").await;
        assert_eq!(paid.json::<Value>().await.unwrap()["status"], "confirmed");
    }
    let (asked_by_now, strange) = (scene.letter(replies[3].1, 0).await, scene.letter(replies[4].1, 0).await);
    scene.replay_by_command(&[&asked_by_now, &strange], "once more").await;
    // They are taken in order, and the last one comes again.
    scene.letter(replies[4].1, number(&strange)).await;
    let left = scene.letters().await;
    assert!(!left.iter().any(|letter| letter["sagas"] == json!([unasked["id"]])), "{left:?}");
    assert_eq!((scene.platform.standing(&contradicted), scene.platform.standing(&unasked)), (1, 1));
    // What nothing else clears is taken note of.
    let note = json!({"step": "RESERVE", "reason": "a reply of another making"});
    assert_eq!(scene.act(&contradicted, "resolve", note).await.0, 200);
    let marks = async |booking: &Value| scene.platform.saga(&text(&booking["id"])).await["attention"].clone();
    assert_eq!((marks(&contradicted).await, marks(&unasked).await), (json!([]), json!([])));
    text(&contradicted["id"])
}

/// The letter that payments would leave of a booking's charge.
async fn bury_charge(scene: &Scene, booking: &Value) -> Value {
    let input = scene.platform.saga(&text(&booking["id"])).await["input"].clone();
    let price = json!({"amount": 2_000, "currency": "EUR"});
    let body =
        json!({"customer": input["customer"], "amount": price, "method": input["method"], "description": "Test"});
    let mut headers = HeaderMap::new();
    headers.insert(subjects::HEADER_REASON, "delivered 21 times without an end");
    headers.insert(subjects::HEADER_SUBJECT, "cmd.payments.charge.0");
    let (subject, payload) = (subjects::dead_letter("payments", "charge"), command(&key(booking, "PAY"), "do", body));
    scene.broker.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
    scene.letter_of(booking, "charge").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_charge_of_a_step_that_was_skipped_or_of_a_saga_that_has_ended_moves_no_money() {
    let scene = Scene::new(None).await;
    scene.platform.payment_gateway(json!({"latency_ms": 1_500})).await;
    let mut bookings = Vec::new();
    for name in ["skipped", "cancelled", "dead"] {
        let booking = scene.platform.accept(&scene.ada, name, &scene.event, Some("pm_card_visa")).await;
        let id = text(&booking["id"]);
        let pays = async || scene.platform.step(&id, "PAY").await["state"] == "dispatched";
        scene.platform.until("its charge is under way", pays).await;
        bookings.push(booking);
    }
    let [skipped, cancelled, dead] = &bookings[..] else { panic!("three") };
    let by_hand = json!({"output": {"intent": "by hand"}, "reason": "paid otherwise"});
    assert_eq!(scene.act(skipped, "skip", by_hand).await.0, 200);
    scene.cancel(cancelled).await;
    // Its do is given up, so that it unwinds by itself.
    scene.publish(&subjects::reply(0), reply(&key(dead, "PAY"), json!({"dead": "panicked"}))).await;
    scene.seen(dead, "it unwinds", |b| b["status"] == "failed").await;
    scene.platform.payment_gateway(json!({"latency_ms": 0})).await;
    scene.seen(skipped, "it goes on", |b| b["status"] == "confirmed").await;
    bookings.push(scene.sold("sold").await);
    scene.platform.settled().await;
    // What stands, and what was ever taken.
    let taken = |b: &Value| scene.platform.intents(b).iter().filter(|i| i.status == Status::Succeeded).count();
    let money = || bookings.iter().map(|b| (scene.platform.standing(b), taken(b))).collect::<Vec<_>>();
    let before = money();
    assert_eq!(before.iter().map(|(standing, _)| *standing).collect::<Vec<_>>(), [0, 0, 0, 1]);

    let mut letters = Vec::new();
    for booking in &bookings {
        letters.push(bury_charge(&scene, booking).await);
    }
    scene.replay_by_command(&letters.iter().collect::<Vec<_>>(), "it cannot do harm").await;
    scene.sold("later").await; // commands are taken in order: when this one is charged, those were taken
    scene.platform.settled().await;
    assert_eq!(money(), before);
    assert_eq!(scene.letters().await, Vec::<Value>::new());
    scene.platform.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has planted faults")]
async fn a_confirm_that_panics_is_compensated_or_completed_by_a_replay_once_it_is_mended() {
    let mut scene = Scene::new(Some(Fault::ConfirmPanics)).await;
    let book = async |name| scene.platform.accept(&scene.ada, name, &scene.event, Some("pm_card_visa")).await;
    let (kept, given_up) = (book("kept").await, book("given-up").await);
    let mut letters = Vec::new();
    for booking in [&kept, &given_up] {
        scene.platform.marked(&text(&booking["id"]), "CONFIRM").await;
        let letter = scene.letter_of(booking, "confirm").await;
        assert_eq!((&letter["reason"], &letter["service"]), (&json!("panicked: planted"), &json!("bookings")));
        letters.push(letter);
        let (status, problem) = scene.act(booking, "skip", json!({"reason": "never"})).await;
        assert_eq!((status, &problem["code"]), (409, &json!("past_no_return")), "only its answer decides");
    }
    assert_eq!((scene.platform.standing(&kept), scene.platform.standing(&given_up)), (1, 1));
    let free = scene.unpaid("beside").await;
    assert_eq!(free["status"], "awaiting_payment", "other commands proceed: {free}");
    scene.cancel(&free).await;

    // While it lasts, the saga can be ended: bookings tells that nothing is confirmed, and closes it.
    let why = "the ticket is sold elsewhere";
    assert_eq!(scene.act(&given_up, "compensate", json!({"reason": why})).await.0, 200);
    let end = scene.seen(&given_up, "it is given back", |b| b["refund"] == "done").await;
    assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("operator")), "{end}");
    scene.platform.acted(&text(&given_up["id"]), "compensated_by_hand", "operator:", why).await;

    scene.mended().await;
    scene.replay_by_command(&[&letters[1], &letters[0]], "the defect is mended").await;
    scene.seen(&kept, "it completes", |b| b["status"] == "confirmed").await;
    scene.platform.acted(&text(&kept["id"]), "replayed", "cli:", "the defect is mended").await;
    scene.platform.audit().await;
    assert_eq!(scene.letters().await, Vec::<Value>::new());
    assert_eq!((scene.platform.standing(&kept), scene.platform.standing(&given_up)), (1, 0));
    assert_eq!(scene.platform.available(&scene.event.0).await, 99);
    let tickets = scene.platform.get(&scene.ada, &format!("/v1/bookings/{}/tickets", text(&kept["id"]))).await;
    assert_eq!(tickets["items"].as_array().map(Vec::len), Some(1), "{tickets}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has planted faults")]
async fn a_release_that_panics_is_resolved_or_undone_by_a_replay_or_a_retry_once_it_is_mended() {
    let mut scene = Scene::new(Some(Fault::ReleasePanics)).await;
    let mut bookings = Vec::new();
    for name in ["resolved", "replayed", "retried"] {
        let booking = scene.unpaid(name).await;
        scene.cancel(&booking).await;
        scene.platform.marked(&text(&booking["id"]), "RESERVE").await;
        bookings.push(booking);
    }
    let [resolved, replayed, retried] = &bookings[..] else { panic!("three") };
    let (again, letter) = (json!({"reason": "perhaps now"}), scene.letter_of(retried, "release").await);
    assert_eq!(letter["reason"], "panicked: planted");
    assert_eq!(scene.act(retried, "retry", again).await.0, 200);
    scene.letter("panicked: planted", number(&letter)).await;
    scene.platform.marked(&text(&retried["id"]), "RESERVE").await;
    let by_hand = json!({"step": "RESERVE", "reason": "the ticket is given back by hand"});
    assert_eq!(scene.act(resolved, "resolve", by_hand).await.0, 200);
    scene.ended(resolved, "compensated").await;
    scene.platform.acted(&text(&resolved["id"]), "resolved", "operator:", "the ticket is given back by hand").await;
    assert_eq!(scene.platform.available(&scene.event.0).await, 97, "nothing could be released while the panic lasts");

    scene.mended().await;
    let (operator, mended) = ("operator:", "the defect is mended");
    scene.replay(&scene.letter_of(replayed, "release").await, mended).await;
    scene.ended(replayed, "compensated").await;
    scene.platform.acted(&text(&replayed["id"]), "replayed", operator, mended).await;
    assert_eq!(scene.act(retried, "retry", json!({"reason": mended})).await.0, 200);
    scene.ended(retried, "compensated").await;
    scene.platform.acted(&text(&retried["id"]), "retried_by_hand", operator, mended).await;
    assert_eq!(scene.platform.available(&scene.event.0).await, 99);
    // What was given back by hand can still be released, and what is released stays so.
    let rest = scene.letters().await;
    scene.replay_by_command(&rest.iter().collect::<Vec<_>>(), mended).await;
    scene.platform.until("all tickets are back", async || scene.platform.available(&scene.event.0).await == 100).await;
    scene.platform.audit().await;
    assert_eq!(scene.letters().await, Vec::<Value>::new());
}
