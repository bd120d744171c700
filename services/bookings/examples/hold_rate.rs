//! What a booking costs here: reserves and confirms come in envelopes at a rate, as the orchestrator sends them, and the
//! CPU time, WAL and transactions of the service and of its database are told for one booking.
//!
//! `cargo run --release -p eventicket-bookings --example hold_rate -- --rate 5000 --events 1`

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use clap::Parser;
use eventicket_bookings::{DATABASE, MIGRATOR};
use eventicket_contracts::bookings::{Confirm, Offer, OfferedType, Reserve, ReserveItem};
use eventicket_contracts::envelope::{Answer, Envelope, Half, Item, Key, MAX_ITEMS, Reply};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Currency, CustomerId, EventId, Json, Money, SagaId, TicketTypeId};
use eventicket_kit::{Context, Settings, database, tls};
use eventicket_nats::{Outgoing, StreamLimits, command_headers, ensure_streams};
use eventicket_servers::{Home, Options, Servers};
use eventicket_testkit::{Meter, Usage};
use futures::StreamExt;
use serde::Serialize;
use tokio::time::{Instant, interval, sleep, timeout};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A confirm follows its reserve after so many ticks.
const PAYING: usize = 20;
/// The service runs as a process of its own, so that its CPU time is its own; it finds its servers here.
const SERVERS: [&str; 2] = ["HOLD_RATE_DATABASE", "HOLD_RATE_NATS"];

#[derive(Parser)]
struct Arguments {
    /// Bookings a second.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Events that are booked by turns.
    #[arg(long, default_value_t = 1)]
    events: usize,
    /// Milliseconds between two turns of the orchestrator; each sends what came since in one envelope.
    #[arg(long, default_value_t = 10)]
    tick: u32,
    /// Most tickets of one customer.
    #[arg(long)]
    limit: Option<u32>,
    /// Tells the service's process and waits so many seconds before the measurement, for a profiler.
    #[arg(long, default_value_t = 0)]
    profile: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tls::install();
    if let (Ok(database), Ok(nats)) = (std::env::var(SERVERS[0]), std::env::var(SERVERS[1])) {
        let context = Context::connect(Settings::development(&database, &nats), "bookings", StreamLimits::small());
        return eventicket_bookings::run(context.await?).await;
    }
    let home = Home::temporary()?;
    let servers = Servers::start(&home, Options::default()).await?;
    rush(&servers, &Arguments::parse()).await
}

async fn rush(servers: &Servers, arguments: &Arguments) -> anyhow::Result<()> {
    let settings = Settings::development(&servers.database_url, &servers.nats_url);
    let pool = database(&settings, DATABASE, &MIGRATOR).await?;
    let context = Context::connect(settings, "rush", StreamLimits::small()).await?;
    ensure_streams(&context.nats, &context.limits).await?;
    let mut service = tokio::process::Command::new(std::env::current_exe()?)
        .envs([(SERVERS[0], &servers.database_url), (SERVERS[1], &servers.nats_url)])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let process = service.id().context("the service runs")?;

    let stage = Stage::open(context, arguments).await?;
    stage.rush(arguments, arguments.rate as usize).await?;
    if arguments.profile > 0 {
        eprintln!("the service is process {process}");
        sleep(Duration::from_secs(arguments.profile)).await;
    }
    let meter = Meter::begin(pool, process).await?;
    let bookings = (arguments.rate * arguments.seconds) as usize;
    let took = stage.rush(arguments, bookings).await?;
    sleep(Duration::from_millis(1_200)).await;
    tell(meter.usage().await?, bookings, took);
    service.kill().await?;
    Ok(())
}

#[allow(clippy::print_stdout)]
fn tell(usage: Usage, bookings: usize, took: Duration) {
    let each = |sum: u64| sum as f64 / bookings as f64;
    println!(
        "{bookings} bookings in {:.1} s; each: service {:.1} us, sessions {:.1} us, PostgreSQL's writers {:.1} us, \
         {:.0} bytes of WAL; {:.1} bookings a transaction",
        took.as_secs_f64(),
        each(usage.process),
        each(usage.sessions),
        each(usage.writers),
        each(usage.wal),
        bookings as f64 / usage.commits.max(1) as f64,
    );
}

/// The events that are booked, and the replies.
struct Stage {
    context: Context,
    events: Vec<(EventId, TicketTypeId)>,
    replies: async_nats::jetstream::consumer::PullConsumer,
}

impl Stage {
    async fn open(context: Context, arguments: &Arguments) -> anyhow::Result<Self> {
        let stream = context.nats.jetstream().get_stream(subjects::REPLIES_STREAM).await?;
        let config = pull::Config { ack_policy: AckPolicy::Explicit, ..pull::Config::default() };
        let replies = stream.create_consumer(config).await?;
        let events: Vec<_> = (0..arguments.events).map(|_| (EventId::fresh(), TicketTypeId::fresh())).collect();
        let stage = Self { context, events, replies };
        let offers = stage.events.iter().map(|(event, kind)| {
            let offer = stage.offer(*event, *kind, arguments.limit);
            item(SagaId::fresh(), "OFFER", &offer)
        });
        stage.send("offer", offers.collect()).await?;
        stage.answered(stage.events.len()).await?;
        Ok(stage)
    }

    fn offer(&self, event: EventId, kind: TicketTypeId, max_per_customer: Option<u32>) -> Offer {
        let now = self.context.clock.now();
        let price = Money { amount: 4_200, currency: Currency::EUR };
        let (id, name, quantity) = (kind, "Standing".to_owned(), 10_000_000);
        Offer {
            event,
            version: 1,
            title: "Midsummer Concert".into(),
            starts_at: now.plus(Duration::from_secs(86_400)),
            ends_at: now.plus(Duration::from_secs(90_000)),
            on_sale: true,
            cancelled: false,
            hold_seconds: None,
            max_per_customer,
            ticket_types: vec![OfferedType { id, name, price, quantity, max_per_order: Some(5), seats: vec![] }],
        }
    }

    /// So many bookings at the rate; the time until the last one was confirmed.
    async fn rush(&self, arguments: &Arguments, bookings: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let (sent, answered) = tokio::join!(self.send_all(arguments, bookings), self.answered(2 * bookings));
        sent.and(answered)?;
        Ok(started.elapsed())
    }

    async fn send_all(&self, arguments: &Arguments, bookings: usize) -> anyhow::Result<()> {
        let mut ticks = interval(Duration::from_millis(u64::from(arguments.tick)));
        let started = ticks.tick().await;
        let mut paying: VecDeque<Vec<(SagaId, EventId)>> = VecDeque::new();
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < bookings {
            let now = ticks.tick().await;
            let due = (now - started).as_secs_f64() * f64::from(arguments.rate);
            let new: Vec<_> = (sent..bookings.min(due as usize)).map(|at| self.reserve(at)).collect();
            sent += new.len();
            let (orders, sagas): (Vec<Item>, Vec<_>) = new.into_iter().unzip();
            paying.push_back(sagas);
            self.send("reserve", orders).await?;
            if paying.len() > PAYING {
                let confirms: Vec<Item> = paying.pop_front().unwrap_or_default().into_iter().map(confirm).collect();
                confirmed += confirms.len();
                self.send("confirm", confirms).await?;
            }
        }
        Ok(())
    }

    fn reserve(&self, at: usize) -> (Item, (SagaId, EventId)) {
        let (event, ticket_type) = self.events[at % self.events.len()];
        let order = Reserve {
            event,
            customer: CustomerId::fresh(),
            items: vec![ReserveItem { ticket_type, quantity: 1, seats: vec![] }],
            expected_total: None,
            hold_seconds: 600,
            grace_seconds: 90,
        };
        let saga = SagaId::fresh();
        let deadline = self.context.clock.now().plus(Duration::from_secs(30));
        (Item { deadline: Some(deadline), ..item(saga, "RESERVE", &order) }, (saga, event))
    }

    async fn send(&self, action: &str, items: Vec<Item>) -> anyhow::Result<()> {
        let envelopes = items.chunks(MAX_ITEMS).map(|items| Outgoing {
            subject: subjects::command(Service::BOOKINGS, action, 0),
            id: SagaId::fresh().to_string(),
            headers: command_headers("reply.0", None),
            payload: serde_json::to_vec(&Envelope::new(items.to_vec())).unwrap_or_default().into(),
        });
        for stored in self.context.nats.publish_all(envelopes.collect()).await {
            stored?;
        }
        Ok(())
    }

    /// Waits for so many answers, each of them `done`.
    async fn answered(&self, count: usize) -> anyhow::Result<()> {
        let mut messages = self.replies.messages().await?;
        let mut answered = 0;
        while answered < count {
            let message = timeout(Duration::from_secs(10), messages.next()).await;
            let message = message.context("no reply comes")?.context("the replies ended")??;
            message.ack().await.map_err(anyhow::Error::msg)?;
            let replies: Envelope<Reply> = serde_json::from_slice(&message.payload)?;
            if let Some(other) = replies.items.iter().find(|reply| !matches!(reply.answer, Answer::Done(_))) {
                bail!("not done: {other:?}");
            }
            answered += replies.items.len();
        }
        Ok(())
    }
}

fn confirm((saga, event): (SagaId, EventId)) -> Item {
    item(saga, "CONFIRM", &Confirm { event, hold_step: "RESERVE".into(), hold_round: 1 })
}

fn item(saga: SagaId, step: &str, body: &impl Serialize) -> Item {
    let body = Json::of(body).unwrap_or_default();
    let key = Key { saga, step: step.to_owned(), round: 1 };
    Item { key, half: Half::Do, attempt: 1, deadline: None, trace: None, body }
}
