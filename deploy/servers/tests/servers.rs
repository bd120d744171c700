//! The servers start, stop, survive and leave nothing behind: tried with real ones and a process of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use eventicket_servers::{Error, Home, Options, Servers, is_running};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

const CHILD_HOME: &str = "EVENTICKET_TEST_CHILD_HOME";

async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::from_str(url)?.database("postgres").disable_statement_logging().connect().await
}

async fn write(url: &str, text: &str) {
    let mut connection = connect(url).await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (text text)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn read(url: &str) -> Vec<String> {
    let mut connection = connect(url).await.unwrap();
    sqlx::query_scalar("SELECT text FROM kept ORDER BY text").fetch_all(&mut connection).await.unwrap()
}

/// The servers' process ids: of PostgreSQL and nats-server in this order.
fn pids(home: &Path) -> [Pid; 2] {
    ["postgres/data/postmaster.pid", "nats/pid"].map(|file| pid(&home.join(file)).unwrap())
}

fn pid(file: &Path) -> Option<Pid> {
    std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok().map(Pid::from_raw)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn all_gone(home: &Path, pids: [Pid; 2]) {
    let mark = home.to_string_lossy().into_owned();
    until("the servers end", async || pids.iter().all(|pid| !is_running(pid.as_raw(), &mark))).await;
}

/// A home in a place that PostgreSQL's user can reach, also where the tests run as root.
fn folder() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let home = parent.path().canonicalize().unwrap().join("home");
    (parent, home)
}

/// A process in a group of its own that runs servers in the home and waits to be killed.
fn spawn_child(home: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "runs_servers_for_another_test", "--nocapture"]).env(CHILD_HOME, home);
    let mut child = command.process_group(0).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("servers are up")), "the child ended early");
    child
}

#[tokio::test]
#[allow(clippy::print_stdout)] // tells the test that started it
async fn runs_servers_for_another_test() {
    let Some(home) = std::env::var_os(CHILD_HOME) else { return };
    let home = Home::open(Path::new(&home)).unwrap();
    let servers = Servers::start(&home, Options::default()).await.unwrap();
    write(&servers.database_url, "from the child").await;
    println!("servers are up");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first() {
    let (_parent, root) = folder();
    for run in ["first", "second"] {
        let home = Home::open(&root).unwrap();
        let servers = Servers::start(&home, Options::default()).await.unwrap();
        write(&servers.database_url, run).await;
        assert!(matches!(Home::open(&root), Err(Error::InUse(_))));
        let pids = pids(&root);
        if run == "second" {
            assert_eq!(read(&servers.database_url).await, ["first", "second"]);
        }
        servers.stop().await;
        assert!(pids.iter().all(|pid| kill(*pid, None).is_err()), "stop returns when the servers have ended");
    }
}

#[tokio::test]
async fn kill_9_of_the_whole_group_leaves_nothing_and_the_next_start_works() {
    let (_parent, root) = folder();
    let mut child = spawn_child(&root);
    let running = pids(&root);
    killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    all_gone(&root, running).await;

    let home = Home::open(&root).unwrap();
    let servers = Servers::start(&home, Options::default()).await.unwrap();
    assert_eq!(read(&servers.database_url).await, ["from the child"]);
    servers.stop().await;
}

#[tokio::test]
async fn a_start_at_once_after_a_kill_waits_for_what_is_stopping() {
    let (_parent, root) = folder();
    let mut child = spawn_child(&root);
    child.kill().unwrap();
    child.wait().unwrap();
    let home = Home::open(&root).unwrap();
    let servers = Servers::start(&home, Options::default()).await.unwrap();
    assert_eq!(read(&servers.database_url).await, ["from the child"]);
    servers.stop().await;
}

#[tokio::test]
async fn stale_files_of_a_kill_of_everything_do_not_hinder() {
    let (_parent, root) = folder();
    let mut child = spawn_child(&root);
    let running = pids(&root);
    for pid in running {
        // The watchdog leads the group.
        killpg(getpgid(Some(pid)).unwrap(), Signal::SIGKILL).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    all_gone(&root, running).await;
    assert!(root.join("postgres/data/postmaster.pid").exists());

    let home = Home::open(&root).unwrap();
    let servers = Servers::start(&home, Options::default()).await.unwrap();
    assert_eq!(read(&servers.database_url).await, ["from the child"]);
    servers.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_comes_back_at_its_port() {
    let home = Home::temporary().unwrap();
    let servers = Servers::start(&home, Options { durable: false, ..Options::default() }).await.unwrap();
    let (before, url) = (pids(home.path()), servers.database_url.clone());
    for pid in before {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let renewed = |file, before| pid(&home.path().join(file)).is_some_and(|pid| pid != before);
    let postgres = async || renewed("postgres/data/postmaster.pid", before[0]) && connect(&url).await.is_ok();
    until("PostgreSQL comes back", postgres).await;
    let port = servers.nats_url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let listens = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    until("nats-server comes back", async || renewed("nats/pid", before[1]) && listens().await).await;
    assert!(!servers.failed().is_cancelled());
    servers.stop().await;
    assert!(!home.path().exists(), "a temporary home is removed");
}

#[tokio::test]
async fn postgres_comes_back_beside_a_session_that_does_not_end() {
    let home = Home::temporary().unwrap();
    let servers = Servers::start(&home, Options { durable: false, ..Options::default() }).await.unwrap();
    let (server, url) = (pids(home.path())[0], servers.database_url.clone());
    let mut session = connect(&url).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    kill(server, Signal::SIGKILL).unwrap();
    let again = async || pids(home.path())[0] != server && connect(&url).await.is_ok();
    let began = Instant::now();
    until("PostgreSQL comes back", async || home.path().join("postgres/data/postmaster.pid").exists() && again().await)
        .await;
    assert!(!is_running(pid, "postgres"), "the session was ended");
    assert!(!servers.failed().is_cancelled(), "after {:?}", began.elapsed());
    servers.stop().await;
}
