use super::platform::Platform;
use super::*;
use eventicket_contracts::events::{self, Event, EventPage, GetEvent, ListEvents, UpdateEvent, Viewer};
use eventicket_contracts::identity::{LOGIN, Login, Tokens, USERS, User};
use eventicket_contracts::{EventId, TicketTypeId, codes};
use eventicket_nats::QueryError;

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
