//! `eventicket up`: the whole platform on one machine.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use eventicket_kit::http::{ANY_PORT, Reserved};
use eventicket_kit::{Settings, telemetry};
use eventicket_nats::{Nats, StreamLimits, ensure_streams};
use eventicket_servers::{Home, Options, Servers};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fleet::{self, Fleet, Plan, ledger, mails, open_log};
use crate::interrupts::Interrupts;
use crate::part::{Part, local_url};
use crate::platform::Platform;
use crate::secrets::Secrets;
use crate::{demo, output};

/// How long the services may take to answer after their start.
const READY: Duration = Duration::from_secs(90);
const ANSWER: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// Exit code after an interruption that did not wait for the end.
const CUT: i32 = 130;
/// What warns of slow statements and of each refused request: for the log, not for the terminal.
const QUIET: [&str; 2] = ["sqlx", "eventicket_gateway::edge"];
/// Databases that replicas connect to, and connections that are left for tools.
const DATABASES: u32 = 6;
const SPARE_CONNECTIONS: u32 = 40;

/// Start the whole platform on this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port of the REST API on this machine; 0 takes a free one [default: 8080]
    #[arg(long)]
    port: Option<u16>,
    /// Use a temporary folder that is removed at the end
    #[arg(long)]
    ephemeral: bool,
    /// Give each service, and the mock payment gateway, a process of its own
    #[arg(long)]
    processes: bool,
    /// Replicas of each service
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    replicas: u16,
    /// Make the demo users and events also on a server that DATABASE_URL names
    #[arg(long)]
    demo: bool,
}

struct Running {
    /// Kept for the parts that listen at them, also while these are started again.
    ports: Vec<Reserved>,
    servers: Servers,
    fleet: Fleet,
    platform: Arc<Mutex<Platform>>,
}

/// Runs the platform until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot start, or something that ended again and again was given up.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen().context("signals cannot be taken")?;
    raise_open_files();
    let home = if args.ephemeral { Home::temporary() } else { Home::open(home) }?;
    let log = home.logs()?.join("eventicket.log");
    let _telemetry = telemetry::init_with_file("eventicket", open_log(&log)?, &QUIET);
    let shutdown = CancellationToken::new();
    let _guard = shutdown.clone().drop_guard();
    tokio::spawn(eventicket_kit::prometheus::upkeep(shutdown));

    let started = tokio::select! {
        started = start(&args, &home) => started,
        () = interrupts.next() => {
            // What was started stops when this process's pipes close.
            output::line("interrupted");
            std::process::exit(CUT)
        }
    };
    let Running { ports: _ports, servers, fleet, platform } = started?;
    let (parts_failed, servers_failed) = (fleet.failed(), servers.failed());
    let failure = tokio::select! {
        () = interrupts.next() => None,
        () = parts_failed.cancelled() => Some("a service"),
        () = servers_failed.cancelled() => Some("PostgreSQL or nats-server"),
    };
    output::line("stopping");
    let stop = async {
        fleet.stop().await;
        Platform::remove(home.path());
        servers.stop().await;
    };
    tokio::select! {
        () = stop => {}
        () = interrupts.next() => {
            fleet::cut(&platform);
            std::process::exit(CUT)
        }
    }
    match failure {
        Some(what) => bail!("{what} ended again and again and was given up; the log is {}", log.display()),
        None => output::line("stopped"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(args: &Args, home: &Home) -> anyhow::Result<Running> {
    let path = home.path();
    if let Some(last) = Platform::last(path).ok().flatten() {
        fleet::stop_leftovers(&last.processes).await;
        Platform::remove(path);
    }
    let mut settings = Secrets::read_or_make(path)?.settings("", "")?;
    settings.gateway_listen.set_port(args.port.unwrap_or(settings.gateway_listen.port()));
    let ports = reserve_all(&mut settings)?;
    output::line(&format!("EvenTicket {} starts in {}", env!("CARGO_PKG_VERSION"), path.display()));
    let connections = DATABASES * u32::from(args.replicas) * settings.database_connections + SPARE_CONNECTIONS;
    let least = Options::default();
    let options = Options {
        database_url: given("DATABASE_URL"),
        nats_url: given("NATS_URL"),
        local_socket: true,
        connections: connections.max(least.connections),
        ..least
    };
    let own_database = options.database_url.is_none();
    let servers = Servers::start(home, options).await?;
    settings.database_url.clone_from(&servers.database_url);
    settings.nats_url.clone_from(&servers.nats_url);
    match start_parts(args, settings, home, &servers, own_database).await {
        Ok((fleet, platform)) => Ok(Running { ports, servers, fleet, platform }),
        Err(error) => {
            Platform::remove(path);
            servers.stop().await;
            Err(error)
        }
    }
}

async fn start_parts(
    args: &Args,
    mut settings: Settings,
    home: &Home,
    servers: &Servers,
    own_database: bool,
) -> anyhow::Result<(Fleet, Arc<Mutex<Platform>>)> {
    let (mock_gateway, mailbox) = (needs_mock_gateway(), needs_mailbox());
    let url = local_url(settings.gateway_listen);
    if given("EVENTICKET_PUBLIC_URL").is_none() {
        settings.public_url.clone_from(&url);
    }
    let nats = Nats::connect(&settings.nats_url, "up").await?;
    ensure_streams(&nats, &StreamLimits::default()).await?;
    let platform = Arc::new(Mutex::new(describe(&settings, &url, home.path())));
    let plan = Plan {
        settings: Arc::new(settings),
        home: home.path().to_owned(),
        program: std::env::current_exe().context("this program's file is not known")?,
        processes: args.processes,
        replicas: args.replicas,
        platform: platform.clone(),
    };
    let settings = plan.settings.clone();
    platform.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write(home.path())?;
    let mut fleet = Fleet::start(plan, mock_gateway, mailbox);
    let failed = (fleet.failed(), servers.failed());
    let ready = async {
        // The REST API opens when there is something behind it.
        timeout(READY, services_answer(&nats)).await.context("the services do not answer")?;
        fleet.open();
        wait_until_ready(&url).await?;
        let wanted = (own_database || args.demo) && !demo::is_there(home.path());
        anyhow::Ok(if wanted { demo::load(&settings, &nats, home.path()).await? } else { demo::is_there(home.path()) })
    };
    let ended = tokio::select! {
        ended = ready => ended,
        () = failed.0.cancelled() => Err(anyhow::anyhow!("a service could not be started; the log is in {}/logs", home.path().display())),
        () = failed.1.cancelled() => Err(anyhow::anyhow!("a server was given up; the log is in {}/logs", home.path().display())),
    };
    match ended {
        Ok(has_demo) => {
            output::line(&summary(home, &url, mailbox, has_demo));
            Ok((fleet, platform))
        }
        Err(error) => {
            fleet.stop().await;
            Err(error)
        }
    }
}

fn describe(settings: &Settings, url: &str, home: &Path) -> Platform {
    Platform {
        pid: std::process::id(),
        database_url: settings.database_url.clone(),
        database_prefix: settings.database_prefix.clone(),
        nats_url: settings.nats_url.clone(),
        gateway_url: url.to_owned(),
        payment_gateway_url: settings.payment_gateway_url.clone(),
        ledger: ledger(home),
        mailbox: mails(home),
        processes: std::collections::BTreeMap::new(),
        metrics: std::collections::BTreeMap::new(),
    }
}

fn summary(home: &Home, url: &str, mailbox: bool, has_demo: bool) -> String {
    let mut lines = vec![format!("  REST API      {url}/v1 (documentation {url}/docs)")];
    if mailbox {
        lines.push("  mail          eventicket mail ls".to_owned());
    }
    lines.push(format!("  logs          {}/logs", home.path().display()));
    if home.is_temporary() {
        lines.push(format!("  tools         {}={} eventicket ...", crate::home::VARIABLE, home.path().display()));
    }
    if has_demo {
        let logins: Vec<_> = demo::USERS.iter().map(|(email, ..)| *email).collect();
        lines.push(format!("  demo logins   {}", logins.join(", ")));
        lines.push(format!("  password      {}", demo::PASSWORD));
    }
    lines.push(format!("ready {url}"));
    lines.join("\n")
}

/// Waits until each service answers the ping of NATS micro services (ADR-32).
async fn services_answer(nats: &Nats) {
    for part in Part::SERVICES {
        let subject = format!("$SRV.PING.{}", part.name());
        while let Err(error) = nats.request::<serde_json::Value>(&subject, &(), ANSWER).await {
            tracing::debug!(part = part.name(), %error, "not up yet");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Waits until the REST API says that everything that it needs is there.
async fn wait_until_ready(url: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let mut last = String::new();
    let ready = async {
        loop {
            match http.get(format!("{url}/readyz")).send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => last = answer.text().await.unwrap_or_default(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(POLL).await;
        }
    };
    if timeout(READY, ready).await.is_err() {
        bail!("the services are not ready after {} s: {last}", READY.as_secs());
    }
    Ok(())
}

fn needs_mock_gateway() -> bool {
    given("EVENTICKET_PAYMENT_GATEWAY_URL").is_none()
}

fn needs_mailbox() -> bool {
    given("EVENTICKET_SMTP_URL").is_none()
}

/// Keeps the ports that parts listen at, and enters those that are free ones into the settings. The parts' metrics have theirs
/// from the fleet.
fn reserve_all(settings: &mut Settings) -> anyhow::Result<Vec<Reserved>> {
    let api = reserve(settings.gateway_listen)?;
    settings.gateway_listen = api.address()?;
    let mut ports = vec![api];
    let mut keep = |address| {
        let port = Reserved::new(address).with_context(|| format!("cannot listen on {address}"))?;
        let address = port.address()?;
        ports.push(port);
        anyhow::Ok(address)
    };
    if needs_mock_gateway() {
        settings.payment_gateway_url = format!("http://{}", keep(ANY_PORT)?);
        settings.payment_webhook_listen.get_or_insert(ANY_PORT);
    }
    // All replicas of payments share it.
    settings.payment_webhook_listen = settings.payment_webhook_listen.map(&mut keep).transpose()?;
    if needs_mailbox() {
        settings.smtp_url = format!("smtp://{}", keep(ANY_PORT)?);
    }
    Ok(ports)
}

/// The API's port, a free one for port 0. It is kept: a service that took it meanwhile for its health and metrics would look
/// like the API.
fn reserve(address: SocketAddr) -> anyhow::Result<Reserved> {
    let port = address.port();
    // Another platform's gateway would share it.
    let taken = if port == 0 { Ok(()) } else { TcpListener::bind(address).map(drop) };
    match taken.and_then(|()| Reserved::new(address)) {
        Ok(reserved) => Ok(reserved),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("port {port} is taken: choose another with --port, as in `eventicket up --port {}`", port ^ 1)
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address}: choose another port with --port"))
        }
    }
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Thousands of connections need as many open files; the default of many systems is 1024.
pub fn raise_open_files() {
    /// macOS refuses more than this, whatever it tells.
    const ENOUGH: u64 = 10_240;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() && soft < ENOUGH {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, ENOUGH.min(hard), hard);
    }
}
