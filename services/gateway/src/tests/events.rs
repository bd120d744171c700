use std::collections::VecDeque;
use std::sync::Mutex;

use super::platform::Platform;
use super::services::draft;
use super::*;
use eventicket_contracts::events::{
    CANCEL, CREATE, CreateEvent, Event, EventState, GET, GetEvent, OwnEvent, PUBLISH, STOP, SaleChange, UPDATE,
    UpdateEvent,
};
use eventicket_contracts::{EventId, codes};
use eventicket_nats::QueryError;

/// A platform with one event, which changes as a test says.
struct Stage {
    platform: Platform,
    token: String,
    event: Event,
    /// What reads of the event find, in turn; the last one stays.
    shown: Arc<Mutex<VecDeque<Event>>>,
}

impl Stage {
    /// An event of version 3 on sale.
    async fn set() -> Self {
        let platform = Platform::start().await;
        let organizer = CustomerId::fresh();
        let token = platform.gateway.token(organizer, &[Role::Organizer]);
        let event = Event { state: EventState::Published, ..draft(organizer, 3) };
        let shown = Arc::new(Mutex::new(VecDeque::from([event.clone()])));
        let reads = shown.clone();
        platform
            .query("events", GET, move |q: GetEvent| {
                let mut reads = reads.lock().unwrap();
                let event = if reads.len() > 1 { reads.pop_front() } else { reads.front().cloned() };
                Ok(event.filter(|event| event.id == q.id))
            })
            .await;
        Self { platform, token, event, shown }
    }

    /// The event of this version with this change.
    fn changed(&self, version: i64, state: EventState, change: Option<SaleChange>) -> Event {
        Event { version, state, change, ..self.event.clone() }
    }

    /// The same with a change under way.
    fn pending(&self, state: EventState) -> Event {
        self.changed(4, state, Some(SaleChange { version: 4, refused: None }))
    }

    fn refused(&self, state: EventState, code: &str) -> Event {
        self.changed(5, state, Some(SaleChange { version: 4, refused: Some(code.into()) }))
    }

    /// What the next reads find.
    fn shows(&self, events: impl IntoIterator<Item = Event>) {
        *self.shown.lock().unwrap() = events.into_iter().collect();
    }

    /// How many different answers are left of those.
    fn left(&self) -> usize {
        self.shown.lock().unwrap().len()
    }

    async fn send(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let (path, bearer) = (format!("/v1/events/{}{path}", self.event.id), format!("Bearer {}", self.token));
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(more);
        self.platform.gateway.send(request(method, &path, &headers, body.to_owned())).await
    }

    async fn patch(&self, more: &[(&str, &str)]) -> Answer {
        let headers = [&[("if-match", "\"3\"")], more].concat();
        self.send("PATCH", "", &headers, r#"{"title":"B"}"#).await
    }
}

#[tokio::test]
async fn an_edit_of_what_is_on_sale_is_answered_as_bookings_decides() {
    let stage = Stage::set().await;
    let (before, pending) = (stage.event.clone(), stage.pending(EventState::Published));
    let answer = pending.clone();
    stage
        .platform
        .query("events", UPDATE, move |q: UpdateEvent| {
            assert_eq!((q.version, q.details.title.as_str()), (3, "B"));
            Ok(Some(answer.clone()))
        })
        .await;

    let accepted = stage.changed(5, EventState::Published, None);
    stage.shows([before.clone(), pending.clone(), pending.clone(), accepted]);
    let answer = stage.patch(&[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("etag"), stage.left()), (200, "\"5\"", 1), "{}", answer.text);
    assert_eq!(answer.json()["change"], Value::Null);

    stage.shows([before.clone(), pending.clone(), stage.refused(EventState::Published, codes::BELOW_SOLD)]);
    stage.patch(&[]).await.is_problem(409, codes::BELOW_SOLD);

    // It takes longer than the client would wait.
    stage.shows([before, pending]);
    let answer = stage.patch(&[("prefer", "wait=0")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("etag")), (202, "\"4\""), "{}", answer.text);
    assert_eq!((answer.header("preference-applied"), &answer.json()["change"]), ("wait=0", &json!({"version": 4})));
}

#[tokio::test]
async fn an_edit_that_waits_for_nobody_is_answered_at_once() {
    let stage = Stage::set().await;
    // A refusal of some change before is no answer to this one.
    let edited = stage.refused(EventState::Published, codes::BELOW_SOLD);
    stage.platform.query("events", UPDATE, move |_: UpdateEvent| Ok(Some(edited.clone()))).await;
    let answer = stage.patch(&[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("etag")), (200, "\"5\""), "{}", answer.text);
}

#[tokio::test]
async fn an_edit_that_cannot_be_now_says_why() {
    let codes = [codes::CHANGE_PENDING, codes::EVENT_OVER, codes::EVENT_CANCELLED];
    let stage = Stage::set().await;
    let next = Mutex::new(codes.into_iter());
    stage
        .platform
        .query("events", UPDATE, move |_: UpdateEvent| -> Result<Option<Event>, QueryError> {
            Err(QueryError::new(next.lock().unwrap().next().unwrap(), "not now"))
        })
        .await;
    for code in codes {
        stage.patch(&[]).await.is_problem(409, code);
    }
}

#[tokio::test]
async fn an_event_goes_on_sale_off_sale_and_is_cancelled() {
    let stage = Stage::set().await;
    for (name, path, shown, to, code) in [
        (PUBLISH, "/publish", EventState::Publishing, EventState::Published, codes::EVENT_OVER),
        (STOP, "/stop", EventState::Published, EventState::Stopped, codes::HAS_BOOKINGS),
        (CANCEL, "/cancel", EventState::Published, EventState::Cancelled, codes::HAS_BOOKINGS),
    ] {
        let pending = stage.pending(shown);
        let answer = pending.clone();
        let id = stage.event.id;
        stage
            .platform
            .query("events", name, move |q: OwnEvent| match q.version {
                Some(7) => Err(QueryError::new(codes::NOT_PUBLISHED, "it is a draft")),
                _ => Ok((q.id == id).then(|| answer.clone())),
            })
            .await;
        let send = async |headers: &[(&str, &str)]| stage.send("POST", path, headers, "").await;
        let state = serde_json::to_value(to).unwrap();

        stage.shows([pending.clone(), stage.changed(5, to, None)]);
        let answer = send(&[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (200, "\"5\""), "{name} {}", answer.text);
        assert_eq!(answer.json()["state"], state, "{name}");

        stage.shows([pending.clone(), stage.refused(shown, code)]);
        send(&[]).await.is_problem(409, code);

        stage.shows([pending.clone()]);
        let answer = send(&[("prefer", "wait=0")]).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (202, "\"4\""), "{name} {}", answer.text);

        stage.shows([Event { version: 7, ..stage.event.clone() }]);
        send(&[("if-match", "\"7\"")]).await.is_problem(409, codes::NOT_PUBLISHED);
        send(&[("if-match", "\"6\"")]).await.is_problem(412, codes::VERSION_CONFLICT);
        let other = format!("/v1/events/{}{path}", EventId::fresh());
        stage.platform.gateway.send(post(&other, &stage.token, &[], &json!({}))).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn an_event_may_be_as_large_as_its_seats() {
    let stage = Stage::set().await;
    let made = stage.event.clone();
    stage
        .platform
        .query("events", CREATE, move |q: CreateEvent| {
            assert_eq!((q.details.ticket_types[0].seats.len(), q.details.max_per_customer), (10_000, Some(2)));
            Ok(made.clone())
        })
        .await;
    let body = |seats: usize| {
        let seats: Vec<String> = (0..seats).map(|seat| format!("Block {} seat {seat}", seat % 26)).collect();
        json!({
            "title": "A", "category": "concert", "timezone": "Europe/Vienna", "max_per_customer": 2,
            "starts_at": "2030-01-01T10:00:00Z", "ends_at": "2030-01-01T12:00:00Z",
            "venue": {"name": "Arena", "city": "Vienna", "country": "AT"},
            "ticket_types": [{"name": "S", "price": {"amount": 1, "currency": "EUR"}, "quantity": seats.len(), "seats": seats}],
        })
    };
    let create = async |body: &Value| stage.platform.gateway.send(post("/v1/events", &stage.token, &[], body)).await;
    let answer = create(&body(10_000)).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
    create(&body(30_000)).await.is_problem(413, "body_too_large");
    // What services would ignore is refused here, at any depth.
    for (at, field) in [("/venue", "venue.more"), ("/ticket_types/0/price", "ticket_types[0].price.more")] {
        let mut body = body(1);
        body.pointer_mut(at).unwrap()["more"] = json!(1);
        let problem = create(&body).await.is_problem(422, "validation");
        assert_eq!(
            (&problem["errors"][0]["field"], &problem["errors"][0]["code"]),
            (&json!(field), &json!("unknown_field"))
        );
    }
}
