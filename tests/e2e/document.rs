//! Who may do what to whose: every operation of the document, by everybody, on what is their own and on what is not.
//!
//! Roles, bodies and parameters are the document's. What it cannot say stands here: whose the things are that a path is
//! about, and who sees what is not their own. An operation on things that are not named here fails the test.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::dead_letters::broker;
use crate::platform::{Platform, text};
use crate::rest::order;

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    /// Nothing in particular, or the asker's own account.
    None,
    /// A booking: its customer's, and read by operators and administrators.
    Booking,
    /// An event that is not on sale: its organizer's, and an administrator's.
    Draft,
    /// An event on sale: changed as a draft is, and shown to all.
    Published,
    Saga,
    Breaker,
    DeadLetter,
}

/// An operation of the document.
struct Operation {
    id: String,
    method: Method,
    path: String,
    /// Whether nobody needs to sign in.
    public: bool,
    /// Roles that may.
    roles: Vec<String>,
    /// Example of the body, with its media type.
    body: Option<(String, Value)>,
}

/// Somebody who asks.
struct Actor {
    /// Empty where nobody is signed in.
    role: &'static str,
    token: String,
}

/// What an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// A success, or for actions on sagas that the state of this one does not allow it.
    Admitted,
    Status(StatusCode),
}

impl Operation {
    async fn all(platform: &Platform) -> Vec<Self> {
        let document = platform.get("", "/openapi.json").await;
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let security = operation["security"].as_array().unwrap();
                let roles = security.iter().flat_map(|scheme| scheme["bearer"].as_array().into_iter().flatten());
                let content = operation.pointer("/requestBody/content").and_then(Value::as_object);
                operations.push(Self {
                    id: text(&operation["operationId"]),
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    public: security.contains(&json!({})),
                    roles: roles.map(text).collect(),
                    body: content.and_then(|c| c.iter().next()).map(|(kind, c)| (kind.clone(), c["example"].clone())),
                });
            }
        }
        operations
    }

    fn thing(&self) -> Thing {
        match self.path.split('/').collect::<Vec<_>>()[1..] {
            ["v1", "bookings", "{id}", ..] => Thing::Booking,
            ["v1", "events", "{id}", "stop" | "cancel" | "availability"] => Thing::Published,
            ["v1", "events", "{id}", ..] => Thing::Draft,
            ["v1", "sagas", "{id}", ..] => Thing::Saga,
            ["v1", "breakers", "{service}", ..] => Thing::Breaker,
            ["v1", "dead-letters", "{id}", ..] => Thing::DeadLetter,
            _ => {
                assert!(!self.path.contains('{'), "{}: whose is what this path is about?", self.path);
                Thing::None
            }
        }
    }

    fn reads(&self) -> bool {
        self.method == Method::GET
    }

    /// What the actor has to be answered; `own` where the thing has an owner, and it is the actor.
    fn answer(&self, actor: &Actor, own: bool) -> Answer {
        // Every role includes what customers may.
        let may = self.roles.iter().any(|role| role == "customer" || role == actor.role);
        let sees_all = match self.thing() {
            Thing::Booking => self.reads() && ["operator", "admin"].contains(&actor.role),
            Thing::Draft => actor.role == "admin",
            Thing::Published => self.reads() || actor.role == "admin",
            Thing::None | Thing::Saga | Thing::Breaker | Thing::DeadLetter => true,
        };
        match (self.public, actor.role, may) {
            (false, "", _) => Answer::Status(StatusCode::UNAUTHORIZED),
            (false, _, false) => Answer::Status(StatusCode::FORBIDDEN),
            _ if own || sees_all => Answer::Admitted,
            _ => Answer::Status(StatusCode::NOT_FOUND),
        }
    }
}

/// A platform with everybody who asks it, and what belongs to none of them.
struct Stage {
    platform: Platform,
    actors: Vec<Actor>,
    /// A customer and an organizer beside the actors.
    strangers: (String, String),
    /// An event on sale.
    event: (String, String),
    numbers: AtomicU32,
}

impl Stage {
    async fn set() -> Self {
        let rates = ["EVENTICKET_RATE_SIGNED_IN_BURST", "EVENTICKET_RATE_ADDRESS_BURST"];
        let platform = Platform::start_with(rates.map(|name| (name, "100000".to_owned())).into(), &[]).await;
        let mut actors = vec![Actor { role: "", token: String::new() }];
        for role in ["customer", "organizer", "operator", "admin"] {
            actors.push(Actor { role, token: platform.login(&format!("{role}@demo.test")).await });
        }
        let strangers = (platform.customers(1).await.remove(0), another_organizer(&platform).await);
        let event = platform.event(1_000, 1_000, Some(600)).await;
        Self { platform, actors, strangers, event, numbers: AtomicU32::default() }
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A new thing of this owner, in a state in which what is asked of it can be done.
    async fn made(&self, thing: Thing, owner: &str) -> String {
        match thing {
            Thing::None => String::new(),
            Thing::Breaker => "notifications".to_owned(),
            Thing::Booking | Thing::Saga => {
                let key = format!("own-{}", self.number());
                text(&self.platform.book(owner, &key, &self.event, None).await["id"])
            }
            Thing::Draft | Thing::Published => {
                let (status, draft) = self.platform.post(owner, "/v1/events", event()).await;
                assert_eq!(status, 201, "{draft}");
                let id = text(&draft["id"]);
                if thing == Thing::Published {
                    let path = format!("/v1/events/{id}");
                    let (status, event) = self.platform.post(owner, &format!("{path}/publish"), json!({})).await;
                    assert!([200, 202].contains(&status), "{event}");
                    let on_sale = async || self.platform.get(owner, &path).await["state"] == "published";
                    self.platform.until("the event is on sale", on_sale).await;
                }
                id
            }
            Thing::DeadLetter => self.letter().await,
        }
    }

    /// The number of a new dead letter.
    async fn letter(&self) -> String {
        let (operator, path) = (self.platform.operator().await, "/v1/dead-letters?limit=100");
        let letters = async || -> BTreeSet<u64> {
            let page = self.platform.get(&operator, path).await;
            page["items"].as_array().into_iter().flatten().filter_map(|letter| letter["id"].as_u64()).collect()
        };
        let before = letters().await;
        let broker = broker(&self.platform).await;
        let sent = broker.publish("cmd.bookings.upgrade.0", "no envelope".into()).await;
        sent.unwrap().await.unwrap();
        self.platform.until("the letter is listed", async || letters().await.len() > before.len()).await;
        letters().await.difference(&before).next().unwrap().to_string()
    }

    /// The document's body, where its example can be sent as it is; else one like it.
    async fn body(&self, operation: &Operation) -> Option<(String, String)> {
        let (kind, mut body) = operation.body.clone()?;
        match operation.id.as_str() {
            "register" => body["email"] = json!(format!("new-{}@demo.test", self.number())),
            "refresh" => {
                let login = json!({"email": "customer@demo.test", "password": "demo-password"});
                body =
                    json!({"refresh_token": self.platform.post("", "/v1/auth/login", login).await.1["refresh_token"]});
            }
            "create_event" => body = event(),
            "create_booking" => body = order(&self.event, None),
            _ => {}
        }
        Some((kind, body.to_string()))
    }

    async fn asked(&self, operation: &Operation, actor: &Actor, id: &str) -> StatusCode {
        let path = operation.path.replace("{id}", id).replace("{service}", id);
        let request = self.platform.http.request(operation.method.clone(), format!("{}{path}", self.platform.url));
        let mut request = request.header("idempotency-key", format!("asked-{}", self.number())).header("if-match", "*");
        if !actor.token.is_empty() {
            request = request.bearer_auth(&actor.token);
        }
        if let Some((kind, body)) = self.body(operation).await {
            request = request.header("content-type", kind).body(body);
        }
        // Only the head is waited for: a stream goes on.
        request.send().await.unwrap().status()
    }

    /// Asks, and sees that the answer is what it has to be.
    async fn check(&self, operation: &Operation, actor: &Actor, own: bool, id: &str) {
        let status = self.asked(operation, actor, id).await;
        let state_decides = operation.thing() == Thing::Saga && status == StatusCode::CONFLICT;
        let good = match operation.answer(actor, own) {
            Answer::Admitted => status.is_success() || state_decides,
            Answer::Status(expected) => status == expected,
        };
        let (whose, role) = (if own { "own" } else { "not their own" }, actor.role);
        assert!(
            good,
            "{} by {role:?} on {id}, {whose}: {status}, not {:?}",
            operation.id,
            operation.answer(actor, own)
        );
    }
}

/// An event that has not begun for long.
fn event() -> Value {
    json!({
        "title": "Test", "category": "concert", "timezone": "Europe/Vienna",
        "starts_at": "2099-06-12T18:00:00Z", "ends_at": "2099-06-12T21:00:00Z",
        "venue": {"name": "Arena", "city": "Vienna", "country": "AT"},
        "ticket_types": [{"name": "Any", "price": {"amount": 1_000, "currency": "EUR"}, "quantity": 10}],
    })
}

/// A second organizer: a customer whom the administrator of the database has made one.
async fn another_organizer(platform: &Platform) -> String {
    let register = json!({"email": "other@demo.test", "password": "demo-password", "name": "Other"});
    assert_eq!(platform.post("", "/v1/auth/register", register).await.0, 201);
    let sql = "UPDATE users SET roles = '{customer,organizer}' WHERE email = 'other@demo.test'";
    let mut connection = platform.database("identity").await;
    assert_eq!(sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected(), 1);
    platform.login("other@demo.test").await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_answers_each_role_on_own_and_foreign_things() {
    let stage = Stage::set().await;
    let (customer, organizer) = &stage.strangers;
    // What nobody who asks may change stays as it is.
    let mut foreign = Vec::new();
    for (thing, owner) in [(Thing::Booking, customer), (Thing::Draft, organizer), (Thing::Published, organizer)] {
        foreign.push((thing, stage.made(thing, owner).await));
    }
    let shown = async || {
        let path = |(thing, id): &(Thing, String)| match thing {
            Thing::Booking => (customer, format!("/v1/bookings/{id}")),
            _ => (organizer, format!("/v1/events/{id}")),
        };
        let mut shown = Vec::new();
        for (token, path) in foreign.iter().map(path) {
            shown.push(stage.platform.get(token, &path).await);
        }
        shown
    };
    let before = shown().await;
    assert!(before.iter().all(Value::is_object), "{before:?}");

    for operation in Operation::all(&stage.platform).await {
        let thing = operation.thing();
        for actor in &stage.actors {
            // Their own, where they can have it.
            let has = match thing {
                Thing::Booking => !actor.role.is_empty(),
                Thing::Draft | Thing::Published => ["organizer", "admin"].contains(&actor.role),
                _ => false,
            };
            if has {
                let id = stage.made(thing, &actor.token).await;
                stage.check(&operation, actor, true, &id).await;
            }
            // Somebody else's; what they may do is done to another one.
            let kept = foreign.iter().find(|(known, _)| *known == thing).map(|(_, id)| id.clone());
            let touched = operation.answer(actor, false) == Answer::Admitted && !operation.reads();
            let owner = if matches!(thing, Thing::Booking | Thing::Saga) { customer } else { organizer };
            let id = match kept {
                Some(id) if !touched => id,
                _ => stage.made(thing, owner).await,
            };
            stage.check(&operation, actor, false, &id).await;
        }
    }
    assert_eq!(shown().await, before, "nothing of it was changed");
    lists_tell_of_nobody_else(&stage, &before).await;
}

/// Lists hold what is the asker's own, and what all may see.
async fn lists_tell_of_nobody_else(stage: &Stage, foreign: &[Value]) {
    let held = async |token: &str, path: &str| stage.platform.get(token, path).await.to_string();
    for actor in &stage.actors {
        if !actor.role.is_empty() {
            let bookings = held(&actor.token, "/v1/me/bookings?limit=100").await;
            assert!(bookings.contains("items") && !bookings.contains(&text(&foreign[0]["id"])), "{}", actor.role);
        }
        for path in ["/v1/events?limit=100", "/v1/events?mine=true&limit=100"] {
            let draft = held(&actor.token, path).await.contains(&text(&foreign[1]["id"]));
            assert_eq!(draft, actor.role == "admin" && !path.contains("mine"), "{path} as {}", actor.role);
        }
    }
}
