//! A platform that a test starts, uses, breaks and audits.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// A hang is told after this.
pub const GUARD: Duration = Duration::from_secs(120);
/// Processes that were killed are gone by then.
const ENDING: Duration = Duration::from_secs(10);
/// Between two looks at something that tells nobody.
pub const LOOK: Duration = Duration::from_millis(100);

/// Where files are in memory, and the bytes that must be free there for the platforms of all tests that run at once.
const MEMORY: (&str, u128) = ("/dev/shm", 4 << 30);

/// As many platforms as there are tests at once.
static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(places())));

fn places() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A folder that PostgreSQL's user may pass through. It is in memory where there is room: what is synced to a disk would
/// wait for whatever else the machine writes, and the tests end processes, not the machine.
fn scratch() -> TempDir {
    let (memory, room) = (Path::new(MEMORY.0), MEMORY.1);
    let free = statvfs(memory).map_or(0, |fs| u128::from(fs.blocks_available()) * u128::from(fs.fragment_size()));
    let folder = if free > room { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    folder
}

/// A running platform; it is killed, and its folder removed, when the test is over.
pub struct Platform {
    pub url: String,
    pub http: Client,
    /// Variables that its processes and commands get.
    pub environment: Vec<(&'static str, String)>,
    home: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
    pub operator: OnceCell<String>,
    /// What it printed.
    printed: Arc<Mutex<Vec<String>>>,
    _place: OwnedSemaphorePermit,
}

impl Platform {
    /// Starts on an empty folder and waits for `ready`.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(Vec::new(), arguments).await
    }

    /// The same with further variables in its environment.
    pub async fn start_with(environment: Vec<(&'static str, String)>, arguments: &[&str]) -> Self {
        let place = PLACES.clone().acquire_owned().await.unwrap();
        Self::start_at(place, environment, arguments).await
    }

    /// Starts with the machine for itself: for a rush, or where it matters how fast something goes.
    pub async fn alone(arguments: &[&str]) -> Self {
        let all = PLACES.clone().acquire_many_owned(u32::try_from(places()).unwrap()).await.unwrap();
        Self::start_at(all, Vec::new(), arguments).await
    }

    async fn start_at(
        place: OwnedSemaphorePermit,
        environment: Vec<(&'static str, String)>,
        arguments: &[&str],
    ) -> Self {
        eventicket_kit::tls::install();
        let mut platform = Self {
            url: String::new(),
            http: Client::builder().pool_max_idle_per_host(2_000).build().unwrap(),
            environment,
            home: scratch(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            process: None,
            operator: OnceCell::new(),
            printed: Arc::default(),
            _place: place,
        };
        platform.start_again().await;
        platform
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eventicket"));
        command.env("EVENTICKET_HOME", self.folder()).env_remove("DATABASE_URL").env_remove("NATS_URL");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Everything that it stores is below this folder.
    pub fn folder(&self) -> PathBuf {
        self.home.path().join("platform")
    }

    /// Starts on the same folder.
    pub async fn start_again(&mut self) {
        let mut command = self.command();
        command.args(["up", "--port", "0"]).args(&self.arguments).process_group(0);
        let complaints = std::fs::File::options().append(true).create(true).open(self.complaints_file()).unwrap();
        let mut process = command.stdout(Stdio::piped()).stderr(complaints).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        self.process = Some(process);
        let printed = self.printed.clone();
        let (tell, ready) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in out.lines().map_while(Result::ok) {
                if let (Some(url), Some(tell)) =
                    (line.strip_prefix("ready "), tell.take_if(|_| line.starts_with("ready ")))
                {
                    let _ = tell.send(url.to_owned());
                }
                printed.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let ready = tokio::time::timeout(GUARD, ready).await.expect("ready in time");
        self.url = ready.unwrap_or_else(|_| panic!("the platform ended: {:?}", self.printed.lock().unwrap()));
    }

    /// kill -9 of the whole group, as when a machine's user does it.
    pub fn kill_group(&mut self) {
        let mut process = self.process.take().expect("it runs");
        killpg(Pid::from_raw(process.id().cast_signed()), Signal::SIGKILL).unwrap();
        process.wait().unwrap();
    }

    /// Ctrl-C, and waits for its end.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGINT).unwrap();
        let ended = tokio::task::spawn_blocking(move || process.wait().unwrap());
        let ended = tokio::time::timeout(GUARD, ended).await.expect("it stops in time").unwrap();
        assert!(ended.success(), "{ended}");
        assert_eq!(self.left_running(), Vec::<String>::new());
    }

    /// Command lines of processes that name this platform's folder.
    pub fn left_running(&self) -> Vec<String> {
        self.processes().into_iter().map(|(_, line)| line).collect()
    }

    fn processes(&self) -> Vec<(i32, String)> {
        let folder = self.home.path().to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            Some((process.file_name().to_str()?.parse().ok()?, line))
        });
        lines.filter(|(_, line)| line.contains(&folder)).collect()
    }

    /// Ends what still runs at once: nothing that it would write is read any more, and it must not write into a folder
    /// that is being removed.
    fn end(&mut self) {
        if self.process.is_some() {
            self.kill_group();
        }
        let started = Instant::now();
        while started.elapsed() < ENDING {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for (pid, _) in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            std::thread::sleep(LOOK / 5);
        }
        eprintln!("left running: {:?}", self.left_running());
    }

    /// What `platform.json` says.
    pub fn about(&self) -> Value {
        let text = std::fs::read(self.folder().join("platform.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Changes settings of the mock payment gateway, and returns all of them.
    pub async fn payment_gateway(&self, settings: Value) -> Value {
        let secrets = std::fs::read(self.folder().join("secrets.json")).unwrap();
        let secrets: Value = serde_json::from_slice(&secrets).unwrap();
        let url = format!("{}/test/settings", text(&self.about()["payment_gateway_url"]));
        let request = self.http.post(url).bearer_auth(text(&secrets["payment_gateway_key"])).json(&settings);
        request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    /// What it printed on standard error: warnings, errors and panics.
    pub fn complaints(&self) -> String {
        std::fs::read_to_string(self.complaints_file()).unwrap()
    }

    fn complaints_file(&self) -> PathBuf {
        self.home.path().join("complaints")
    }

    /// One of its logs.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join("logs").join(name)).unwrap()
    }

    /// The private nats-server's folder.
    pub fn nats_folder(&self) -> PathBuf {
        self.folder().join("nats")
    }

    /// Processes of the private PostgreSQL (`postgres`) or nats-server (`nats`): those that name the folder.
    pub fn server_processes(&self, server: &str) -> Vec<i32> {
        let program = if server == "nats" { "nats-server" } else { "postgres" };
        let folder = self.folder().to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let all: Vec<(i32, String, i32)> = processes
            .filter_map(|p| {
                let pid: i32 = p.file_name().to_str()?.parse().ok()?;
                let name = std::fs::read_to_string(p.path().join("comm")).ok()?.trim().to_owned();
                let stat = std::fs::read_to_string(p.path().join("stat")).ok()?;
                let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
                (name == program).then_some((pid, name, parent))
            })
            .collect();
        let names_folder = |pid: i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&folder)
        };
        let heads: Vec<i32> = all.iter().map(|p| p.0).filter(|&pid| names_folder(pid)).collect();
        assert!(!heads.is_empty(), "{server} runs");
        all.iter().filter(|p| heads.contains(&p.0) || heads.contains(&p.2)).map(|p| p.0).collect()
    }

    /// kill -9 of a part that has a process of its own; returns its process id.
    pub fn kill_part(&self, name: &str) -> i64 {
        let pid = self.about()["processes"][name].as_i64().unwrap_or_else(|| panic!("{name} has a process"));
        let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        pid
    }

    /// Runs another command of the binary on this platform.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs a command with `--json`; its exit code and what it printed.
    pub async fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let told = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}{err}"));
        (output.status.code().unwrap_or(-1), told)
    }

    /// What the audit finds now, as `<severity> <rule> <saga>`; a violation of a promise is `violation`.
    pub async fn findings(&self) -> Vec<String> {
        let (_, audit) = self.json(&["audit"]).await;
        let words = |finding: &Value| {
            let words = ["severity", "rule", "saga"].map(|name| finding[name].as_str().unwrap_or_default());
            words.join(" ").trim().to_owned()
        };
        audit["findings"].as_array().unwrap_or_else(|| panic!("{audit}")).iter().map(words).collect()
    }

    /// A connection to one of the services' databases.
    pub async fn database(&self, name: &str) -> PgConnection {
        let about = self.about();
        let url = format!("{}/{}{name}", text(&about["database_url"]), text(&about["database_prefix"]));
        PgConnection::connect(&url).await.unwrap()
    }

    /// Waits until payments has ended each charge, whatever became of its saga: only then is it known what stands.
    pub async fn settled(&self) {
        let due = eventicket_payments::State::ALL.into_iter().filter(|state| state.is_due());
        let due: Vec<&str> = due.map(eventicket_payments::State::name).collect();
        self.until("every charge has ended", async || {
            let mut database = self.database(eventicket_payments::DATABASE).await;
            let open = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM charges WHERE state = ANY($1)").bind(&due);
            open.fetch_one(&mut database).await.unwrap() == 0
        })
        .await;
    }

    /// Waits until no saga runs, then sees that the audit finds nothing.
    pub async fn audit(&self) {
        let operator = self.operator().await;
        self.until("no saga runs", async || {
            let mut running = 0;
            for state in ["running", "waiting", "held", "paused", "compensating"] {
                let page = self.get(&operator, &format!("/v1/sagas?state={state}")).await;
                running += page["items"].as_array().map_or(1, Vec::len);
            }
            running == 0
        })
        .await;
        let audit = self.run(&["audit"]).await;
        let (out, err) = (String::from_utf8_lossy(&audit.stdout), String::from_utf8_lossy(&audit.stderr));
        assert!(audit.status.success(), "{out}{err}");
    }

    /// Looks again and again until it holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !holds().await {
            assert!(started.elapsed() < GUARD, "in vain: {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tokens of many customers.
    pub async fn customers(&self, number: usize) -> Vec<String> {
        let made = self.run(&["customers", &number.to_string()]).await;
        let tokens: Vec<String> = String::from_utf8(made.stdout).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(tokens.len(), number, "{}", String::from_utf8_lossy(&made.stderr));
        tokens
    }

    /// Payment intents of a booking, whatever became of them.
    pub fn intents(&self, booking: &Value) -> Vec<eventicket_mock_gateway::ledger::Intent> {
        let (id, folder) = (text(&booking["id"]), PathBuf::from(text(&self.about()["ledger"])));
        let mut intents = eventicket_mock_gateway::ledger::read(&folder).unwrap().intents;
        intents.retain(|intent| intent.metadata.get("saga") == Some(&id));
        intents
    }

    /// Lines of the payment gateway's ledger for calls whose key begins so: changes that were made, and refusals.
    pub fn calls(&self, key: &str) -> Vec<Value> {
        let file = PathBuf::from(text(&self.about()["ledger"])).join(eventicket_mock_gateway::ledger::FILE);
        let ledger = std::fs::read_to_string(file).unwrap();
        let lines = ledger.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["key"].as_str().is_some_and(|known| known.starts_with(key))).collect()
    }

    /// Charges that stand for a booking.
    pub fn standing(&self, booking: &Value) -> usize {
        self.charges().get(&text(&booking["id"])).map_or(0, Vec::len)
    }

    /// Charges in the payment gateway's ledger that stand: succeeded and not given back, by booking.
    pub fn charges(&self) -> std::collections::BTreeMap<String, Vec<eventicket_mock_gateway::ledger::Intent>> {
        use eventicket_mock_gateway::ledger::{Status, read};
        let folder = PathBuf::from(text(&self.about()["ledger"]));
        let mut charges: std::collections::BTreeMap<_, Vec<_>> = std::collections::BTreeMap::new();
        for intent in read(&folder).unwrap().intents {
            if intent.status == Status::Succeeded && intent.refunded < intent.amount {
                let saga = intent.metadata.get("saga").cloned();
                charges.entry(saga.unwrap_or_default()).or_default().push(intent);
            }
        }
        charges
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let logs = std::fs::read_dir(self.folder().join("logs")).into_iter().flatten().flatten();
            for log in logs.map(|log| log.path()).chain([self.complaints_file()]) {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(15).collect();
                eprintln!("--- {}\n{}", log.display(), tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

/// A JSON string's text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}")).to_owned()
}

/// Shows a figure that a test measured; `cargo test -- --nocapture` prints it.
#[allow(clippy::print_stdout)]
pub fn figure(text: &str) {
    println!("{text}");
}
