//! Carries faults out.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, Context};
use eventicket_contracts::subjects::{DEADLETTERS_STREAM, EVENTS_STREAM, REPLIES_STREAM, Service};
use futures::TryStreamExt as _;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

use crate::faults::{Fault, Kind, Target};
use crate::processes::{self, Paused, children, of_file};
use crate::proxy::{Proxy, Weather};
use crate::site::{MARK, Site};

/// A killed process is gone within this.
const ENDING: Duration = Duration::from_secs(20);
/// The API of the broker answers within this, where it runs.
const ANSWER: Duration = Duration::from_secs(5);
/// Least and most delay of a slowed connection's packets, ms.
const DELAYS: (u64, u64) = (20, 80);

/// Carries the fault out, to its end where it lasts; tells what exactly was struck.
pub async fn strike(site: &mut Site, fault: &Fault) -> anyhow::Result<String> {
    match (fault.kind, fault.target) {
        (Kind::Killed | Kind::Restarted | Kind::Paused, Target::Part(part)) => part_of(site, fault, part).await,
        (Kind::Killed | Kind::Restarted | Kind::Paused, server) => whole(site, fault, server).await,
        (Kind::SessionKilled, _) => session(site, fault).await,
        (Kind::StoreDeleted, _) => store(site).await,
        (Kind::StreamDeleted, _) => stream(site, fault.which).await,
        (Kind::ConsumerDeleted, _) => consumer(site, fault.which).await,
        (Kind::Cut | Kind::Slowed | Kind::Stalled, target) => {
            Ok(connections(if target == Target::Nats { &site.broker } else { &site.database }, fault).await)
        }
    }
}

async fn part_of(site: &mut Site, fault: &Fault, part: &str) -> anyhow::Result<String> {
    let replicas = site.replicas(part)?;
    ensure!(!replicas.is_empty(), "{part} has no process");
    let (name, pid) = replicas[chosen(fault.which, replicas.len())].clone();
    // Its id alone could be another's by now.
    ensure!(eventicket_servers::is_running(pid.as_raw(), MARK), "{name} does not run");
    match fault.kind {
        Kind::Paused => pause(vec![pid], fault.lasts).await,
        kind => {
            processes::signal(pid, if kind == Kind::Killed { Signal::SIGKILL } else { Signal::SIGTERM });
            ensure!(processes::gone(pid, MARK, ENDING).await, "{name} does not end");
        }
    }
    Ok(name)
}

/// A server, with all its processes.
async fn whole(site: &Site, fault: &Fault, server: Target) -> anyhow::Result<String> {
    let (pid, mark) = head(site, server)?;
    match fault.kind {
        Kind::Paused => pause([vec![pid], children(pid)].concat(), fault.lasts).await,
        kind => {
            // What PostgreSQL takes for a restart that waits for nobody.
            let gentle = if server == Target::Postgres { Signal::SIGINT } else { Signal::SIGTERM };
            processes::signal(pid, if kind == Kind::Killed { Signal::SIGKILL } else { gentle });
            ensure!(processes::gone(pid, &mark, ENDING).await, "{} does not end", server.name());
        }
    }
    Ok(server.name().to_owned())
}

/// The first process of a server, and what stands in its command line.
fn head(site: &Site, server: Target) -> anyhow::Result<(Pid, String)> {
    let folder = site.servers_folder().canonicalize()?;
    let (file, mark) = match server {
        Target::Postgres => (folder.join("postgres/data/postmaster.pid"), folder.join("postgres/data")),
        _ => (folder.join("nats/pid"), folder.join("nats")),
    };
    let (pid, mark) = (of_file(&file)?, mark.to_string_lossy().into_owned());
    ensure!(eventicket_servers::is_running(pid.as_raw(), &mark), "{} does not run", server.name());
    Ok((pid, mark))
}

async fn pause(pids: Vec<Pid>, lasts: Duration) {
    let paused = Paused::new(pids);
    sleep(lasts).await;
    drop(paused);
}

/// One session of the platform; PostgreSQL ends all others too and recovers.
async fn session(site: &Site, fault: &Fault) -> anyhow::Result<String> {
    let mut database = site.database("postgres").await?;
    let sessions =
        "SELECT pid, application_name FROM pg_stat_activity WHERE application_name LIKE 'eventicket%' ORDER BY pid";
    let sessions: Vec<(i32, String)> = sqlx::query_as(sessions).fetch_all(&mut database).await?;
    ensure!(!sessions.is_empty(), "the platform has no session");
    let (pid, name) = &sessions[chosen(fault.which, sessions.len())];
    processes::signal(Pid::from_raw(*pid), Signal::SIGKILL);
    Ok(format!("a session of {name}"))
}

/// Removes what JetStream stores while its server is down.
async fn store(site: &Site) -> anyhow::Result<String> {
    let (pid, mark) = head(site, Target::Nats)?;
    processes::signal(pid, Signal::SIGKILL);
    ensure!(processes::gone(pid, &mark, ENDING).await, "nats-server does not end");
    let folder: PathBuf = site.servers_folder().join("nats/store");
    std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    Ok("all streams".to_owned())
}

async fn stream(site: &Site, which: u64) -> anyhow::Result<String> {
    let (broker, streams) = (broker(site).await?, streams());
    let name = &streams[chosen(which, streams.len())];
    timeout(ANSWER, broker.delete_stream(name)).await??;
    Ok(name.clone())
}

async fn consumer(site: &Site, which: u64) -> anyhow::Result<String> {
    let broker = broker(site).await?;
    let mut consumers = Vec::new();
    for stream in streams() {
        let names = timeout(ANSWER, broker.get_stream(&stream)).await??.consumer_names();
        let names: Vec<String> = timeout(ANSWER, names.try_collect()).await??;
        consumers.extend(names.into_iter().map(|name| (stream.clone(), name)));
    }
    ensure!(!consumers.is_empty(), "no stream has a consumer");
    let (stream, name) = &consumers[chosen(which, consumers.len())];
    timeout(ANSWER, broker.get_stream(stream)).await??.delete_consumer(name).await?;
    Ok(format!("{name} of {stream}"))
}

fn streams() -> Vec<String> {
    let others = [REPLIES_STREAM, EVENTS_STREAM, DEADLETTERS_STREAM].map(str::to_owned);
    Service::ALL.into_iter().map(Service::stream).chain(others).collect()
}

/// JetStream's API, not through the proxy.
async fn broker(site: &Site) -> anyhow::Result<Context> {
    let url: url::Url = site.servers()?.1.parse()?;
    let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    let address = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or_default());
    let client = async_nats::ConnectOptions::new().user_and_password(user, password).connect(address);
    Ok(jetstream::new(timeout(ANSWER, client).await??))
}

async fn connections(proxy: &Proxy, fault: &Fault) -> String {
    let (least, most) = DELAYS;
    let weather = match fault.kind {
        Kind::Cut => return format!("{} connections", proxy.cut(fault.which)),
        Kind::Stalled => Weather::Still,
        _ => Weather::Slow(Duration::from_millis(least + fault.which % (most - least + 1))),
    };
    proxy.set(weather);
    sleep(fault.lasts).await;
    proxy.set(Weather::Fair);
    match weather {
        Weather::Slow(delay) => format!("by {} ms each way", delay.as_millis()),
        _ => "all connections".to_owned(),
    }
}

fn chosen(which: u64, of: usize) -> usize {
    (which % of as u64) as usize
}
