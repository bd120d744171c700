//! What the platform does while it is loaded, looked at once a second: processes, queues, commands in flight, mails.
//!
//! Each source that is not there is left out of the samples: a platform elsewhere shows its API only.

pub mod metrics;
pub mod processes;
mod queues;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::processes::{Cores, Processes, Usage};
pub use self::queues::Queues;
use crate::platform::Platform;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a page of metrics may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What was seen at one look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds from the beginning.
    pub at: f64,
    /// Cores in use since the last look, by process.
    pub cores: BTreeMap<String, f64>,
    /// Bytes, by process.
    pub memory: BTreeMap<String, u64>,
    /// Messages in the streams, each of them an envelope with up to 256 commands or replies.
    pub queues: BTreeMap<String, u64>,
    /// Commands that the orchestrator waits for, by service.
    pub in_flight: BTreeMap<String, i64>,
    /// Figures from the pages of metrics.
    pub metrics: BTreeMap<String, f64>,
}

/// What to look at.
pub struct Watched {
    processes: Processes,
    queues: Option<Queues>,
    http: reqwest::Client,
    pages: Vec<String>,
}

impl Watched {
    /// A platform of this machine where there is one, else its API only.
    ///
    /// # Errors
    /// The platform's NATS or PostgreSQL cannot be reached.
    pub async fn new(url: &str, local: Option<(&Platform, &eventicket_kit::Settings)>) -> anyhow::Result<Self> {
        let platform = local.map(|(platform, _)| platform);
        let named = platform.map(|platform| platform.processes.clone()).unwrap_or_default();
        let prefix = platform.map_or("", |platform| &platform.database_prefix);
        let mut pages = vec![format!("{url}/metrics")];
        pages.extend(platform.iter().flat_map(|platform| platform.metrics.values().cloned()));
        let queues = match local {
            Some((_, settings)) => Some(Queues::connect(settings).await?),
            None => None,
        };
        Ok(Self {
            processes: Processes::new(platform.map(|platform| platform.pid), &named, prefix),
            queues,
            http: reqwest::Client::builder().timeout(ANSWER).no_proxy().build()?,
            pages,
        })
    }

    /// CPU and memory now.
    pub fn usage(&mut self) -> Usage {
        self.processes.look()
    }

    /// Figures of the pages of metrics now.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let pages = self.pages.iter().map(async |url| self.http.get(url).send().await.ok()?.text().await.ok());
        let pages: Vec<String> = futures::future::join_all(pages).await.into_iter().flatten().collect();
        metrics::figures(&pages)
    }

    /// Mails that wait; none where nothing tells it.
    pub async fn mails_waiting(&self) -> Option<u64> {
        match &self.queues {
            Some(queues) => queues.mails().await,
            None => self.metrics().await.get(metrics::MAILS_WAITING).map(|waiting| *waiting as u64),
        }
    }

    async fn sample(&mut self, at: f64, before: &Usage, passed: f64) -> (Sample, Usage) {
        let usage = self.processes.look();
        let cores = usage.cpu.iter().map(|(name, cpu)| {
            let earlier = before.cpu.get(name).copied().unwrap_or_default();
            (name.clone(), (cpu - earlier) / passed.max(f64::MIN_POSITIVE))
        });
        let mut sample = Sample { at, cores: cores.collect(), memory: usage.memory.clone(), ..Sample::default() };
        sample.metrics = self.metrics().await;
        if let Some(queues) = &self.queues {
            (sample.queues, sample.in_flight) = tokio::join!(queues.streams(), queues.in_flight());
        }
        (sample, usage)
    }
}

/// A run of looks.
pub struct Watcher {
    stop: CancellationToken,
    task: JoinHandle<(Watched, Vec<Sample>)>,
    first: Usage,
    cores: Cores,
}

/// What a watcher saw.
pub struct Seen {
    /// To look again.
    pub watched: Watched,
    /// One a second.
    pub samples: Vec<Sample>,
    /// CPU seconds by process.
    pub cpu: BTreeMap<String, f64>,
    /// Share of the machine's cores that were busy.
    pub busy: f64,
}

impl Watcher {
    /// Begins to look.
    pub fn start(mut watched: Watched) -> Self {
        let (stop, started, first) = (CancellationToken::new(), Instant::now(), watched.usage());
        let (stopped, mut before) = (stop.clone(), first.clone());
        let task = tokio::spawn(async move {
            let (mut samples, mut last) = (Vec::new(), 0.0);
            let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
            while stopped.run_until_cancelled(tick.tick()).await.is_some() {
                let at = started.elapsed().as_secs_f64();
                let (sample, usage) = watched.sample(at, &before, at - last).await;
                samples.push(sample);
                (before, last) = (usage, at);
            }
            (watched, samples)
        });
        Self { stop, task, first, cores: Cores::look() }
    }

    /// Ends it.
    ///
    /// # Errors
    /// It had ended by itself.
    pub async fn stop(self) -> anyhow::Result<Seen> {
        let cores = Cores::look();
        self.stop.cancel();
        let (mut watched, samples) = self.task.await?;
        let spent = |(name, cpu): (String, f64)| {
            let more = cpu - self.first.cpu.get(&name).copied().unwrap_or_default();
            (more > 0.0).then_some((name, more))
        };
        let cpu = watched.usage().cpu.into_iter().filter_map(spent).collect();
        Ok(Seen { watched, samples, cpu, busy: cores.since(self.cores) })
    }
}
