//! What a booking's mail costs here until it is recorded: `send`s come in envelopes at a rate, as the orchestrator sends
//! them, and the CPU time, WAL and transactions of the service and of its database are told for one of them.
//!
//! `cargo run --release -p eventicket-notifications --example send_rate -- --rate 5000`

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use clap::Parser;
use eventicket_contracts::bookings::Line;
use eventicket_contracts::envelope::{Answer, Envelope, Half, Item, Key, MAX_ITEMS, Reply};
use eventicket_contracts::notifications::{BOOKING_CONFIRMED, BookingMail, Send};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Currency, CustomerId, Json, Money, SagaId, TicketTypeId};
use eventicket_kit::{Context, Settings, database, tls};
use eventicket_nats::{Outgoing, StreamLimits, command_headers, ensure_streams};
use eventicket_notifications::{DATABASE, MIGRATOR};
use eventicket_servers::{Home, Options, Servers};
use eventicket_testkit::{Meter, Usage};
use futures::StreamExt;
use tokio::time::{Instant, interval, sleep, timeout};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The service runs as a process of its own, so that its CPU time is its own; it finds its servers here.
const SERVERS: [&str; 2] = ["SEND_RATE_DATABASE", "SEND_RATE_NATS"];

#[derive(Parser)]
struct Arguments {
    /// Mails a second.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Milliseconds between two turns of the orchestrator; each sends what came since in one envelope.
    #[arg(long, default_value_t = 10)]
    tick: u32,
    /// Tells the service's process and waits so many seconds before the measurement, for a profiler.
    #[arg(long, default_value_t = 0)]
    profile: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tls::install();
    if let (Ok(database), Ok(nats)) = (std::env::var(SERVERS[0]), std::env::var(SERVERS[1])) {
        let context = Context::connect(Settings::development(&database, &nats), "mail", StreamLimits::small());
        return eventicket_notifications::run(context.await?).await;
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

    let stream = context.nats.jetstream().get_stream(subjects::REPLIES_STREAM).await?;
    let replies = stream.create_consumer(pull::Config { ack_policy: AckPolicy::Explicit, ..pull::Config::default() });
    let stage = Stage { replies: replies.await?, context };
    stage.rush(arguments, arguments.rate as usize).await?;
    if arguments.profile > 0 {
        eprintln!("the service is process {process}");
        sleep(Duration::from_secs(arguments.profile)).await;
    }
    let meter = Meter::begin(pool, process).await?;
    let mails = (arguments.rate * arguments.seconds) as usize;
    let took = stage.rush(arguments, mails).await?;
    sleep(Duration::from_millis(1_200)).await;
    tell(meter.usage().await?, mails, took);
    service.kill().await?;
    Ok(())
}

#[allow(clippy::print_stdout)]
fn tell(usage: Usage, mails: usize, took: Duration) {
    let each = |sum: u64| sum as f64 / mails as f64;
    println!(
        "{mails} mails in {:.1} s; each: service {:.1} us, sessions {:.1} us, PostgreSQL's writers {:.1} us, {:.0} bytes \
         of WAL; {:.1} mails a transaction",
        took.as_secs_f64(),
        each(usage.process),
        each(usage.sessions),
        each(usage.writers),
        each(usage.wal),
        mails as f64 / usage.commits.max(1) as f64,
    );
}

struct Stage {
    context: Context,
    replies: PullConsumer,
}

impl Stage {
    /// So many mails at the rate; the time until the last one was recorded.
    async fn rush(&self, arguments: &Arguments, mails: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let (sent, answered) = tokio::join!(self.send_all(arguments, mails), self.answered(mails));
        sent.and(answered)?;
        Ok(started.elapsed())
    }

    async fn send_all(&self, arguments: &Arguments, mails: usize) -> anyhow::Result<()> {
        let mut ticks = interval(Duration::from_millis(u64::from(arguments.tick)));
        let started = ticks.tick().await;
        let mut sent = 0;
        while sent < mails {
            let now = ticks.tick().await;
            let due = mails.min(((now - started).as_secs_f64() * f64::from(arguments.rate)) as usize);
            let items = (sent..due).map(|_| self.mail()).collect::<Result<Vec<Item>, _>>()?;
            sent = due;
            self.send(&items).await?;
        }
        Ok(())
    }

    fn mail(&self) -> Result<Item, serde_json::Error> {
        let (saga, price) = (SagaId::fresh(), Money { amount: 4_200, currency: Currency::EUR });
        let (ticket_type_id, name) = (TicketTypeId::fresh(), "Standing".to_owned());
        let mail = BookingMail {
            booking: saga,
            title: "Midsummer Concert".into(),
            lines: vec![Line { ticket_type_id, name, quantity: 1, unit_price: price, seats: vec![] }],
            total: price,
        };
        let (template, customer) = (BOOKING_CONFIRMED.to_owned(), CustomerId::fresh());
        let body = Send { template, customer, data: serde_json::to_value(mail)?.into() };
        let (body, key) = (Json::of(&body)?, Key { saga, step: "NOTIFY".into(), round: 1 });
        let deadline = Some(self.context.clock.now().plus(Duration::from_secs(30)));
        Ok(Item { key, half: Half::Do, attempt: 1, deadline, trace: None, body })
    }

    async fn send(&self, items: &[Item]) -> anyhow::Result<()> {
        let envelopes = items.chunks(MAX_ITEMS).map(|items| Outgoing {
            subject: subjects::command(Service::NOTIFICATIONS, "send", 0),
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
