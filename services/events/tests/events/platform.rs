//! A running service, and the orchestrator's part played by hand.

use std::time::Duration;

use eventicket_contracts::bookings::Offer;
use eventicket_contracts::envelope::{Answer, DomainEvent, Envelope, Half, Item, Key, Reply};
use eventicket_contracts::events::{
    CREATE, CreateEvent, Event, EventDetails, GET, GetEvent, NewTicketType, OwnEvent, PUBLISH, PublishEvent, Settle,
    TicketType, UPDATE, UpdateEvent, Venue, Viewer,
};
use eventicket_contracts::sagas::{AnsweredStart, PUBLISH_EVENT, StartAnswer, StartSaga};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, Currency, CustomerId, EventId, Json, Money, SagaId, Timestamp};
use eventicket_events::{DATABASE, MIGRATOR};
use eventicket_kit::Context;
use eventicket_nats::{Outgoing, QueryError, QueryFailure, command_headers};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;

pub const START: Timestamp = Timestamp(1_800_000_000_000);
pub const HOUR: Duration = Duration::from_secs(3600);
const REPLIES: &str = "reply.0";
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Platform {
    pub ctx: Context,
    pub pool: PgPool,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Platform {
    pub async fn start() -> Self {
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

    pub async fn stop(self) {
        self.ctx.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub async fn ask<A: DeserializeOwned>(&self, name: &str, query: &impl Serialize) -> Result<A, QueryFailure> {
        self.ctx.nats.query(Service::EVENTS.name(), name, query).await
    }

    pub async fn create(&self, organizer: CustomerId, details: EventDetails<NewTicketType>) -> Event {
        self.ask(CREATE, &CreateEvent { organizer, details, idempotency: None }).await.unwrap()
    }

    pub async fn get(&self, id: EventId, viewer: Viewer) -> Option<Event> {
        self.ask(GET, &GetEvent { id, viewer }).await.unwrap()
    }

    /// The event as its organizer sees it.
    pub async fn shown(&self, event: &Event) -> Event {
        self.get(event.id, organizer_of(event)).await.unwrap()
    }

    /// Publishes, stops or cancels this version of the event.
    pub async fn turn(&self, name: &str, event: &Event) -> Result<Event, QueryFailure> {
        let own = OwnEvent { id: event.id, viewer: organizer_of(event), version: Some(event.version) };
        self.ask::<Option<Event>>(name, &own).await.map(Option::unwrap)
    }

    pub async fn edit(&self, event: &Event, details: EventDetails<NewTicketType>) -> Result<Event, QueryFailure> {
        let update = UpdateEvent { id: event.id, viewer: organizer_of(event), version: event.version, details };
        self.ask::<Option<Event>>(UPDATE, &update).await.map(Option::unwrap)
    }

    /// An event on sale, begins in a day.
    pub async fn on_sale(&self, orchestrator: &mut Orchestrator) -> Event {
        let event = self.create(CustomerId::fresh(), concert(24)).await;
        self.turn(PUBLISH, &event).await.unwrap();
        self.decide(orchestrator, None).await;
        self.shown(&event).await
    }

    /// Plays the saga of the next start to its end; what was offered.
    pub async fn decide(&self, orchestrator: &mut Orchestrator, refused: Option<&str>) -> Offer {
        let (saga, offer) = orchestrator.opened().await;
        let step = if refused.is_some() { "REVERT" } else { "SETTLE" };
        let answers = self.settle(&[(key(saga, step), settlement(&offer, refused))]).await;
        assert_eq!(answers, [Answer::Done(Json::NULL)]);
        offer
    }

    /// Sends `settle` for the given rounds in one envelope; the answers in their order.
    pub async fn settle(&self, settles: &[(Key, Settle)]) -> Vec<Answer> {
        let commands: Vec<_> = settles.iter().map(|(key, settle)| (key.clone(), Half::Do, json!(settle))).collect();
        self.command("settle", &commands).await
    }

    /// Sends commands in one envelope; the answers in their order.
    pub async fn command(&self, action: &str, commands: &[(Key, Half, Value)]) -> Vec<Answer> {
        self.exchange(vec![envelope(action, commands)], commands.len()).await
    }

    /// Sends messages together, and waits for so many answers.
    pub async fn exchange(&self, messages: Vec<Outgoing>, wanted: usize) -> Vec<Answer> {
        let mut replies = self.ctx.nats.subscriber().subscribe(REPLIES).await.unwrap();
        self.ctx.nats.subscriber().flush().await.unwrap();
        for sent in self.ctx.nats.publish_all(messages).await {
            sent.unwrap();
        }
        let mut answers = Vec::new();
        while answers.len() < wanted {
            let envelope: Envelope<Reply> = next(&mut replies).await.0;
            answers.extend(envelope.items.into_iter().map(|reply| reply.answer));
        }
        answers
    }

    /// Domain events as they are told, from now on.
    pub async fn told(&self) -> Told {
        let messages = self.ctx.nats.subscriber().subscribe(subjects::EVENTS).await.unwrap();
        self.ctx.nats.subscriber().flush().await.unwrap();
        Told(messages)
    }
}

/// What is told of events.
pub struct Told(async_nats::Subscriber);

impl Told {
    /// The next one's subject and content.
    pub async fn next(&mut self) -> (String, DomainEvent) {
        let (mut envelope, message): (Envelope<DomainEvent>, _) = next(&mut self.0).await;
        assert_eq!(envelope.items.len(), 1);
        (message.subject.to_string(), envelope.items.remove(0))
    }

    /// Passes over what is told up to this.
    pub async fn until(&mut self, what: &str) {
        while self.next().await.0 != subjects::event("event", what) {}
    }
}

/// Answers starts.
pub struct Orchestrator {
    client: async_nats::Client,
    starts: async_nats::Subscriber,
}

impl Orchestrator {
    pub async fn of(platform: &Platform) -> Self {
        let client = platform.ctx.nats.subscriber().clone();
        let starts = client.queue_subscribe(subjects::START, "orchestrator".into()).await.unwrap();
        client.flush().await.unwrap();
        Self { client, starts }
    }

    /// The next start, answered as `answer` says; its saga and what it offers.
    pub async fn asked(&mut self, answer: impl FnOnce(SagaId) -> StartAnswer) -> (SagaId, Offer) {
        let (mut asked, message): (Envelope<StartSaga>, _) = next(&mut self.starts).await;
        let start = asked.items.pop().unwrap();
        let PublishEvent { offer } = start.input.read().unwrap();
        assert_eq!((start.definition.as_str(), start.event), (PUBLISH_EVENT, Some(offer.event)));
        let answer = AnsweredStart { id: start.id, answer: answer(start.id) };
        let answer = serde_json::to_vec(&Envelope::new(vec![answer])).unwrap();
        self.client.publish(message.reply.unwrap(), answer.into()).await.unwrap();
        (start.id, offer)
    }

    /// The next start, which is accepted.
    pub async fn opened(&mut self) -> (SagaId, Offer) {
        self.asked(|id| StartAnswer::Started { id, created: true, view: Json::NULL }).await
    }
}

pub async fn next<T: DeserializeOwned>(
    messages: &mut (impl Stream<Item = async_nats::Message> + Unpin),
) -> (T, async_nats::Message) {
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("a message").unwrap();
    (serde_json::from_slice(&message.payload).unwrap(), message)
}

/// A message with these commands.
pub fn envelope(action: &str, commands: &[(Key, Half, Value)]) -> Outgoing {
    let item = |(key, half, body): &(Key, Half, Value)| Item {
        key: key.clone(),
        half: *half,
        attempt: 1,
        deadline: None,
        trace: None,
        body: Json::of(body).unwrap(),
    };
    Outgoing {
        subject: subjects::command(Service::EVENTS, action, 0),
        id: uuid::Uuid::now_v7().to_string(),
        headers: command_headers(REPLIES, None),
        payload: serde_json::to_vec(&Envelope::new(commands.iter().map(item).collect())).unwrap().into(),
    }
}

pub fn key(saga: SagaId, step: &str) -> Key {
    Key { saga, step: step.into(), round: 1 }
}

pub fn settlement(offer: &Offer, refused: Option<&str>) -> Settle {
    Settle { event: offer.event, version: offer.version, refused: refused.map(Into::into) }
}

pub fn organizer_of(event: &Event) -> Viewer {
    Viewer::Organizer(event.organizer_id)
}

pub fn kind(name: &str, amount: i64) -> NewTicketType {
    let price = Money { amount, currency: Currency::EUR };
    NewTicketType { id: None, name: name.into(), price, quantity: 100, max_per_order: Some(4), seats: Vec::new() }
}

/// An event of two hours that begins so many hours after [`START`].
pub fn concert(in_hours: u32) -> EventDetails<NewTicketType> {
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

pub fn kept(kind: &TicketType) -> NewTicketType {
    NewTicketType {
        id: Some(kind.id),
        name: kind.name.clone(),
        price: kind.price,
        quantity: kind.quantity,
        max_per_order: kind.max_per_order,
        seats: kind.seats.clone(),
    }
}

/// The details of an event as they are written.
pub fn written(event: &Event) -> EventDetails<NewTicketType> {
    let details = event.details.clone();
    EventDetails {
        title: details.title,
        description: details.description,
        category: details.category,
        starts_at: details.starts_at,
        ends_at: details.ends_at,
        timezone: details.timezone,
        venue: details.venue,
        ticket_types: event.details.ticket_types.iter().map(kept).collect(),
        hold_seconds: details.hold_seconds,
        max_per_customer: details.max_per_customer,
    }
}

/// The same at another price.
pub fn dearer(event: &Event) -> EventDetails<NewTicketType> {
    let mut details = written(event);
    details.ticket_types[0].price.amount += 100;
    details
}

pub fn refused<T>(answer: Result<T, QueryFailure>) -> QueryError {
    match answer.err().expect("a refusal") {
        QueryFailure::Refused(error) => error,
        other => panic!("not a refusal: {other}"),
    }
}
