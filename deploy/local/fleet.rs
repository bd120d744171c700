//! Keeps the platform's parts running: as tasks of this process or as processes of their own, restarted when they end,
//! stopped in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use eventicket_contracts::Clock;
use eventicket_kit::http::{ANY_PORT, Reserved};
use eventicket_kit::{Context, Settings};
use eventicket_nats::{Nats, StreamLimits};
use eventicket_servers::Restarts;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::part::{self, Part};
use crate::platform::Platform;
use crate::threads;

/// How long parts may take to finish what they hold.
const GRACE: Duration = Duration::from_secs(20);
/// A log that is longer at a start is put aside.
const LONG_LOG: u64 = 64 << 20;

/// What all parts are started with.
#[derive(Clone)]
pub struct Plan {
    pub settings: Arc<Settings>,
    /// The platform's folder.
    pub home: PathBuf,
    /// This program, for parts in processes of their own.
    pub program: PathBuf,
    /// Whether parts are processes.
    pub processes: bool,
    /// Of each service.
    pub replicas: u16,
    /// Told when parts start and end.
    pub platform: Arc<Mutex<Platform>>,
}

/// The parts that run, in the order in which they stop.
pub struct Fleet {
    stages: [Stage; 3],
    failed: CancellationToken,
    plan: Plan,
}

#[derive(Default)]
struct Stage {
    stop: CancellationToken,
    parts: JoinSet<()>,
}

impl Fleet {
    /// Starts everything but the REST API; each part waits by itself for what it needs.
    pub fn start(plan: Plan, mock_gateway: bool, mailbox: bool) -> Self {
        let mut fleet = Self { stages: Default::default(), failed: CancellationToken::new(), plan };
        for (wanted, part) in [(mailbox, Part::Mailbox), (mock_gateway, Part::MockGateway)] {
            if wanted {
                fleet.spawn(part, 0);
            }
        }
        Part::SERVICES.into_iter().for_each(|part| fleet.spawn_replicas(part));
        fleet
    }

    /// Opens the REST API.
    pub fn open(&mut self) {
        self.spawn_replicas(Part::Gateway);
    }

    fn spawn_replicas(&mut self, part: Part) {
        for replica in 0..self.plan.replicas {
            self.spawn(part, replica);
        }
    }

    fn spawn(&mut self, part: Part, replica: u16) {
        let stage = match part {
            Part::Gateway => 0,
            part if part.is_service() => 1,
            _ => 2,
        };
        let name = if replica == 0 { part.name().to_owned() } else { format!("{}-{}", part.name(), replica + 1) };
        let Stage { stop, parts } = &mut self.stages[stage];
        let kept = Kept { part, name, plan: self.plan.clone(), stop: stop.clone(), failed: self.failed.clone() };
        parts.spawn(kept.run());
    }

    /// Cancelled when a part that ended again and again is given up.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Stops the REST API first, then the services, then what stands in for the world outside.
    pub async fn stop(self) {
        for mut stage in self.stages {
            stage.stop.cancel();
            let ended = async { while stage.parts.join_next().await.is_some() {} };
            if timeout(GRACE, ended).await.is_err() {
                tracing::warn!("parts that did not stop in time are cut");
            }
            stage.parts.shutdown().await;
        }
    }
}

/// Ends all processes of parts at once.
pub fn cut(platform: &Mutex<Platform>) {
    let platform = platform.lock().unwrap_or_else(PoisonError::into_inner);
    for pid in platform.processes.values().filter_map(|pid| i32::try_from(*pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Ends processes that an earlier start left, which stop by themselves as a rule.
pub async fn stop_leftovers(processes: &BTreeMap<String, u32>) {
    let start = Instant::now();
    for (name, pid) in processes {
        let Ok(pid) = i32::try_from(*pid) else { continue };
        while eventicket_servers::is_running(pid, "serve") {
            let signal = if start.elapsed() < GRACE { Signal::SIGTERM } else { Signal::SIGKILL };
            tracing::warn!(name, pid, %signal, "stopping a process that was left running");
            let _ = kill(Pid::from_raw(pid), signal);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One part that is kept running.
struct Kept {
    part: Part,
    name: String,
    plan: Plan,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Kept {
    async fn run(self) {
        let mut restarts = Restarts::default();
        loop {
            let end = if self.plan.processes && self.part != Part::Mailbox {
                self.process().await
            } else {
                self.task().await
            };
            if self.stop.is_cancelled() {
                return;
            }
            let error = end.err().unwrap_or_else(|| anyhow!("it ended before its time"));
            let Some(pause) = restarts.next(Instant::now()) else {
                tracing::error!(
                    part = self.name,
                    error = format!("{error:#}"),
                    "given up after five restarts in a minute"
                );
                return self.failed.cancel();
            };
            tracing::error!(part = self.name, error = format!("{error:#}"), ?pause, "ended, and is started again");
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Runs it on threads of its own ([`threads`]); a panic ends it like an error.
    async fn task(&self) -> anyhow::Result<()> {
        let (shutdown, cut) = (self.stop.child_token(), CancellationToken::new());
        // What it spawned ends with it; cutting this future, as after the grace, cuts it too.
        let _guards = (shutdown.clone().drop_guard(), cut.clone().drop_guard());
        let (part, plan, name) = (self.part, self.plan.clone(), self.name.clone());
        let part = async move {
            match part {
                Part::MockGateway => part::mock_gateway(&plan.settings, ledger(&plan.home), shutdown).await,
                Part::Mailbox => part::mailbox(&plan.settings, mails(&plan.home), shutdown).await,
                service => {
                    let nats = Nats::connect(&plan.settings.nats_url, &name).await?;
                    let limits = StreamLimits::default();
                    let ctx = Context { settings: plan.settings, nats, clock: Clock::system(), shutdown, limits };
                    service.serve(ctx).await
                }
            }
        };
        threads::run(&self.name, part, cut)?.await.context("its thread ended")?
    }

    /// Runs it in a process of its own, which ends when the pipe to this one closes.
    async fn process(&self) -> anyhow::Result<()> {
        let port =
            self.part.is_service().then(|| Reserved::new(ANY_PORT)).transpose().context("there is no free port")?;
        let metrics = port.as_ref().map(Reserved::address).transpose()?;
        let mut settings = Settings::clone(&self.plan.settings);
        settings.metrics_listen = metrics;
        let log = open_log(&self.plan.home.join("logs").join(format!("{}.log", self.name)))?;
        let mut command = Command::new(&self.plan.program);
        command.args(["serve", self.part.name(), "--supervised"]);
        if self.part == Part::MockGateway {
            command.arg("--data").arg(ledger(&self.plan.home));
        }
        command.env(threads::VARIABLE, threads::number().to_string());
        command.envs(settings.to_env()).env(crate::home::VARIABLE, &self.plan.home);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.plan.program.display()))?;
        // Waiting would close it.
        let pipe = child.stdin.take();
        self.tell(child.id(), metrics);
        let end = match self.stop.run_until_cancelled(child.wait()).await {
            Some(status) => Err(anyhow!("it ended with {}", status?)),
            None => {
                drop(pipe);
                child.wait().await.map(|_| ()).map_err(Into::into)
            }
        };
        self.tell(None, None);
        end
    }

    fn tell(&self, pid: Option<u32>, metrics: Option<SocketAddr>) {
        let mut platform = self.plan.platform.lock().unwrap_or_else(PoisonError::into_inner);
        platform.processes.remove(&self.name);
        platform.metrics.remove(&self.name);
        platform.processes.extend(pid.map(|pid| (self.name.clone(), pid)));
        platform.metrics.extend(metrics.map(|at| (self.name.clone(), format!("http://{at}/metrics"))));
        if let Err(error) = platform.write(&self.plan.home) {
            tracing::warn!(error = format!("{error:#}"), "the processes are not told");
        }
    }
}

/// Folder of the mock payment gateway's ledger.
pub fn ledger(home: &std::path::Path) -> PathBuf {
    home.join("mock-gateway")
}

/// Folder of the mails that were caught.
pub fn mails(home: &std::path::Path) -> PathBuf {
    home.join("mail")
}

/// A log that is appended to, put aside as `<name>.log.old` where it is long.
pub fn open_log(path: &std::path::Path) -> anyhow::Result<File> {
    if std::fs::metadata(path).is_ok_and(|log| log.len() > LONG_LOG) {
        let _ = std::fs::rename(path, path.with_extension("log.old"));
    }
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write to {}", path.display()))
}
