//! The platform under test: its own servers, proxies before them, and the real binary with a process for each replica.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use eventicket_servers::{Home, Options, Servers};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use url::Url;

use crate::faults::{ALONE, PARTS};
use crate::order::Order;
use crate::processes;
use crate::proxy::Proxy;

/// Of each part but [`ALONE`].
pub const REPLICAS: usize = 2;
/// Tickets of the event.
pub const TICKETS: u32 = 5_000_000;
/// Who book in turn; each may send some tens of requests a second.
const CUSTOMERS: usize = 200;
/// Start and stop of the platform.
const GUARD: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// What stands in the command line of a part's process.
pub const MARK: &str = "serve";

/// A running platform. What it started is ended with it, however that comes about; its folder stays unless it is stopped.
pub struct Site {
    /// Holds the servers' folder and the platform's.
    pub root: PathBuf,
    /// The REST API.
    pub url: String,
    /// For requests of the test itself.
    pub http: Client,
    /// Before PostgreSQL.
    pub database: Proxy,
    /// Before nats-server.
    pub broker: Proxy,
    binary: PathBuf,
    servers: Option<Servers>,
    up: Option<Child>,
    _home: Home,
}

impl Site {
    /// Starts everything on an empty folder and waits until it is ready.
    pub async fn start(order: &Order) -> anyhow::Result<Self> {
        eventicket_kit::tls::install();
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
        // PostgreSQL's user must pass through it.
        let open = std::fs::Permissions::from_mode(0o711);
        let root = tempfile::Builder::new().prefix("eventicket-chaos-").permissions(open).tempdir()?.keep();
        let home = Home::open(&root.join("servers"))?;
        let servers = Servers::start(&home, Options::default()).await?;
        let mut site = Self {
            database: Proxy::before(port(&servers.database_url)?).await?,
            broker: Proxy::before(port(&servers.nats_url)?).await?,
            binary: order.binary.canonicalize().context("the platform's binary")?,
            url: String::new(),
            http: Client::builder().no_proxy().timeout(GUARD).build()?,
            servers: Some(servers),
            up: None,
            root,
            _home: home,
        };
        site.open().await?;
        Ok(site)
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        let replicas = REPLICAS.to_string();
        let mut command = self.command(&["up", "--port", "0", "--processes", "--replicas", &replicas, "--demo"]);
        let (database, broker) = self.servers()?;
        command.env("DATABASE_URL", through(database, self.database.port)?);
        command.env("NATS_URL", through(broker, self.broker.port)?);
        let log = std::fs::File::create(self.root.join("up.log"))?;
        command.process_group(0).stdout(Stdio::piped()).stderr(log);
        let up = self.up.insert(command.spawn().context("the platform cannot be started")?);
        let printed = BufReader::new(up.stdout.take().context("it has an output")?);
        let (tell, ready) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            // Read to its end, so that the platform can print.
            for line in printed.lines().map_while(Result::ok) {
                let url = line.strip_prefix("ready ");
                if let Some((url, tell)) = url.and_then(|url| Some((url, tell.take()?))) {
                    let _ = tell.send(url.to_owned());
                }
            }
        });
        let ready = timeout(GUARD, ready).await.context("the platform is not ready in time")?;
        self.url = ready.with_context(|| format!("the platform ended; see {}", self.root.display()))?;
        Ok(())
    }

    /// The servers' own addresses, not through the proxies: PostgreSQL's and NATS'.
    pub fn servers(&self) -> anyhow::Result<(&str, &str)> {
        let servers = self.servers.as_ref().context("the servers are stopped")?;
        Ok((&servers.database_url, &servers.nats_url))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null()).env("EVENTICKET_HOME", self.folder());
        command
    }

    fn folder(&self) -> PathBuf {
        self.root.join("platform")
    }

    /// Runs another command of the binary on this platform.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output());
        timeout(GUARD, output).await.with_context(|| format!("{arguments:?} does not end"))??.map_err(Into::into)
    }

    /// Runs one that prints JSON; its exit code and what it printed.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<(i32, Value)> {
        let output = self.run(&[arguments, &["--json"]].concat()).await?;
        let told = serde_json::from_slice(&output.stdout);
        let told = told.with_context(|| format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok((output.status.code().unwrap_or(-1), told))
    }

    /// The processes of its parts by name, as the platform itself tells; an error once it has ended.
    pub fn processes(&mut self) -> anyhow::Result<BTreeMap<String, Pid>> {
        let ended = self.up.as_mut().map(Child::try_wait).transpose()?.flatten();
        ensure!(ended.is_none(), "the platform ended by itself");
        processes_of(&self.folder())
    }

    /// Whether each part has all its processes.
    pub fn is_complete(&mut self) -> anyhow::Result<bool> {
        let whole = (PARTS.len() - 1) * REPLICAS + 1;
        Ok(self.processes()?.len() == whole)
    }

    /// The process ids of one part, in the order of its replicas.
    pub fn replicas(&mut self, part: &str) -> anyhow::Result<Vec<(String, Pid)>> {
        let number = if part == ALONE { 1 } else { REPLICAS };
        let names: Vec<String> =
            (1..=number).map(|n| if n == 1 { part.to_owned() } else { format!("{part}-{n}") }).collect();
        let mut processes = self.processes()?;
        Ok(names.into_iter().filter_map(|name| processes.remove(&name).map(|pid| (name, pid))).collect())
    }

    /// The folder of the servers.
    pub fn servers_folder(&self) -> PathBuf {
        self.root.join("servers")
    }

    /// A connection to one of the services' databases, not through the proxy.
    pub async fn database(&self, name: &str) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&format!("{}/{name}", self.servers()?.0)).await?)
    }

    /// An access token of a demo user.
    pub async fn login(&self, email: &str) -> anyhow::Result<String> {
        let body = json!({"email": email, "password": "demo-password"});
        let answer = self.http.post(format!("{}/v1/auth/login", self.url)).json(&body).send().await?;
        let tokens: Value = answer.error_for_status()?.json().await?;
        text(&tokens["access_token"])
    }

    /// Access tokens of customers.
    pub async fn customers(&self) -> anyhow::Result<Vec<String>> {
        let made = self.run(&["customers", &CUSTOMERS.to_string()]).await?;
        let tokens: Vec<String> = String::from_utf8(made.stdout)?.lines().map(str::to_owned).collect();
        ensure!(tokens.len() == CUSTOMERS, "no customers: {}", String::from_utf8_lossy(&made.stderr));
        Ok(tokens)
    }

    /// A published event; its id and its ticket type's.
    pub async fn event(&self, hold_seconds: u32) -> anyhow::Result<(String, String)> {
        let organizer = self.login("organizer@demo.test").await?;
        let event = json!({
            "title": "Chaos", "description": "", "category": "concert", "timezone": "Europe/Vienna",
            "starts_at": "2099-06-12T18:00:00Z", "ends_at": "2099-06-12T21:00:00Z",
            "venue": {"name": "Arena", "city": "Vienna", "country": "AT"}, "hold_seconds": hold_seconds,
            "ticket_types": [{"name": "Any", "price": {"amount": 2_500, "currency": "EUR"}, "quantity": TICKETS}],
        });
        let post = |path: &str| self.http.post(format!("{}{path}", self.url)).bearer_auth(&organizer);
        let made: Value = post("/v1/events").json(&event).send().await?.error_for_status()?.json().await?;
        let (id, kind) = (text(&made["id"])?, text(&made["ticket_types"][0]["id"])?);
        post(&format!("/v1/events/{id}/publish")).send().await?.error_for_status()?;
        let published = async {
            while self.get(&organizer, &format!("/v1/events/{id}")).await?["state"] != "published" {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        timeout(GUARD, published).await.context("the event is not published in time")??;
        Ok((id, kind))
    }

    /// Reads JSON.
    pub async fn get(&self, token: &str, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Ctrl-C, and sees that everything ends in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let parts = self.processes()?;
        let mut up = self.up.take().context("it runs")?;
        processes::signal(Pid::from_raw(up.id().cast_signed()), Signal::SIGINT);
        let ended = tokio::task::spawn_blocking(move || up.wait());
        let ended = timeout(GUARD, ended).await.context("the platform does not stop in time")???;
        ensure!(ended.success(), "the platform stopped with {ended}");
        for (name, pid) in parts {
            if !processes::gone(pid, MARK, LOOK).await {
                bail!("{name} was left running");
            }
        }
        if let Some(servers) = self.servers.take() {
            servers.stop().await;
        }
        Ok(std::fs::remove_dir_all(&self.root)?)
    }
}

impl Drop for Site {
    /// The servers end by themselves when what holds them is dropped.
    fn drop(&mut self) {
        let Some(mut up) = self.up.take() else { return };
        let _ = killpg(Pid::from_raw(up.id().cast_signed()), Signal::SIGKILL);
        let _ = up.wait();
        for pid in processes_of(&self.folder()).unwrap_or_default().into_values() {
            if eventicket_servers::is_running(pid.as_raw(), MARK) {
                processes::signal(pid, Signal::SIGKILL);
            }
        }
    }
}

fn processes_of(folder: &Path) -> anyhow::Result<BTreeMap<String, Pid>> {
    let about: Value = serde_json::from_slice(&std::fs::read(folder.join("platform.json"))?)?;
    let processes: BTreeMap<String, i32> = serde_json::from_value(about["processes"].clone())?;
    Ok(processes.into_iter().map(|(name, pid)| (name, Pid::from_raw(pid))).collect())
}

fn port(address: &str) -> anyhow::Result<u16> {
    Url::parse(address)?.port().context("an address with a port")
}

/// The address with another port.
fn through(address: &str, port: u16) -> anyhow::Result<String> {
    let mut url = Url::parse(address)?;
    url.set_port(Some(port)).ok().context("an address with a port")?;
    Ok(url.to_string())
}

/// A JSON string's text.
fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().with_context(|| format!("a string, not {value}"))?.to_owned())
}
