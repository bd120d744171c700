use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::platform::Platform;
use super::*;
use eventicket_contracts::bookings::{TICKETS, Ticket, TicketsQuery};
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{
    Act, ActAnswer, Action, BookedItem, BookingStatus, BookingView, GET_BOOKINGS, GetBooking, InFlight, RefundStatus,
    StartAnswer, StartSaga,
};
use eventicket_contracts::{BookingId, EventId, SagaId, TicketTypeId, codes, subjects};
use futures::StreamExt as _;

impl Platform {
    /// Keeps bookings as the orchestrator's query shows them.
    async fn bookings(&self) -> Arc<Mutex<Vec<BookingView>>> {
        let kept: Arc<Mutex<Vec<BookingView>>> = Arc::default();
        let shown = kept.clone();
        self.query("orchestrator", GET_BOOKINGS, move |queries: Vec<GetBooking>| {
            let shown = shown.lock().unwrap();
            let one = |q: &GetBooking| {
                let mine = |b: &&BookingView| b.id == q.id && q.owner.is_none_or(|o| o == b.customer_id);
                shown.iter().find(mine).cloned()
            };
            // Not all fit into one answer.
            Ok(queries.iter().take(100).map(one).collect::<Vec<_>>())
        })
        .await;
        kept
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
    StartAnswer::Started { id: start.id, created, view: serde_json::to_value(view).unwrap().into() }
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
            assert_eq!(
                seal.open(ada, start.input.value()["method"].as_str().unwrap()).as_deref(),
                Some("pm_card_visa")
            );
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
async fn many_looks_are_answered_each_with_its_own_booking() {
    let platform = Platform::start().await;
    let bookings = platform.bookings().await;
    let mine: Vec<(BookingId, String)> = (0..300)
        .map(|_| {
            let (customer, token) = platform.customer();
            let id = SagaId::fresh();
            bookings.lock().unwrap().push(view(id, customer, BookingStatus::Confirmed));
            (id, token)
        })
        .collect();
    let looks = mine.iter().enumerate().map(async |(n, (id, token))| {
        let other = &mine[(n + 1) % mine.len()].0;
        let look = async |id: &BookingId| platform.gateway.send(get(&format!("/v1/bookings/{id}"), token)).await;
        let (own, foreign) = tokio::join!(look(id), look(other));
        assert_eq!(own.json()["id"], id.to_string());
        foreign.is_problem(404, "not_found");
    });
    futures::future::join_all(looks).await;
}

#[tokio::test]
async fn rule_12_what_would_find_no_room_is_refused_at_the_door() {
    let platform = Platform::start().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    platform
        .answer_starts(move |start: StartSaga| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(started(&start, true))
        })
        .await;
    // Payments is full to the last ten places.
    let commands = [("bookings", 100), ("payments", 890)].map(|(name, n)| (name.to_owned(), n));
    platform.tell_in_flight(&InFlight { limit: 1_000, commands: commands.into(), askers: 1 }).await;
    let mut free = order();
    free.as_object_mut().unwrap().remove("payment_method");
    for (body, accepted) in [(order(), 10), (free, 300)] {
        let before = asked.load(Ordering::Relaxed);
        let requests = (0..300).map(async |_| {
            let (_, token) = platform.customer();
            platform.gateway.send(post("/v1/bookings", &token, &[KEY], &body)).await
        });
        let answers = futures::future::join_all(requests).await;
        let (admitted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == StatusCode::ACCEPTED);
        assert_eq!((admitted.len(), asked.load(Ordering::Relaxed) - before), (accepted, accepted));
        for refused in refused {
            refused.is_problem(429, "busy");
            assert_eq!(refused.header("retry-after"), "1");
        }
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
        view: serde_json::to_value(view(id, customer, BookingStatus::Cancelled)).unwrap().into(),
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
            let method = seal.open(ada, payload.value()["method"].as_str().unwrap()).unwrap();
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
            Some(ActAnswer::Done { view: view.into(), repeated })
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
