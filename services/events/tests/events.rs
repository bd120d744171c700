//! The service over NATS, with PostgreSQL. The orchestrator's part is the wire's contract: it answers starts, sends
//! `settle`, and gets replies.

use std::collections::HashSet;
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, DomainEvent, Envelope, Half, Item, Key, Reply};
use eventicket_contracts::events::{
    CREATE, CreateEvent, DELETE, Event, EventCursor, EventDetails, EventPage, EventPublished, EventState, GET,
    GetEvent, LIST, ListEvents, NewTicketType, OwnEvent, PUBLISH, PublishEvent, Settle, TicketType, UPDATE,
    UpdateEvent, Venue, Viewer,
};
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{PUBLISH_EVENT, StartAnswer, StartSaga};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, Currency, CustomerId, EventId, Money, SagaId, Timestamp, codes};
use eventicket_events::{DATABASE, MIGRATOR};
use eventicket_kit::Context;
use eventicket_nats::{Outgoing, QueryError, QueryFailure, command_headers};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::{JoinHandle, JoinSet};

const START: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const REPLIES: &str = "reply.0";

struct Platform {
    ctx: Context,
    pool: PgPool,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Platform {
    async fn start() -> Self {
        let world = eventicket_testkit::world().await;
        let url = world.database(DATABASE, &MIGRATOR).await;
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
        let mut ctx = ctx.with_settings(|settings| settings.database_prefix.clone_from(&world.prefix));
        ctx.clock = Clock::manual(START);
        let running = tokio::spawn(eventicket_events::run(ctx.clone()));
        let platform = Self { ctx, pool: PgPool::connect(&url).await.unwrap(), running };
        let nobody = GetEvent { id: EventId::fresh(), viewer: Viewer::Public };
        while platform.ask::<Option<Event>>(GET, &nobody).await.is_err_and(|e| e == QueryFailure::NobodyAnswers) {
            assert!(!platform.running.is_finished(), "the service ended");
            tokio::task::yield_now().await;
        }
        platform
    }

    async fn stop(self) {
        self.ctx.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    async fn ask<A: DeserializeOwned>(&self, name: &str, query: &impl Serialize) -> Result<A, QueryFailure> {
        self.ctx.nats.query(Service::EVENTS.name(), name, query).await
    }

    async fn create(&self, organizer: CustomerId, details: EventDetails<NewTicketType>) -> Event {
        self.ask(CREATE, &CreateEvent { organizer, details, idempotency: None }).await.unwrap()
    }

    async fn get(&self, id: EventId, viewer: Viewer) -> Option<Event> {
        self.ask(GET, &GetEvent { id, viewer }).await.unwrap()
    }

    async fn publish(&self, event: &Event) -> Result<Option<Event>, QueryFailure> {
        let own = OwnEvent { id: event.id, viewer: organizer_of(event), version: Some(event.version) };
        self.ask(PUBLISH, &own).await
    }

    /// Sends `settle` for the given rounds in one envelope; the answers in their order.
    async fn settle(&self, settles: &[(Key, Half, Settle)]) -> Vec<Answer> {
        let mut replies = self.ctx.nats.subscriber().subscribe(REPLIES).await.unwrap();
        self.ctx.nats.subscriber().flush().await.unwrap();
        let item = |(key, half, settle): &(Key, Half, Settle)| Item {
            key: key.clone(),
            half: *half,
            attempt: 1,
            deadline: None,
            trace: None,
            body: serde_json::value::to_raw_value(settle).unwrap(),
        };
        let message = Outgoing {
            subject: subjects::command(Service::EVENTS, "settle", 0),
            id: uuid::Uuid::now_v7().to_string(),
            headers: command_headers(REPLIES, None),
            payload: serde_json::to_vec(&Envelope::new(settles.iter().map(item).collect())).unwrap().into(),
        };
        for sent in self.ctx.nats.publish_all(vec![message]).await {
            sent.unwrap();
        }
        let mut answers = Vec::new();
        while answers.len() < settles.len() {
            let envelope: Envelope<Reply> = next(&mut replies).await.0;
            answers.extend(envelope.items.into_iter().map(|reply| reply.answer));
        }
        answers
    }
}

async fn next<T: DeserializeOwned>(
    messages: &mut (impl Stream<Item = async_nats::Message> + Unpin),
) -> (T, async_nats::Message) {
    let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await.expect("a message").unwrap();
    (serde_json::from_slice(&message.payload).unwrap(), message)
}

fn organizer_of(event: &Event) -> Viewer {
    Viewer::Organizer(event.organizer_id)
}

fn kind(name: &str, amount: i64) -> NewTicketType {
    let price = Money { amount, currency: Currency::EUR };
    NewTicketType { id: None, name: name.into(), price, quantity: 100, max_per_order: Some(4) }
}

fn concert(in_hours: u32) -> EventDetails<NewTicketType> {
    EventDetails {
        title: "Midsummer Concert".into(),
        description: String::new(),
        category: "concert".into(),
        starts_at: START.plus(HOUR * in_hours),
        ends_at: START.plus(HOUR * (in_hours + 2)),
        timezone: "Europe/Vienna".into(),
        venue: Venue {
            name: "Arena".into(),
            address: None,
            city: "Vienna".into(),
            country: "AT".into(),
            latitude: Some(48.2),
            longitude: Some(16.4),
        },
        ticket_types: vec![kind("Standing", 4200), kind("Seated", 6000)],
        hold_seconds: Some(300),
        max_per_customer: None,
    }
}

fn kept(kind: &TicketType) -> NewTicketType {
    NewTicketType {
        id: Some(kind.id),
        name: kind.name.clone(),
        price: kind.price,
        quantity: kind.quantity,
        max_per_order: kind.max_per_order,
    }
}

fn refused<T>(answer: Result<T, QueryFailure>) -> QueryError {
    match answer.err().expect("a refusal") {
        QueryFailure::Refused(error) => error,
        other => panic!("not a refusal: {other}"),
    }
}

#[tokio::test]
async fn a_draft_is_its_organizers_alone() {
    let platform = Platform::start().await;
    let organizer = CustomerId::fresh();
    let event = platform.create(organizer, concert(24)).await;
    assert_eq!((event.state, event.version, event.organizer_id), (EventState::Draft, 1, organizer));
    let ids: HashSet<_> = event.details.ticket_types.iter().map(|kind| kind.id).collect();
    assert_eq!(ids.len(), 2);

    let other = Viewer::Organizer(CustomerId::fresh());
    for (viewer, sees) in [(Viewer::Public, false), (other, false), (organizer_of(&event), true), (Viewer::Admin, true)]
    {
        assert_eq!(platform.get(event.id, viewer).await.is_some(), sees, "{viewer:?}");
    }
    assert_eq!(platform.get(event.id, Viewer::Admin).await.unwrap(), event);
    for name in [DELETE, PUBLISH] {
        let own = OwnEvent { id: event.id, viewer: other, version: None };
        assert!(platform.ask::<Option<Value>>(name, &own).await.unwrap().is_none());
    }
    let update = UpdateEvent { id: event.id, viewer: other, version: 1, details: concert(1) };
    assert!(platform.ask::<Option<Event>>(UPDATE, &update).await.unwrap().is_none());
    platform.stop().await;
}

#[tokio::test]
async fn a_draft_is_edited_under_its_version_and_deleted() {
    let platform = Platform::start().await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    let viewer = organizer_of(&event);
    let mut details = concert(48);
    details.ticket_types = vec![kept(&event.details.ticket_types[1]), kind("Balcony", 9000)];
    let update = |version, details| UpdateEvent { id: event.id, viewer, version, details };
    let edited: Option<Event> = platform.ask(UPDATE, &update(1, details.clone())).await.unwrap();
    let edited = edited.unwrap();
    assert_eq!((edited.version, edited.details.starts_at), (2, START.plus(HOUR * 48)));
    let types = &edited.details.ticket_types;
    assert_eq!(types[0].id, event.details.ticket_types[1].id);
    assert!(event.details.ticket_types.iter().all(|kind| kind.id != types[1].id));
    assert_eq!(platform.get(event.id, viewer).await.unwrap(), edited);

    let conflict = platform.ask::<Option<Event>>(UPDATE, &update(1, details.clone())).await;
    assert_eq!(refused(conflict).code, codes::VERSION_CONFLICT);
    details.ticket_types[1].id = Some(event.details.ticket_types[0].id);
    let unknown = refused(platform.ask::<Option<Event>>(UPDATE, &update(2, details)).await);
    assert_eq!(unknown.code, codes::VALIDATION);
    assert_eq!(unknown.details.unwrap()[0]["field"], "ticket_types[1].id");

    let own = |version| OwnEvent { id: event.id, viewer, version };
    assert_eq!(refused(platform.ask::<Option<bool>>(DELETE, &own(Some(1))).await).code, codes::VERSION_CONFLICT);
    assert_eq!(platform.ask::<Option<bool>>(DELETE, &own(Some(2))).await.unwrap(), Some(true));
    assert_eq!(platform.ask::<Option<bool>>(DELETE, &own(None)).await.unwrap(), None);
    assert_eq!(platform.get(event.id, viewer).await, None);
    platform.stop().await;
}

#[tokio::test]
async fn rule_14_publishing_opens_a_saga_until_it_is_answered_and_settle_ends_it() {
    let platform = Platform::start().await;
    let mut told = platform.ctx.nats.subscriber().subscribe(subjects::EVENTS).await.unwrap();
    platform.ctx.nats.subscriber().flush().await.unwrap();
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    let publishing = platform.publish(&event).await.unwrap().unwrap();
    assert_eq!((publishing.state, publishing.version), (EventState::Publishing, 2));
    assert_eq!(platform.publish(&event).await.unwrap().unwrap(), publishing, "a repeat changes nothing");
    assert_eq!(platform.get(event.id, Viewer::Public).await, None);

    // Nobody has answered so far; the first to answer is busy.
    let mut starts =
        platform.ctx.nats.subscriber().queue_subscribe(subjects::START, "orchestrator".into()).await.unwrap();
    let mut ids = Vec::new();
    for answer in
        [StartAnswer::Busy { retry_after_ms: 1 }, StartAnswer::Refused { code: String::new(), message: String::new() }]
    {
        let (start, message): (StartSaga, _) = next(&mut starts).await;
        let input: PublishEvent = serde_json::from_value(start.input).unwrap();
        let offer = input.offer;
        assert_eq!((start.definition.as_str(), start.event), (PUBLISH_EVENT, Some(event.id)));
        assert_eq!((offer.event, offer.version, offer.on_sale, offer.ticket_types.len()), (event.id, 2, true, 2));
        ids.push(start.id);
        let answer = match answer {
            StartAnswer::Refused { .. } => StartAnswer::Started { id: start.id, created: true, view: Value::Null },
            busy => busy,
        };
        let answer = serde_json::to_vec(&answer).unwrap();
        platform.ctx.nats.publisher().publish(message.reply.unwrap(), answer.into()).await.unwrap();
    }
    assert_eq!(ids[0], ids[1], "a repeat is the same saga");

    let key = Key { saga: ids[0], step: "SETTLE".into(), round: 1 };
    let settle = (key, Half::Do, Settle { event: event.id, version: 2 });
    let answers = platform.settle(&[settle.clone(), settle.clone()]).await;
    assert_eq!(answers, [Answer::Done(Value::Null), Answer::Done(Value::Null)]);
    assert_eq!(platform.settle(&[settle]).await, [Answer::Done(Value::Null)]);
    let published = platform.get(event.id, Viewer::Public).await.unwrap();
    assert_eq!((published.state, published.version), (EventState::Published, 3));
    assert_eq!(platform.publish(&event).await.unwrap().unwrap(), published);

    let (created, message): (Envelope<DomainEvent>, _) = next(&mut told).await;
    assert_eq!((message.subject.as_str(), created.items[0].version), ("evt.event.created", 1));
    let (done, message): (Envelope<DomainEvent>, _) = next(&mut told).await;
    assert_eq!((message.subject.as_str(), done.items.len(), done.items[0].version), ("evt.event.published", 1, 3));
    let payload: EventPublished = serde_json::from_value(done.items[0].data.clone()).unwrap();
    assert_eq!((payload.event, payload.saga), (published.clone(), ids[0]));
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&platform.pool).await.unwrap();
    assert_eq!(rows, 2, "each change is told once");

    let own = OwnEvent { id: event.id, viewer: organizer_of(&event), version: None };
    assert_eq!(refused(platform.ask::<Option<bool>>(DELETE, &own).await).code, codes::NOT_DRAFT);
    let update = UpdateEvent { id: event.id, viewer: Viewer::Admin, version: 3, details: concert(24) };
    assert_eq!(refused(platform.ask::<Option<Event>>(UPDATE, &update).await).code, codes::NOT_DRAFT);
    platform.stop().await;
}

#[tokio::test]
async fn a_publication_that_is_refused_leaves_the_draft() {
    let platform = Platform::start().await;
    let mut told = platform.ctx.nats.subscriber().subscribe(subjects::event("event", "updated")).await.unwrap();
    let mut starts =
        platform.ctx.nats.subscriber().queue_subscribe(subjects::START, "orchestrator".into()).await.unwrap();
    platform.ctx.nats.subscriber().flush().await.unwrap();
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    platform.publish(&event).await.unwrap();
    let (_, message): (StartSaga, _) = next(&mut starts).await;
    let answer = StartAnswer::Refused { code: "unknown_definition".into(), message: "none of that name".into() };
    let answer = serde_json::to_vec(&answer).unwrap();
    platform.ctx.nats.publisher().publish(message.reply.unwrap(), answer.into()).await.unwrap();
    let (updated, _): (Envelope<DomainEvent>, _) = next(&mut told).await;
    assert_eq!(updated.items[0].version, 3);
    let draft = platform.get(event.id, organizer_of(&event)).await.unwrap();
    assert_eq!((draft.state, draft.version), (EventState::Draft, 3));

    // What is over cannot be published, and an old version conflicts.
    assert_eq!(refused(platform.publish(&event).await).code, codes::VERSION_CONFLICT);
    platform.ctx.clock.advance(HOUR * 24);
    assert_eq!(refused(platform.publish(&draft).await).code, codes::EVENT_OVER);
    platform.stop().await;
}

#[tokio::test]
async fn settle_refuses_what_is_not_under_way_and_has_no_undo() {
    let platform = Platform::start().await;
    let draft = platform.create(CustomerId::fresh(), concert(24)).await;
    let key = || Key { saga: SagaId::fresh(), step: "SETTLE".into(), round: 1 };
    let settle = |event, half| (key(), half, Settle { event, version: 1 });
    let answers = platform
        .settle(&[settle(draft.id, Half::Do), settle(EventId::fresh(), Half::Do), settle(draft.id, Half::Undo)])
        .await;
    for answer in &answers[..2] {
        let Answer::Rejected(rejection) = answer else { panic!("{answer:?}") };
        assert_eq!(rejection.code, codes::STALE_VERSION);
    }
    assert!(matches!(&answers[2], Answer::Dead(_)));
    assert_eq!(platform.get(draft.id, Viewer::Admin).await.unwrap(), draft);
    platform.stop().await;
}

#[tokio::test]
async fn a_creation_is_repeated_under_its_key() {
    let platform = std::sync::Arc::new(Platform::start().await);
    let (organizer, other) = (CustomerId::fresh(), CustomerId::fresh());
    let create = |organizer, fingerprint: &str| CreateEvent {
        organizer,
        details: concert(1),
        idempotency: Some(Idempotency { key: "k".into(), fingerprint: fingerprint.into() }),
    };
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (platform, create) = (platform.clone(), create(organizer, "f"));
        all.spawn(async move { platform.ask::<Event>(CREATE, &create).await.unwrap() });
    }
    let events = all.join_all().await;
    assert!(events.iter().all(|event| *event == events[0]));
    let again = platform.ask::<Event>(CREATE, &create(organizer, "other")).await;
    assert_eq!(refused(again).code, codes::KEY_REUSED);
    assert_ne!(platform.ask::<Event>(CREATE, &create(other, "f")).await.unwrap().id, events[0].id);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&platform.pool).await.unwrap();
    assert_eq!(count, 2);

    // The recorded answer comes before the look at the details, which have begun by now; after a day it is forgotten.
    platform.ctx.clock.advance(HOUR * 24 - Duration::from_millis(1));
    assert_eq!(platform.ask::<Event>(CREATE, &create(organizer, "f")).await.unwrap(), events[0]);
    platform.ctx.clock.advance(Duration::from_millis(1));
    assert_eq!(refused(platform.ask::<Event>(CREATE, &create(organizer, "f")).await).code, codes::VALIDATION);
    std::sync::Arc::into_inner(platform).unwrap().stop().await;
}

async fn pages(platform: &Platform, viewer: Viewer, mine: bool, category: Option<&str>) -> Vec<Vec<EventId>> {
    let mut pages = Vec::new();
    let mut cursor: Option<EventCursor> = None;
    loop {
        let list = ListEvents { viewer, mine, category: category.map(Into::into), limit: 2, cursor };
        let page: EventPage = platform.ask(LIST, &list).await.unwrap();
        pages.push(page.items.iter().map(|event| event.id).collect());
        cursor = page.next;
        if cursor.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn lists_are_paged_by_start_and_show_what_the_viewer_may_see() {
    let platform = Platform::start().await;
    let (ada, bob) = (CustomerId::fresh(), CustomerId::fresh());
    let mut ids = Vec::new();
    // Two begin at the same time; the first is over when the list is read.
    for (organizer, hours) in [(ada, 1), (ada, 10), (bob, 10), (ada, 20), (bob, 30)] {
        ids.push(platform.create(organizer, concert(hours)).await.id);
    }
    let mut draft = concert(15);
    draft.category = "theatre".into();
    let draft = platform.create(ada, draft).await.id;
    sqlx::query("UPDATE events SET state = 'published' WHERE id <> $1")
        .bind(draft.0)
        .execute(&platform.pool)
        .await
        .unwrap();
    platform.ctx.clock.advance(HOUR * 3);

    let [over, a10, b10, a20, b30] = ids[..] else { unreachable!() };
    assert_eq!(pages(&platform, Viewer::Public, false, None).await, [vec![a10, b10], vec![a20, b30]]);
    let seen_by_ada = pages(&platform, Viewer::Organizer(ada), false, None).await;
    assert_eq!(seen_by_ada, [vec![a10, b10], vec![draft, a20], vec![b30]]);
    assert_eq!(pages(&platform, Viewer::Organizer(ada), true, None).await, [vec![over, a10], vec![draft, a20]]);
    assert_eq!(pages(&platform, Viewer::Admin, false, None).await.concat(), [over, a10, b10, draft, a20, b30]);
    assert_eq!(pages(&platform, Viewer::Admin, false, Some("theatre")).await, [vec![draft]]);
    assert_eq!(pages(&platform, Viewer::Public, false, Some("theatre")).await, [Vec::new()]);
    assert_eq!(pages(&platform, Viewer::Public, true, None).await, [Vec::new()]);
    platform.stop().await;
}
