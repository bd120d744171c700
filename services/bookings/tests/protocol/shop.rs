//! Replicas of the service on real servers, and what tests say to them.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use eventicket_bookings::audit;
use eventicket_bookings::{DATABASE, MIGRATOR};
use eventicket_contracts::bookings::{
    AVAILABILITY, Availability, AvailabilityQuery, Confirm, Offer, OfferedType, Release, Reserve, ReserveItem,
    Reserved, TICKETS, Ticket, TicketsQuery,
};
use eventicket_contracts::envelope::{Answer, DomainEvent, Envelope, Fence, Half, Item, Key, Reply};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, Currency, CustomerId, EventId, Json, Money, SagaId, TicketTypeId, Timestamp};
use eventicket_kit::Context;
use eventicket_nats::{Nats, Outgoing, command_headers};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(30);
const REPLY: &str = "reply.0";

/// A command to be published.
#[derive(Clone)]
pub struct Sent {
    pub action: &'static str,
    pub item: Item,
}

pub struct Shop {
    ctx: Context,
    pub pool: PgPool,
    pub clock: Clock,
    pub event: EventId,
    pub kind: TicketTypeId,
    replicas: JoinSet<anyhow::Result<()>>,
    replies: PullConsumer,
    events: PullConsumer,
}

impl Shop {
    /// A shop of so many replicas, with a clock that stands still, that sells so many tickets.
    pub async fn open(replicas: usize, quantity: u32) -> Self {
        Self::open_with(replicas, |offer| offer.ticket_types[0].quantity = quantity).await
    }

    /// A shop with such an offer.
    pub async fn open_with(replicas: usize, offered: impl FnOnce(&mut Offer)) -> Self {
        let world = eventicket_testkit::world().await;
        let pool = PgPool::connect(&world.database(DATABASE, &MIGRATOR).await).await.unwrap();
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
        let mut ctx = ctx.with_settings(|s| s.database_prefix = world.prefix.clone());
        let clock = Clock::manual(Clock::system().now());
        ctx.clock = clock.clone();
        let mut running = JoinSet::new();
        for _ in 0..replicas {
            running.spawn(eventicket_bookings::run(ctx.clone()));
        }
        let replies = consumer(&ctx, subjects::REPLIES_STREAM).await;
        let events = consumer(&ctx, subjects::EVENTS_STREAM).await;
        let (event, kind) = (EventId::fresh(), TicketTypeId::fresh());
        let shop = Self { ctx, pool, clock, event, kind, replicas: running, replies, events };
        let answer = shop.ask(shop.offer_with(1, offered)).await;
        assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
        shop
    }

    /// A hundred tickets of one type.
    pub fn offer_of(&self, version: i64) -> Offer {
        Offer {
            event: self.event,
            version,
            title: "Midsummer Concert".into(),
            starts_at: self.clock.now().plus(Duration::from_secs(86_400)),
            ends_at: self.clock.now().plus(Duration::from_secs(90_000)),
            on_sale: true,
            cancelled: false,
            hold_seconds: None,
            max_per_customer: None,
            ticket_types: vec![offered(self.kind, "Standing", 100)],
        }
    }

    pub fn offer(&self, version: i64, quantity: u32) -> Sent {
        self.offer_with(version, |offer| offer.ticket_types[0].quantity = quantity)
    }

    pub fn offer_with(&self, version: i64, change: impl FnOnce(&mut Offer)) -> Sent {
        let mut offer = self.offer_of(version);
        change(&mut offer);
        sent("offer", Half::Do, key(SagaId::fresh(), "OFFER"), &offer)
    }

    pub fn order(&self, quantity: u32) -> Reserve {
        Reserve {
            event: self.event,
            customer: CustomerId::fresh(),
            items: vec![ReserveItem { ticket_type: self.kind, quantity, seats: vec![] }],
            expected_total: None,
            hold_seconds: 600,
            grace_seconds: 90,
        }
    }

    pub fn reserve(&self, saga: SagaId, quantity: u32) -> Sent {
        self.reserve_order(saga, &self.order(quantity))
    }

    pub fn reserve_order(&self, saga: SagaId, order: &Reserve) -> Sent {
        sent("reserve", Half::Do, key(saga, "RESERVE"), order)
    }

    /// An order of these seats of the shop's type.
    pub fn reserve_seats(&self, saga: SagaId, seats: &[impl ToString]) -> Sent {
        let mut order = self.order(u32::try_from(seats.len()).unwrap());
        order.items[0].seats = seats.iter().map(ToString::to_string).collect();
        self.reserve_order(saga, &order)
    }

    pub fn reserve_for(&self, customer: CustomerId, quantity: u32) -> Sent {
        self.reserve_order(SagaId::fresh(), &Reserve { customer, ..self.order(quantity) })
    }

    pub fn release(&self, saga: SagaId, reason: &str) -> Sent {
        let release = Release { event: self.event, reason: reason.to_owned() };
        sent("release", Half::Undo, key(saga, "RESERVE"), &release)
    }

    /// A fence of this number around the round of a command.
    pub fn fence(&self, of: &Sent, id: u32, undo: bool) -> Sent {
        let body = of.item.body.read().unwrap();
        let fence = Fence { id, action: of.action.to_owned(), undo, body };
        sent("fence", Half::Fence, of.item.key.clone(), &fence)
    }

    pub fn confirm(&self, saga: SagaId) -> Sent {
        let confirm = Confirm { event: self.event, hold_step: "RESERVE".into(), hold_round: 1 };
        sent("confirm", Half::Do, key(saga, "CONFIRM"), &confirm)
    }

    /// Publishes commands in this order: neighbours of one action share an envelope, up to `most`.
    pub async fn send(&self, commands: &[Sent], most: usize) {
        let mut messages = Vec::new();
        for run in commands.chunk_by(|a, b| a.action == b.action) {
            for items in run.chunks(most) {
                let envelope = Envelope::new(items.iter().map(|sent| sent.item.clone()).collect());
                messages.push(Outgoing {
                    subject: subjects::command(Service::BOOKINGS, items[0].action, 0),
                    id: Uuid::new_v4().to_string(),
                    headers: command_headers(REPLY, None),
                    payload: serde_json::to_vec(&envelope).unwrap().into(),
                });
            }
        }
        for result in self.ctx.nats.publish_all(messages).await {
            result.unwrap();
        }
    }

    /// Waits for so many replies.
    pub async fn replies(&self, count: usize) -> Vec<Reply> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(next::<Reply>(&self.replies).await);
        }
        assert_eq!(all.len(), count, "each command is answered once");
        all
    }

    /// Sends commands and waits for the answers, by round and half.
    pub async fn ask_all(&self, commands: &[Sent], most: usize) -> HashMap<(Key, Half), Vec<Answer>> {
        self.send(commands, most).await;
        let mut answers: HashMap<_, Vec<Answer>> = HashMap::new();
        for reply in self.replies(commands.len()).await {
            answers.entry((reply.key, reply.half)).or_default().push(reply.answer);
        }
        answers
    }

    pub async fn ask(&self, command: Sent) -> Answer {
        self.send(&[command], 1).await;
        self.replies(1).await.remove(0).answer
    }

    /// Events of the platform, with their subjects, until all that is waited for is among them.
    pub async fn events_until(&self, enough: impl Fn(&[(String, DomainEvent)]) -> bool) -> Vec<(String, DomainEvent)> {
        let mut all: Vec<(String, DomainEvent)> = Vec::new();
        loop {
            let (subject, envelope) = next_of::<DomainEvent>(&self.events).await;
            for event in envelope {
                all.push((subject.clone(), event));
            }
            if enough(&all) {
                return all;
            }
        }
    }

    pub async fn tickets(&self, booking: SagaId, customer: Option<CustomerId>) -> Vec<Ticket> {
        self.query(TICKETS, &TicketsQuery { booking, customer }).await
    }

    pub async fn availability(&self) -> Availability {
        let answer: Option<Availability> = self.query(AVAILABILITY, &AvailabilityQuery { event: self.event }).await;
        answer.unwrap()
    }

    /// Tickets of the shop's first type that are left.
    pub async fn available(&self) -> u32 {
        self.availability().await.ticket_types[0].available
    }

    /// Its free seats, in a row.
    pub async fn free_seats(&self) -> String {
        self.availability().await.ticket_types[0].free_seats.as_ref().unwrap().join(" ")
    }

    async fn query<A: DeserializeOwned>(&self, name: &str, query: &impl Serialize) -> A {
        self.ctx.nats.query(Service::BOOKINGS.name(), name, query).await.unwrap()
    }

    pub fn nats(&self) -> &Nats {
        &self.ctx.nats
    }

    pub async fn dead_letters(&self) -> u64 {
        let dead = self.ctx.nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
        dead.cached_info().state.messages
    }

    /// Stops the replicas and checks that what is left is sound.
    pub async fn close(mut self) {
        for figures in audit::types(&self.pool).await.unwrap() {
            assert!(figures.is_sound(), "{figures:?}");
        }
        for figures in audit::seats(&self.pool).await.unwrap() {
            assert!(figures.is_sound(), "{figures:?}");
        }
        assert_eq!(audit::over_limit(&self.pool).await.unwrap(), []);
        self.ctx.shutdown.cancel();
        while let Some(ended) = self.replicas.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    /// The same, and no transaction was rolled back: none met a deadlock, a lock time-out or a unique key.
    pub async fn close_calm(self) {
        let pool = self.pool.clone();
        self.close().await;
        // What a connection did is counted at the latest when it ends.
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''";
        let counted = async {
            while sqlx::query_scalar::<_, i64>(others).fetch_one(&pool).await.unwrap() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("the replicas' connections end");
        let rolled_back = sqlx::query_as::<_, (i64, i64, i64)>(
            "SELECT xact_rollback, deadlocks, xact_commit FROM pg_stat_database WHERE datname = current_database()",
        );
        let (rolled_back, deadlocks, committed) = rolled_back.fetch_one(&pool).await.unwrap();
        assert_eq!((rolled_back, deadlocks), (0, 0));
        assert!(committed > 10, "{committed} transactions were counted");
    }

    /// Waits until so many of the replicas' transactions wait for a lock of a saga.
    pub async fn waiting(&self, count: i64) {
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
        let reached = async {
            while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&self.pool).await.unwrap() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("a command waits for its saga's lock");
    }
}

pub fn sagas(count: usize) -> Vec<SagaId> {
    (0..count).map(|_| SagaId::fresh()).collect()
}

/// How often each answer was given.
pub fn count<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for answer in answers {
        *counts.entry(told(answer).to_owned()).or_default() += 1;
    }
    counts
}

/// A type as it is offered.
pub fn offered(id: TicketTypeId, name: &str, quantity: u32) -> OfferedType {
    let price = Money { amount: 4_200, currency: Currency::EUR };
    OfferedType { id, name: name.into(), price, quantity, max_per_order: Some(5), seats: vec![] }
}

/// Makes the first type of an offer a numbered one.
pub fn numbered(offer: &mut Offer, labels: &[impl ToString]) {
    let kind = &mut offer.ticket_types[0];
    kind.seats = labels.iter().map(ToString::to_string).collect();
    kind.quantity = u32::try_from(labels.len()).unwrap();
}

/// The seats of a hold's first line.
pub fn seats(answer: &Answer) -> Vec<String> {
    let Answer::Done(output) = answer else { panic!("{answer:?}") };
    let reserved: Reserved = output.read().unwrap();
    reserved.lines[0].seats.clone()
}

pub fn key(saga: SagaId, step: &str) -> Key {
    Key { saga, step: step.to_owned(), round: 1 }
}

fn sent(action: &'static str, half: Half, key: Key, body: &impl Serialize) -> Sent {
    let body = Json::of(body).unwrap();
    Sent { action, item: Item { key, half, attempt: 1, deadline: None, trace: None, body } }
}

/// `done` or the code of the rejection.
pub fn told(answer: &Answer) -> &str {
    match answer {
        Answer::Done(_) => "done",
        Answer::Rejected(rejection) => &rejection.code,
        Answer::Expired => "expired",
        _ => "other",
    }
}

/// A saga that began so long before `now`.
pub fn saga_of_age(now: Timestamp, age: Duration) -> SagaId {
    let at = u64::try_from(now.millis()).unwrap() - u64::try_from(age.as_millis()).unwrap();
    SagaId(uuid::Builder::from_unix_timestamp_millis(at, &[7; 10]).into_uuid())
}

async fn consumer(ctx: &Context, stream: &str) -> PullConsumer {
    let stream = ctx.nats.jetstream().get_stream(stream).await.unwrap();
    let config = pull::Config { ack_policy: AckPolicy::Explicit, ..pull::Config::default() };
    stream.create_consumer(config).await.unwrap()
}

async fn next<T: DeserializeOwned>(consumer: &PullConsumer) -> Vec<T> {
    next_of(consumer).await.1
}

/// The next envelope, with its subject.
async fn next_of<T: DeserializeOwned>(consumer: &PullConsumer) -> (String, Vec<T>) {
    let fetch = async {
        let mut batch = consumer.batch().max_messages(1).expires(PATIENCE).messages().await.unwrap();
        batch.next().await.expect("a message comes in time").unwrap()
    };
    let message = tokio::time::timeout(PATIENCE, fetch).await.expect("a message comes in time");
    message.ack().await.unwrap();
    let envelope: Envelope<T> = serde_json::from_slice(&message.payload).unwrap();
    (message.subject.to_string(), envelope.items)
}
