use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use eventicket_contracts::bookings::{TICKETS, Ticket, TicketsQuery};
use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::events::{self, Event, EventPage, GetEvent, ListEvents, UpdateEvent, Viewer};
use eventicket_contracts::identity::{Idempotency, LOGIN, Login, Tokens, USERS, User};
use eventicket_contracts::sagas::{
    Act, ActAnswer, Action, AnsweredStart, BookedItem, BookingStatus, BookingView, GET_BOOKING, GetBooking,
    RefundStatus, StartAnswer, StartSaga, StatusChange,
};
use eventicket_contracts::{BookingId, EventId, SagaId, TicketTypeId, codes, subjects};
use eventicket_kit::Context;
use eventicket_nats::{QueryError, QueryServer};
use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A gateway with NATS behind it, and what a test puts there.
pub(super) struct Platform {
    ctx: Context,
    pub(super) gateway: Gateway,
}

impl Platform {
    pub(super) async fn start() -> Self {
        let world = eventicket_testkit::world().await;
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
        let gateway = Gateway::of(App::new(&ctx).unwrap(), Router::new());
        let platform = Self { ctx, gateway };
        platform.listen().await;
        platform
    }

    /// Follows changes of bookings, and returns when they are heard.
    async fn listen(&self) {
        let (status, probe) = (self.gateway.app.status.clone(), SagaId::fresh());
        tokio::spawn(status.clone().follow(self.ctx.nats.clone(), self.ctx.shutdown.clone()));
        let mut waiter = status.wait(probe);
        loop {
            self.tell(probe, BookingStatus::Pending).await;
            if tokio::time::timeout(Duration::from_millis(50), waiter.changed()).await.is_ok() {
                return;
            }
        }
    }

    /// Returns when the broker knows what was subscribed to: it takes one connection's messages in order.
    async fn subscribed(&self) {
        let _ = self.ctx.nats.subscriber().request("nobody.is.here", "".into()).await;
    }

    /// Answers requests on a subject of core NATS; `None` is silence.
    pub(super) async fn answer<Q: DeserializeOwned + Send, A: Serialize + Send>(
        &self,
        subject: &'static str,
        answer: impl Fn(Q) -> Option<A> + Send + 'static,
    ) {
        let client = self.ctx.nats.subscriber().clone();
        let mut asked = client.subscribe(subject).await.unwrap();
        self.subscribed().await;
        tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let answer = answer(serde_json::from_slice(&message.payload).unwrap());
                let Some((answer, to)) = answer.zip(message.reply) else { continue };
                client.publish(to, serde_json::to_vec(&answer).unwrap().into()).await.unwrap();
            }
        });
    }

    /// Answers starts; `None` is silence.
    pub(super) async fn answer_starts(&self, answer: impl Fn(StartSaga) -> Option<StartAnswer> + Send + 'static) {
        let answered = move |asked: Envelope<StartSaga>| {
            let item = |start: StartSaga| Some(AnsweredStart { id: start.id, answer: answer(start)? });
            let answers: Vec<AnsweredStart> = asked.items.into_iter().filter_map(item).collect();
            (!answers.is_empty()).then(|| Envelope::new(answers))
        };
        self.answer(subjects::START, answered).await;
    }

    /// Answers a query.
    pub(super) async fn query<Q: DeserializeOwned + Send + 'static, A: Serialize + Send + 'static>(
        &self,
        service: &str,
        name: &str,
        answer: impl Fn(Q) -> Result<A, QueryError> + Send + Sync + 'static,
    ) {
        let mut server = QueryServer::start(&self.ctx.nats, service, "by hand").await.unwrap();
        server.endpoint(name, move |q| std::future::ready(answer(q))).await.unwrap();
        self.subscribed().await;
        tokio::spawn(server.run(self.ctx.shutdown.clone()));
    }

    /// Keeps bookings as the orchestrator's query shows them.
    async fn bookings(&self) -> Arc<Mutex<Vec<BookingView>>> {
        let kept: Arc<Mutex<Vec<BookingView>>> = Arc::default();
        let shown = kept.clone();
        self.query("orchestrator", GET_BOOKING, move |q: GetBooking| {
            let shown = shown.lock().unwrap();
            let mine = |b: &&BookingView| b.id == q.id && q.owner.is_none_or(|o| o == b.customer_id);
            Ok(shown.iter().find(mine).cloned())
        })
        .await;
        kept
    }

    async fn tell(&self, id: SagaId, status: BookingStatus) {
        let hint = [StatusChange { id, status: status.name().into(), version: 9, view: None }];
        let client = self.ctx.nats.publisher();
        client.publish(subjects::STATUS, serde_json::to_vec(&hint).unwrap().into()).await.unwrap();
    }

    fn customer(&self) -> (CustomerId, String) {
        let id = CustomerId::fresh();
        (id, self.gateway.token(id, &[Role::Customer]))
    }
}

fn view(id: BookingId, customer: CustomerId, status: BookingStatus) -> BookingView {
    BookingView {
        id,
        status,
        reason: None,
        event_id: EventId::fresh(),
        customer_id: customer,
        items: vec![BookedItem { ticket_type_id: TicketTypeId::fresh(), quantity: 1, seats: Vec::new() }],
        lines: vec![],
        total: None,
        hold_expires_at: None,
        next_action: None,
        last_decline: None,
        refund: RefundStatus::None,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: 1,
    }
}

fn started(start: &StartSaga, created: bool) -> StartAnswer {
    let view = view(start.id, start.owner.unwrap(), BookingStatus::Pending);
    StartAnswer::Started { id: start.id, created, view: serde_json::to_value(view).unwrap() }
}

fn order() -> Value {
    json!({
        "event_id": EventId::fresh(),
        "items": [{"ticket_type_id": TicketTypeId::fresh(), "quantity": 2}],
        "payment_method": "pm_card_visa",
    })
}

const KEY: (&str, &str) = ("idempotency-key", "key-1");

#[tokio::test]
async fn a_booking_is_answered_once_its_start_is() {
    let platform = Platform::start().await;
    let (ada, token) = platform.customer();
    let seal = platform.gateway.app.seal.clone();
    let now = platform.ctx.clock.now();
    platform
        .answer_starts(move |start: StartSaga| {
            assert_eq!((start.definition.as_str(), start.owner), ("booking", Some(ada)));
            assert_eq!(start.idempotency.as_ref().unwrap().key, "key-1");
            assert!(start.give_up_at > now && start.trace.as_ref().is_some_and(|t| t.starts_with("00-")));
            assert_eq!(seal.open(ada, start.input["method"].as_str().unwrap()).as_deref(), Some("pm_card_visa"));
            Some(started(&start, true))
        })
        .await;
    let answer = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.header("location"), format!("/v1/bookings/{}", answer.json()["id"].as_str().unwrap()));
    assert_eq!((answer.header("idempotent-replayed"), answer.header("preference-applied")), ("", ""));
}

#[tokio::test]
async fn a_repeat_finds_the_first_booking_and_another_body_is_refused() {
    let platform = Platform::start().await;
    let (_, token) = platform.customer();
    let first: Mutex<Option<(StartSaga, StartAnswer)>> = Mutex::default();
    platform
        .answer_starts(move |start: StartSaga| {
            let mut first = first.lock().unwrap();
            let (known, _) = first.get_or_insert_with(|| (start.clone(), started(&start, true)));
            let same = known.idempotency == start.idempotency;
            Some(if same { started(known, known.id == start.id) } else { StartAnswer::KeyReused })
        })
        .await;
    let body = order();
    let first = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &body)).await;
    let again = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &body)).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::ACCEPTED, "true"));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await;
    other.is_problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn what_is_not_admitted_or_refused_is_told() {
    let platform = Platform::start().await;
    let (_, token) = platform.customer();
    let answers = Mutex::new(vec![
        StartAnswer::Refused { code: codes::NOT_ON_SALE.into(), message: "not yet".into() },
        StartAnswer::Busy { retry_after_ms: 1500 },
    ]);
    platform.answer_starts(move |_: StartSaga| answers.lock().unwrap().pop()).await;
    let busy = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await;
    busy.is_problem(429, "busy");
    assert_eq!(busy.header("retry-after"), "2");
    platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await.is_problem(422, codes::NOT_ON_SALE);
    // And then nothing at all: whether it was started is not known.
    let silent = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await;
    silent.is_problem(503, "outcome-unknown");
    assert_eq!(silent.header("retry-after"), "1");
}

#[tokio::test]
async fn in_a_rush_most_are_refused_at_the_door() {
    let platform = Platform::start().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    platform
        .answer_starts(move |_: StartSaga| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(StartAnswer::Busy { retry_after_ms: 500 })
        })
        .await;
    // The first ones find out; of the others few are let through.
    for most in [400..=400, 50..=600] {
        let requests = (0..400).map(async |_| {
            let (_, token) = platform.customer();
            platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await
        });
        for refused in futures::future::join_all(requests).await {
            refused.is_problem(429, "busy");
            assert_eq!(refused.header("retry-after"), "1");
        }
        assert!(most.contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
    }
}

#[tokio::test]
async fn without_anybody_to_answer_nothing_was_started() {
    let platform = Platform::start().await;
    let (_, token) = platform.customer();
    let answer = platform.gateway.send(post("/v1/bookings", &token, &[KEY], &order())).await;
    answer.is_problem(503, "unavailable");
}

#[tokio::test]
async fn a_wait_ends_with_the_status() {
    let platform = Arc::new(Platform::start().await);
    let (_, token) = platform.customer();
    let bookings = platform.bookings().await;
    let (ids, mut started_ids) = tokio::sync::mpsc::channel(1);
    platform
        .answer_starts(move |start: StartSaga| {
            ids.try_send((start.id, start.owner.unwrap())).unwrap();
            Some(started(&start, true))
        })
        .await;
    let asker = platform.clone();
    let asked = tokio::spawn(async move {
        asker.gateway.send(post("/v1/bookings", &token, &[KEY, ("prefer", "wait=20")], &order())).await
    });
    let started = tokio::time::timeout(Duration::from_secs(10), started_ids.recv());
    let (id, customer) = started.await.expect("it is started").unwrap();
    platform.tell(id, BookingStatus::Pending).await;
    bookings.lock().unwrap().push(view(id, customer, BookingStatus::Confirmed));
    platform.tell(id, BookingStatus::Confirmed).await;
    let answer = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("before the wait is over").unwrap();
    assert_eq!((&answer.json()["status"], answer.header("preference-applied")), (&json!("confirmed"), "wait=20"));
}

#[tokio::test]
async fn a_wait_that_hears_nothing_ends_with_a_look() {
    let platform = Platform::start().await;
    let (ada, token) = platform.customer();
    let bookings = platform.bookings().await;
    let kept = bookings.clone();
    platform
        .answer_starts(move |start: StartSaga| {
            kept.lock().unwrap().push(view(start.id, ada, BookingStatus::AwaitingPayment));
            Some(started(&start, true))
        })
        .await;
    let answer = platform.gateway.send(post("/v1/bookings", &token, &[KEY, ("prefer", "wait=1")], &order())).await;
    assert_eq!(answer.json()["status"], "awaiting_payment");
}

#[tokio::test]
async fn anothers_booking_is_not_found_but_operators_read_it() {
    let platform = Platform::start().await;
    let (ada, hers) = platform.customer();
    let (_, his) = platform.customer();
    let operator = platform.gateway.token(CustomerId::fresh(), &[Role::Operator]);
    let id = SagaId::fresh();
    platform.bookings().await.lock().unwrap().push(view(id, ada, BookingStatus::Confirmed));
    platform
        .query("bookings", TICKETS, move |q: TicketsQuery| {
            assert_eq!((q.booking, q.customer), (id, Some(ada)));
            Ok(Vec::<Ticket>::new())
        })
        .await;
    platform
        .answer(subjects::ACT, move |act: Act| {
            Some(if act.owner == Some(ada) { done(id, ada) } else { ActAnswer::NotFound })
        })
        .await;
    for path in ["", "/tickets", "/stream"] {
        let path = format!("/v1/bookings/{id}{path}");
        assert_eq!(platform.gateway.send(get(&path, &hers)).await.status, StatusCode::OK, "{path}");
        assert_eq!(platform.gateway.send(get(&path, &operator)).await.status, StatusCode::OK, "{path}");
        platform.gateway.send(get(&path, &his)).await.is_problem(404, "not_found");
    }
    let cancel = format!("/v1/bookings/{id}/cancel");
    assert_eq!(platform.gateway.send(post(&cancel, &hers, &[], &json!({}))).await.status, StatusCode::OK);
    for other in [&his, &operator] {
        platform.gateway.send(post(&cancel, other, &[], &json!({}))).await.is_problem(404, "not_found");
    }
}

fn done(id: BookingId, customer: CustomerId) -> ActAnswer {
    ActAnswer::Done {
        view: serde_json::to_value(view(id, customer, BookingStatus::Cancelled)).unwrap(),
        repeated: false,
    }
}

#[tokio::test]
async fn a_payment_is_a_sealed_signal() {
    let platform = Platform::start().await;
    let (ada, token) = platform.customer();
    let seal = platform.gateway.app.seal.clone();
    let id = SagaId::fresh();
    platform
        .answer(subjects::ACT, move |act: Act| {
            let Action::Signal { name, payload, idempotency: Some(_) } = act.action else { panic!("no signal") };
            assert_eq!((act.saga, act.owner, name.as_str()), (id, Some(ada), "payment_method"));
            let method = seal.open(ada, payload["method"].as_str().unwrap()).unwrap();
            Some(match method.as_str() {
                "pm_card_visa" => done(id, ada),
                _ => ActAnswer::Conflict { code: "not_awaited".into(), message: "too early".into() },
            })
        })
        .await;
    let pay = |headers: &'static [(&str, &str)], method: &str| {
        let body = json!({"payment_method": method});
        platform.gateway.send(post(&format!("/v1/bookings/{id}/payment"), &token, headers, &body))
    };
    assert_eq!(pay(&[KEY], "pm_card_visa").await.status, StatusCode::ACCEPTED);
    pay(&[], "pm_card_visa").await.is_problem(400, "idempotency_key_required");
    pay(&[KEY], "pm_other").await.is_problem(409, "not_awaited");
    pay(&[KEY], "").await.is_problem(422, "validation");
}

#[tokio::test]
async fn a_repeated_payment_finds_the_first_and_another_one_is_refused() {
    let platform = Platform::start().await;
    let (ada, token) = platform.customer();
    let id = SagaId::fresh();
    let taken: Mutex<Vec<Idempotency>> = Mutex::default();
    platform
        .answer(subjects::ACT, move |act: Act| {
            let Action::Signal { idempotency: Some(given), .. } = act.action else { panic!("no signal") };
            let mut taken = taken.lock().unwrap();
            let (repeated, first) = (taken.contains(&given), taken.is_empty());
            let conflict = |code: &str| ActAnswer::Conflict { code: code.into(), message: String::new() };
            if !repeated && !first {
                return Some(conflict(if given.key == taken[0].key { codes::KEY_REUSED } else { "ended" }));
            }
            taken.push(given);
            let view = serde_json::to_value(view(id, ada, BookingStatus::Confirmed)).unwrap();
            Some(ActAnswer::Done { view, repeated })
        })
        .await;
    let pay = |key: &'static str, method: &str| {
        let path = format!("/v1/bookings/{id}/payment");
        platform.gateway.send(post(&path, &token, &[("idempotency-key", key)], &json!({"payment_method": method})))
    };
    assert_eq!(pay("a", "pm_card_visa").await.header("idempotent-replayed"), "");
    let again = pay("a", "pm_card_visa").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::ACCEPTED, "true"));
    pay("a", "pm_other").await.is_problem(422, "idempotency_key_reused");
    pay("b", "pm_card_visa").await.is_problem(409, "ended");
}

#[tokio::test]
async fn a_stream_ends_with_a_final_status() {
    let platform = Arc::new(Platform::start().await);
    let (ada, token) = platform.customer();
    let id = SagaId::fresh();
    let bookings = platform.bookings().await;
    bookings.lock().unwrap().push(view(id, ada, BookingStatus::Pending));
    let (heard, mut first) = tokio::sync::mpsc::channel::<String>(16);
    let follower = platform.clone();
    let stream = tokio::spawn(async move {
        let request = get(&format!("/v1/bookings/{id}/stream"), &token);
        let response = follower.gateway.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut chunks = response.into_body().into_data_stream();
        while let Some(chunk) = chunks.next().await {
            heard.send(String::from_utf8(chunk.unwrap().to_vec()).unwrap()).await.unwrap();
        }
    });
    assert!(first.recv().await.unwrap().contains("\"pending\""));
    bookings.lock().unwrap()[0] = BookingView { version: 2, ..view(id, ada, BookingStatus::Confirmed) };
    platform.tell(id, BookingStatus::Confirmed).await;
    let last = first.recv().await.unwrap();
    assert!(last.contains("event: status") && last.contains("\"confirmed\"") && last.contains("id: 2"), "{last}");
    tokio::time::timeout(Duration::from_secs(10), stream).await.expect("the stream ends").unwrap();
    assert_eq!(platform.gateway.app.streams.available_permits(), 4_096);
}

pub(super) fn draft(organizer: CustomerId, version: i64) -> Event {
    let mut event: Value = json!({
        "title": "A", "description": "", "category": "concert", "timezone": "Europe/Vienna",
        "starts_at": "2030-01-01T10:00:00Z", "ends_at": "2030-01-01T12:00:00Z",
        "venue": {"name": "Arena", "city": "Vienna", "country": "AT"},
        "ticket_types": [{"id": TicketTypeId::fresh(), "name": "S", "price": {"amount": 1, "currency": "EUR"}, "quantity": 1}],
        "created_at": "2026-01-01T10:00:00Z", "updated_at": "2026-01-01T10:00:00Z", "state": "draft",
    });
    event["id"] = json!(EventId::fresh());
    event["organizer_id"] = json!(organizer);
    event["version"] = json!(version);
    serde_json::from_value(event).unwrap()
}

#[tokio::test]
async fn an_event_is_read_and_edited_by_its_version() {
    let platform = Platform::start().await;
    let organizer = CustomerId::fresh();
    let token = platform.gateway.token(organizer, &[Role::Organizer]);
    let event = draft(organizer, 3);
    let (shown, id) = (event.clone(), event.id);
    platform
        .query("events", events::GET, move |q: GetEvent| {
            Ok((q.viewer == Viewer::Organizer(organizer)).then(|| shown.clone()))
        })
        .await;
    platform
        .query("events", events::UPDATE, move |q: UpdateEvent| {
            assert_eq!((q.version, q.details.category.as_str()), (3, "concert"));
            match q.details.title.as_str() {
                "late" => Err(QueryError::new(codes::VERSION_CONFLICT, "changed")),
                title => {
                    let mut event = Event { version: 4, ..event.clone() };
                    title.clone_into(&mut event.details.title);
                    Ok(Some(event))
                }
            }
        })
        .await;
    let path = format!("/v1/events/{id}");
    platform.gateway.send(get(&path, "")).await.is_problem(404, "not_found");
    let read = platform.gateway.send(get(&path, &token)).await;
    assert_eq!((read.status.as_u16(), read.header("etag")), (200, "\"3\""));
    let bearer = format!("Bearer {token}");
    let known = request("GET", &path, &[("authorization", &bearer), ("if-none-match", "\"3\"")], "");
    let known = platform.gateway.send(known).await;
    assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
    let patch = |version: &str, body: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("if-match", version)];
        platform.gateway.send(request("PATCH", &path, &headers, body.to_owned()))
    };
    let edited = patch("\"3\"", r#"{"title":"B"}"#).await;
    assert_eq!((edited.status.as_u16(), edited.header("etag"), &edited.json()["title"]), (200, "\"4\"", &json!("B")));
    patch("\"2\"", r#"{"title":"B"}"#).await.is_problem(412, "version_conflict");
    patch("\"3\"", r#"{"title":"late"}"#).await.is_problem(412, "version_conflict");
    let unknown = patch("\"3\"", r#"{"titel":"B"}"#).await.is_problem(422, "validation");
    assert_eq!(unknown["errors"][0]["field"], "titel");
}

#[tokio::test]
async fn lists_page_by_opaque_cursors() {
    let platform = Platform::start().await;
    let event = draft(CustomerId::fresh(), 1);
    let next = events::EventCursor { starts_at: Timestamp(7), id: event.id };
    platform
        .query("events", events::LIST, move |q: ListEvents| {
            assert_eq!((q.viewer, q.limit), (Viewer::Public, 1));
            let first = q.cursor.is_none();
            assert!(first || q.cursor == Some(next.clone()));
            Ok(EventPage { items: vec![event.clone()], next: first.then(|| next.clone()) })
        })
        .await;
    let first = platform.gateway.send(get("/v1/events?limit=1", "")).await.json();
    let cursor = first["next"].as_str().unwrap();
    let second = platform.gateway.send(get(&format!("/v1/events?limit=1&cursor={cursor}"), "")).await.json();
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn refusals_of_services_keep_their_code() {
    let platform = Platform::start().await;
    let (ada, token) = platform.customer();
    platform
        .query("identity", LOGIN, |_: Login| -> Result<Tokens, QueryError> {
            Err(QueryError::new(codes::INVALID_CREDENTIALS, "wrong"))
        })
        .await;
    platform
        .query("identity", USERS, move |ids: Vec<CustomerId>| {
            Ok(if ids == [ada] { vec![] } else { vec![user(ids[0])] })
        })
        .await;
    let body = json!({"email": "a@b.co", "password": "wrong"});
    platform.gateway.send(post("/v1/auth/login", "", &[], &body)).await.is_problem(401, "invalid_credentials");
    platform.gateway.send(get("/v1/me", &token)).await.is_problem(404, "not_found");
    let (_, other) = platform.customer();
    let me = platform.gateway.send(get("/v1/me", &other)).await;
    assert_eq!(
        (me.status.as_u16(), me.header("etag"), me.header("cache-control")),
        (200, "\"5\"", "private, no-cache")
    );
}

fn user(id: CustomerId) -> User {
    let email = serde_json::from_value(json!("a@b.co")).unwrap();
    User { id, email, name: "A".into(), roles: vec![Role::Customer], version: 5, created_at: Timestamp(0) }
}

#[tokio::test]
async fn it_runs_and_stops_and_shares_no_port_with_strangers() {
    let platform = Platform::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ctx = platform.ctx.clone().with_settings(|s| s.gateway_listen = address);
    let error = crate::run(ctx).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("taken"), "{error}");
    let ctx = platform.ctx.clone().with_settings(|s| s.gateway_listen = SocketAddr::from(([127, 0, 0, 1], 0)));
    let running = tokio::spawn(crate::run(ctx));
    platform.ctx.shutdown.cancel();
    running.await.unwrap().unwrap();
}
