//! One run: from the API's address to the report.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use eventicket_contracts::Clock;
use eventicket_kit::Settings;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::engine::{Engine, Progress};
use super::knee::{self, Demand, Knee, Search};
use super::mix::Mix;
use super::report::{self, Audit, Mails, Percentiles, Plan, Report, Step, text};
use super::schedule::Schedule;
use super::site::{Login, Programme, Site};
use super::tally::{Latencies, Tally};
use super::watch::{Watched, Watcher, processes};
use super::wire::{Encoder, ID};
use crate::commands::audit;
use crate::output;
use crate::platform::Platform;

/// Between two drawings of the progress.
const DRAW: Duration = Duration::from_millis(250);
/// Histories that are read at once.
const HISTORIES: usize = 8;
/// How much a rate that holds is raised at first, and the share of it to which the knee is told.
const KNEE_FACTOR: f64 = 1.25;
const KNEE_PRECISION: f64 = 0.04;
/// Between two rates, so that the platform is as idle as before the first.
const KNEE_PAUSE: Duration = Duration::from_secs(2);
/// How long mails are looked at to know how fast they leave.
const MAILS: Duration = Duration::from_secs(5);
/// How long it is waited for the last of them.
const LONGEST_DRAIN: Duration = Duration::from_secs(3_600);

/// A platform of this machine, with its folder.
pub struct Local {
    /// Where it is.
    pub home: PathBuf,
    /// Its processes and addresses.
    pub platform: Platform,
    /// Its secrets.
    pub settings: Settings,
}

/// How it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// What customers do.
    pub mix: Mix,
    /// Bookings of one event before the next one's turn.
    pub block: u64,
    /// Most connections.
    pub connections: usize,
}

/// What is run.
pub struct Trial {
    /// The API.
    pub site: Site,
    /// The same, where it is on this machine.
    pub local: Option<Local>,
    /// What is booked.
    pub programme: Programme,
    /// Whose histories are read.
    pub operator: Login,
    /// What customers do.
    pub mix: Mix,
    /// How many customers.
    pub customers: usize,
    /// Sends it; busy while a run goes on.
    engine: Option<Engine>,
    watched: Option<Watched>,
    clock: Clock,
}

impl Trial {
    /// Prepares it.
    ///
    /// # Errors
    /// The platform's NATS or PostgreSQL cannot be reached.
    pub async fn new(
        site: Site,
        local: Option<Local>,
        programme: Programme,
        operator: Login,
        tokens: &[String],
        Sending { mix, block, connections }: Sending,
    ) -> anyhow::Result<Self> {
        let run = uuid::Uuid::new_v4().as_u64_pair().0;
        let encoder = Encoder::new(&site.host, tokens, &programme.targets, programme.paid, run).in_blocks(block);
        let engine = Engine::new(site.address, encoder, mix, programme.hold, connections)?;
        let watched = Watched::new(&site.url, local.as_ref().map(|local| (&local.platform, &local.settings))).await?;
        let (engine, watched) = (Some(engine), Some(watched));
        let customers = tokens.len();
        Ok(Self { site, local, programme, operator, mix, customers, engine, watched, clock: Clock::system() })
    }

    /// Sends the schedule and tells what came of it.
    ///
    /// # Errors
    /// The generator fails.
    pub async fn run(&mut self, schedule: &Schedule) -> anyhow::Result<(Report, Tally)> {
        let at = self.clock.now().to_string();
        let threads = self.threads();
        let watcher = Watcher::start(self.watched.take().context("a run goes on already")?);
        let tally = self.send(schedule).await;
        let seen = watcher.stop().await?;
        self.watched = Some(seen.watched);
        let tally = tally?;
        let phases = report::phases(schedule, &tally);
        let confirmed = tally.ended("confirmed");
        let longest = schedule.phases.iter().map(|phase| phase.rate).fold(0.0, f64::max);
        let connections = self.engine.as_ref().map_or(0, Engine::connections);
        let report = Report {
            at,
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            name: String::new(),
            machine: report::machine(),
            plan: Plan {
                url: self.site.url.clone(),
                rate: longest,
                seconds: schedule.length().as_secs_f64(),
                events: self.programme.targets.len(),
                customers: self.customers,
                paid: self.programme.paid,
                mix: self.mix.name().to_owned(),
            },
            phases,
            seconds: report::seconds(&tally),
            ways: report::ways(&tally),
            generator: report::generator(&tally, connections),
            cpu: report::cpu(&seen.cpu, confirmed),
            threads: report::threads(&threads, &self.threads(), confirmed),
            busy: seen.busy,
            samples: seen.samples,
            steps: Vec::new(),
            audit: None,
            mails: None,
            settled: None,
            knee: None,
            waiting: None,
            slow_gateway: None,
        };
        Ok((report, tally))
    }

    async fn send(&mut self, schedule: &Schedule) -> anyhow::Result<Tally> {
        let mut engine = self.engine.take().context("a run goes on already")?;
        let progress = Arc::new(Progress::default());
        let bar = bar(schedule.total());
        let (told, schedule) = (progress.clone(), schedule.clone());
        let sending = tokio::task::spawn_blocking(move || {
            let tally = engine.run(&schedule, &told);
            (engine, tally)
        });
        tokio::pin!(sending);
        let mut tick = tokio::time::interval(DRAW);
        let (engine, tally) = loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                _ = tick.tick() => draw(&bar, &progress),
            }
        };
        bar.finish_and_clear();
        self.engine = Some(engine);
        Ok(tally?)
    }

    fn threads(&self) -> std::collections::BTreeMap<String, f64> {
        self.local.as_ref().map(|local| processes::threads(local.platform.pid)).unwrap_or_default()
    }

    /// Time by step, from the histories of some bookings; nothing where no operator can log in.
    pub async fn steps(&self, bookings: &[[u8; ID]]) -> Vec<Step> {
        let Ok(token) = self.site.login(&self.operator).await else { return Vec::new() };
        let ids = bookings.iter().filter_map(|id| std::str::from_utf8(id).ok());
        let histories = ids.map(|id| self.site.history(&token, id));
        let histories: Vec<_> = futures::stream::iter(histories).buffer_unordered(HISTORIES).collect().await;
        let mut steps: Vec<(String, Latencies)> = Vec::new();
        for entry in histories.into_iter().flatten().flatten() {
            let (Some(step), Some(ms), "done") = (entry.step, entry.duration_ms, entry.what.as_str()) else { continue };
            let at = steps.iter().position(|(name, _)| *name == step).unwrap_or_else(|| {
                steps.push((step, Latencies::default()));
                steps.len() - 1
            });
            steps[at].1.record(Duration::from_millis(ms));
        }
        steps.into_iter().map(|(name, all)| Step { name, latency: Percentiles::of(&all) }).collect()
    }

    /// What the audit says; nothing where the platform is elsewhere.
    pub async fn audit(&self) -> Option<Audit> {
        let local = self.local.as_ref()?;
        Some(match audit::verdict(&local.home).await {
            Ok(audit::Verdict { violations, warnings }) => Audit { violations, warnings, error: None },
            Err(error) => Audit { violations: 0, warnings: 0, error: Some(format!("{error:#}")) },
        })
    }

    /// Sends rate after rate until it is known which one still holds; the report is that of the highest one.
    ///
    /// # Errors
    /// The generator fails, or no rate holds.
    pub async fn find_knee(&mut self, first: f64, duration: Duration, demand: Demand) -> anyhow::Result<Report> {
        let (mut search, mut steps, mut best) = (Search::new(first, KNEE_FACTOR, KNEE_PRECISION), Vec::new(), None);
        while let Some(rate) = search.next() {
            let (mut report, tally) = self.run(&Schedule::steady(rate, duration)).await?;
            let step = knee::step(&report, demand);
            output::line(&text::knee_step(&step));
            search.tried(rate, step.held);
            steps.push(step);
            if step.held {
                report.steps = self.steps(&tally.samples).await;
                best = Some(report);
            }
            tokio::time::sleep(KNEE_PAUSE).await;
        }
        let mut report = best.context("no rate holds")?;
        report.knee = Some(Knee { demand, steps, rate: search.knee() });
        Ok(report)
    }

    /// Mails that wait, looked at for a while, or until none is left.
    pub async fn mails(&self, until_none: bool) -> Option<Mails> {
        let watched = self.watched.as_ref()?;
        let (started, waiting) = (Instant::now(), watched.mails_waiting().await?);
        let mut left = waiting;
        let mut passed = Duration::ZERO;
        while left > 0 && (passed < MAILS || (until_none && passed < LONGEST_DRAIN)) {
            tokio::time::sleep(DRAW).await;
            left = watched.mails_waiting().await?;
            passed = started.elapsed();
        }
        Some(report::mails(waiting, left, passed))
    }
}

/// Drawn where standard error is a terminal.
fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {percent:>3} %  {msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    let number = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    bar.set_position(number(&progress.offered));
    bar.set_message(format!(
        "{} confirmed, {} refused, {} in flight",
        number(&progress.confirmed),
        number(&progress.refused),
        number(&progress.in_flight)
    ));
}
