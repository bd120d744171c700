//! What one charge costs: envelopes of charges are published at a rate to the service, which calls the mock gateway over
//! HTTP and takes its webhooks; the CPU time of each process, divided by the charges, is printed.
//!
//! ```text
//! cargo run --release -p eventicket-payments --example charge_rate -- --rate 5000 --seconds 10 --envelope 128
//! ```
//!
//! Service and gateway are processes of their own; PostgreSQL (which syncs every commit) and nats-server are private ones.
#![allow(clippy::print_stdout, reason = "its output is the measurement")]

use std::collections::HashMap;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use eventicket_contracts::envelope::{Answer, Envelope, Half, Item, Key, Reply};
use eventicket_contracts::payments::Charge;
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Currency, CustomerId, Money, SagaId};
use eventicket_kit::http::{ANY_PORT, Reserved};
use eventicket_kit::seal::SealKeys;
use eventicket_kit::{Context, Settings};
use eventicket_mock_gateway::{Config, Webhooks};
use eventicket_nats::{ConsumerSpec, Outgoing, Pull, StreamLimits, command_headers};
use eventicket_servers::{Home, Options, Servers};
use serde_json::value::RawValue;
use sqlx::{Connection as _, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Charges before the measurement, in seconds of the rate.
const WARM_UP: u32 = 2;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The last webhooks leave meanwhile.
const AFTERMATH: Duration = Duration::from_millis(600);
/// One tick of the kernel's account of CPU time, in microseconds.
const TICK_US: u64 = 10_000;
/// Where the gateway listens, and the folder of its ledger.
const GATEWAY_ADDRESS: &str = "CHARGE_RATE_GATEWAY";
const GATEWAY_FOLDER: &str = "CHARGE_RATE_FOLDER";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("payments") => payments().await,
        Some("gateway") => gateway().await,
        _ => measure(&Load::read(&arguments)?).await,
    }
}

/// What is published.
struct Load {
    rate: u32,
    seconds: u32,
    envelope: u32,
    /// The test token that all charges use.
    token: String,
    /// Whether the gateway sends webhooks.
    webhooks: bool,
    /// Measurements one after the other.
    repeat: u32,
}

impl Load {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut load =
            Self { rate: 5_000, seconds: 10, envelope: 128, token: "pm_card_visa".into(), webhooks: true, repeat: 1 };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { bail!("{} has no value", pair[0]) };
            match name.as_str() {
                "--rate" => load.rate = value.parse()?,
                "--seconds" => load.seconds = value.parse()?,
                "--envelope" => load.envelope = value.parse()?,
                "--token" => load.token.clone_from(value),
                "--webhooks" => load.webhooks = value.parse()?,
                "--repeat" => load.repeat = value.parse()?,
                _ => bail!("there is no {name}"),
            }
        }
        Ok(load)
    }
}

/// The service, with the settings of its environment, until standard input ends.
async fn payments() -> anyhow::Result<()> {
    let context = Context::connect(Settings::from_env()?, "payments", StreamLimits::default()).await?;
    until_closed(context.shutdown.clone());
    eventicket_kit::tls::install();
    eventicket_payments::run(context).await
}

/// The mock gateway, until standard input ends.
async fn gateway() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let url = settings.payment_webhook_listen.map(|at| format!("http://{at}{}", eventicket_payments::WEBHOOKS));
    let config = Config {
        listen: std::env::var(GATEWAY_ADDRESS)?.parse()?,
        data: std::env::var(GATEWAY_FOLDER)?.into(),
        key: settings.payment_gateway_key,
        latency: Duration::ZERO,
        webhooks: url.map(|url| Webhooks { url, secret: settings.payment_webhook_secret }),
    };
    let shutdown = CancellationToken::new();
    until_closed(shutdown.clone());
    eventicket_mock_gateway::run(config, shutdown).await
}

/// Cancels when standard input ends.
fn until_closed(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        shutdown.cancel();
    });
}

async fn measure(load: &Load) -> anyhow::Result<()> {
    let home = Home::temporary()?;
    let servers = Servers::start(&home, Options::default()).await?;
    let mut settings = Settings::development(&servers.database_url, &servers.nats_url);
    let (gateway_port, webhooks_port) = (Reserved::new(ANY_PORT)?, Reserved::new(ANY_PORT)?);
    let gateway_at = gateway_port.address()?;
    settings.payment_gateway_url = format!("http://{gateway_at}");
    settings.payment_webhook_listen = Some(webhooks_port.address()?);
    let context = Context::connect(settings.clone(), "charge-rate", StreamLimits::default()).await?;
    eventicket_nats::ensure_streams(&context.nats, &context.limits).await?;

    let mut environment = settings.to_env();
    environment.push((GATEWAY_ADDRESS, gateway_at.to_string()));
    environment.push((GATEWAY_FOLDER, home.path().join("gateway").display().to_string()));
    let service = child("payments", &environment)?;
    environment.retain(|(name, _)| load.webhooks || *name != "EVENTICKET_PAYMENT_WEBHOOK_LISTEN");
    let gateway = child("gateway", &environment)?;

    let mut bench = Bench::new(context, load).await?;
    bench.run(WARM_UP * load.rate).await?;
    let watched = Watched::find(&home, &servers, [("payments", &service), ("mock gateway", &gateway)]).await?;
    println!("{}", watched.0.iter().map(|(name, pid)| format!("{name} {pid}")).collect::<Vec<_>>().join(", "));
    for _ in 0..load.repeat {
        let before = watched.cpu();
        let (charges, mut latencies) = bench.run(load.seconds * load.rate).await?;
        tokio::time::sleep(AFTERMATH).await;
        let after = watched.cpu();
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
        println!("{charges} charges at {}/s: p50 {:.1} ms, p99 {:.1} ms", load.rate, at(0.5), at(0.99));
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            println!("  {name:<14}{:>7.1} us a charge", (after - before) as f64 / f64::from(charges));
        }
    }
    for mut process in [service, gateway] {
        drop(process.stdin.take());
        process.wait().await?;
    }
    servers.stop().await;
    Ok(())
}

/// Publishes charges and takes their answers.
struct Bench {
    context: Context,
    replies: Pull,
    seal: SealKeys,
    rate: u32,
    envelope: u32,
    token: String,
}

impl Bench {
    async fn new(context: Context, load: &Load) -> anyhow::Result<Self> {
        let spec = ConsumerSpec {
            stream: subjects::REPLIES_STREAM.to_owned(),
            durable: "orchestrator".to_owned(),
            filter: subjects::reply(0),
            ..ConsumerSpec::default()
        };
        let replies = Pull::open(context.nats.clone(), spec, context.limits.clone(), context.shutdown.clone()).await?;
        let seal = SealKeys::parse(&context.settings.seal_keys)?;
        Ok(Self { context, replies, seal, rate: load.rate, envelope: load.envelope, token: load.token.clone() })
    }

    /// Publishes so many charges at the rate and waits for their ends; how long each took.
    async fn run(&mut self, charges: u32) -> anyhow::Result<(u32, Vec<Duration>)> {
        let gap = Duration::from_secs(1) * self.envelope / self.rate;
        let (mut published, mut open, mut latencies) = (0, HashMap::new(), Vec::new());
        let mut next = Instant::now();
        let mut patience = Instant::now() + PATIENCE;
        while published < charges || !open.is_empty() {
            tokio::select! {
                () = tokio::time::sleep_until(next), if published < charges => {
                    for key in self.publish().await? {
                        open.insert(key, next);
                        published += 1;
                    }
                    next += gap;
                    patience = Instant::now() + PATIENCE;
                }
                messages = self.replies.next(256) => {
                    for message in messages.context("the replies have ended")? {
                        let envelope: Envelope<Reply> = serde_json::from_slice(&message.payload)?;
                        for reply in envelope.items {
                            match &reply.answer {
                                Answer::Pending(_) => continue,
                                Answer::Done(_) => {}
                                other => bail!("{} was answered {other:?}", reply.key),
                            }
                            latencies.extend(open.remove(&reply.key).map(|at: Instant| at.elapsed()));
                        }
                        message.ack().await.map_err(|error| anyhow::anyhow!(error))?;
                    }
                }
                () = tokio::time::sleep_until(patience) => bail!("{} charges were not answered", open.len()),
            }
        }
        Ok((published, latencies))
    }

    async fn publish(&self) -> anyhow::Result<Vec<Key>> {
        let items = (0..self.envelope).map(|_| self.item()).collect::<Result<Vec<_>, _>>()?;
        let keys = items.iter().map(|item| item.key.clone()).collect();
        let message = Outgoing {
            subject: subjects::command(Service::PAYMENTS, "charge", 0),
            id: uuid::Uuid::now_v7().to_string(),
            headers: command_headers(&subjects::reply(0), None),
            payload: serde_json::to_vec(&Envelope::new(items))?.into(),
        };
        for stored in self.context.nats.publish_all(vec![message]).await {
            stored?;
        }
        Ok(keys)
    }

    fn item(&self) -> Result<Item, serde_json::Error> {
        let customer = CustomerId::fresh();
        let charge = Charge {
            customer,
            amount: Money { amount: 4_200, currency: Currency::EUR },
            method: self.seal.seal(customer, &self.token),
            description: "2 tickets for a gala".to_owned(),
        };
        let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 };
        let body = RawValue::from_string(serde_json::to_string(&charge)?)?;
        let deadline = Some(self.context.clock.now().plus(PATIENCE));
        Ok(Item { key, half: Half::Do, attempt: 1, deadline, trace: None, body: body.into() })
    }
}

/// The processes whose CPU time is read, each with those that it has started.
struct Watched(Vec<(&'static str, u32)>);

impl Watched {
    async fn find(home: &Home, servers: &Servers, children: [(&'static str, &Child); 2]) -> anyhow::Result<Self> {
        let mut all: Vec<_> = children.into_iter().filter_map(|(name, child)| Some((name, child.id()?))).collect();
        let mut connection = PgConnection::connect(&format!("{}/postgres", servers.database_url)).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        all.push(("PostgreSQL", stat(backend.cast_unsigned()).context("PostgreSQL runs elsewhere")?.parent));
        connection.close().await?;
        let pid = std::fs::read_to_string(home.path().join("nats/pid"))?;
        all.push(("nats-server", pid.trim().parse()?));
        Ok(Self(all))
    }

    /// CPU time of each so far, in microseconds.
    fn cpu(&self) -> Vec<(&'static str, u64)> {
        let all: Vec<Stat> = processes().into_iter().filter_map(stat).collect();
        let of = |pid: u32| all.iter().filter(move |stat| stat.pid == pid || stat.parent == pid);
        self.0.iter().map(|(name, pid)| (*name, of(*pid).map(|stat| stat.ticks * TICK_US).sum())).collect()
    }
}

/// What the kernel tells of a process.
struct Stat {
    pid: u32,
    parent: u32,
    /// In user and system mode.
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state, parent, ..., and as 12th and 13th the times.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat { pid, parent: fields.get(1)?.parse().ok()?, ticks: number(11)? + number(12)? })
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn child(role: &str, environment: &[(&'static str, String)]) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).envs(environment.iter().cloned()).stdin(Stdio::piped()).kill_on_drop(true);
    command.spawn().with_context(|| format!("{role} does not start"))
}
