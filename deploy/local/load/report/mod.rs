//! What is written about a run: one value, which is the JSON file, and from which everything else is made.

pub mod html;
pub mod readme;
pub mod svg;
pub mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::story::Kind;
use super::tally::{self, LATE, Latencies, Tally, WINDOW};
use super::watch::Sample;
use super::watch::processes::GENERATOR;

/// Share of late starts beyond which the generator was the limit.
const LATE_SHARE: f64 = 0.01;
/// Share of a core beyond which the generator's thread was the limit.
const BUSY_SHARE: f64 = 0.85;

/// A run, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// When it began, RFC 3339.
    pub at: String,
    /// What was run.
    pub command: String,
    /// A name for it, where it was given one.
    #[serde(default)]
    pub name: String,
    /// Where.
    pub machine: Machine,
    /// What was sent.
    pub plan: Plan,
    /// By phase of the schedule.
    pub phases: Vec<Phase>,
    /// By second.
    pub seconds: Vec<Second>,
    /// By what customers did.
    pub ways: Vec<Way>,
    /// How the generator did.
    pub generator: Generator,
    /// CPU by process.
    pub cpu: Vec<Cpu>,
    /// CPU of the threads of a platform that is one process, by their names.
    #[serde(default)]
    pub threads: Vec<Cpu>,
    /// Share of the machine's cores that were busy, with everything.
    pub busy: f64,
    /// The platform, looked at once a second.
    pub samples: Vec<Sample>,
    /// Time by step of the saga, from the histories of some bookings.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What the audit said.
    #[serde(default)]
    pub audit: Option<Audit>,
    /// Mails that waited at the end, and how long they took to leave.
    #[serde(default)]
    pub mails: Option<Mails>,
    /// How long it took until all was normal again.
    #[serde(default)]
    pub settled: Option<Settled>,
    /// The rates that were tried.
    #[serde(default)]
    pub knee: Option<super::knee::Knee>,
    /// What sagas that wait did to it.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// What a slow payment gateway did to free bookings.
    #[serde(default)]
    pub slow_gateway: Option<SlowGateway>,
}

/// Where it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// What they are.
    pub model: String,
    /// Version of this program.
    pub version: String,
    /// Of the working copy in the current folder, where there is one; `+` where files were changed since.
    pub commit: Option<String>,
    /// Whether the program was built with optimizations.
    pub release: bool,
}

/// What was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The API.
    pub url: String,
    /// Bookings a second.
    pub rate: f64,
    /// Seconds.
    pub seconds: f64,
    /// Events.
    pub events: usize,
    /// Customers.
    pub customers: usize,
    /// Whether tickets cost something.
    pub paid: bool,
    /// The mix.
    pub mix: String,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were counted.
    pub count: u64,
    /// The middle one.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// Of what was counted.
    pub fn of(latencies: &Latencies) -> Self {
        let ms = |share| (latencies.quantile(share) as f64 / 100.0).round() / 10.0;
        Self { count: latencies.count(), p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), p999: ms(0.999), max: ms(1.0) }
    }
}

/// What became of the bookings of a phase.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Bookings a second that were to begin.
    pub rate: f64,
    /// How long it lasted, seconds.
    pub seconds: f64,
    /// Bookings that began.
    pub offered: u64,
    /// Of them confirmed.
    pub confirmed: u64,
    /// Confirmed in its time, whenever they began, a second.
    pub goodput: f64,
    /// By how they ended.
    pub ends: BTreeMap<String, u64>,
    /// Ended otherwise than they must.
    pub unexpected: u64,
    /// From the intended start to `confirmed`.
    pub latency: Percentiles,
    /// From the intended start to 429.
    pub refusal: Percentiles,
    /// From the request to 429.
    pub refusal_wire: Percentiles,
    /// 429 without `Retry-After`.
    pub without_retry_after: u64,
    /// From the intended start to 503.
    pub unavailable: Percentiles,
}

/// A second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its beginning.
    pub at: f64,
    /// Bookings that were to begin in it.
    pub offered: u32,
    /// Confirmed in it.
    pub confirmed: u32,
    /// Refused in it.
    pub refused: u32,
    /// Ended otherwise in it.
    pub other: u32,
    /// Latency of those that were to begin in it, ms.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// The same.
    pub max: f64,
}

/// What became of a kind of customers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// Begun.
    pub offered: u64,
    /// Ended as they must.
    pub expected: u64,
    /// Ended otherwise, refusals apart.
    pub unexpected: u64,
    /// From the last thing that the customer did to its end.
    pub latency: Percentiles,
}

/// How the generator did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// From the intended start to the request.
    pub lag: Percentiles,
    /// Starts that left too late.
    pub late: u64,
    /// Starts that found all connections in use.
    pub without_connection: u64,
    /// Connections that were open at the end.
    pub connections: usize,
    /// Requests that were sent.
    pub requests: u64,
    /// CPU of the generator's thread for a request, us.
    pub us_a_request: f64,
    /// Share of a core that its thread used.
    pub busy: f64,
    /// Why it was the limit, where it was.
    pub limits: Vec<String>,
}

/// CPU of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its name.
    pub name: String,
    /// CPU seconds.
    pub seconds: f64,
    /// For a confirmed booking.
    pub us_a_booking: f64,
}

/// Time of a step of the saga.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// From its dispatch to its answer.
    pub latency: Percentiles,
}

/// What the audit said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// How many findings are violations.
    pub violations: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// What could not be read.
    #[serde(default)]
    pub error: Option<String>,
}

/// Mails that waited at the end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Mails {
    /// How many, when the last booking had ended.
    pub waiting: u64,
    /// How many left in the time that was looked at, a second.
    pub rate: f64,
    /// Seconds until none waited: measured, or from the rate where that was not waited for.
    pub drain_seconds: Option<f64>,
    /// Whether it was waited for.
    pub measured: bool,
}

/// The way back to normal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// p99 before the rush, ms.
    pub normal: f64,
    /// Seconds from its end until p99 was normal again and stayed so; none where it did not within the time.
    pub after: Option<f64>,
}

/// Sagas that wait for a payment method, and expire in one second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub sagas: u64,
    /// p99 of bookings before any waited, ms.
    pub p99_before: f64,
    /// The same while all waited.
    pub p99_with: f64,
    /// The same while they expired.
    pub p99_meanwhile: f64,
    /// How many were worked off a second.
    pub expired_a_second: f64,
}

/// A payment gateway that takes long.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SlowGateway {
    /// How long each call takes, ms.
    pub latency_ms: u64,
    /// Bookings by card that were offered a second beside the free ones.
    pub paid_rate: f64,
    /// p99 of free bookings beside the same paid ones while the payment gateway was quick, ms.
    pub p99_before: f64,
    /// p99 of free bookings beside the slow ones, ms.
    pub p99_beside: f64,
}

impl Report {
    /// The phase that is the load: the last but those that only look whether all is normal again.
    pub fn load(&self) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == super::LOAD).or(self.phases.first())
    }
}

/// The phases of a tally.
pub fn phases(schedule: &Schedule, tally: &Tally) -> Vec<Phase> {
    let one = |((phase, begin), counted): ((&super::schedule::Phase, Duration), &tally::Phase)| {
        let number = |at: Duration| (at.as_millis() / WINDOW.as_millis()) as usize;
        let windows = tally.windows.iter().take(number(begin + phase.duration)).skip(number(begin));
        let in_its_time: u64 = windows.map(|window| u64::from(window.confirmed)).sum();
        Phase {
            name: phase.name.clone(),
            rate: phase.rate,
            seconds: phase.duration.as_secs_f64(),
            offered: counted.offered,
            confirmed: counted.ended("confirmed"),
            goodput: in_its_time as f64 / phase.duration.as_secs_f64().max(f64::MIN_POSITIVE),
            ends: counted.ends.clone(),
            unexpected: counted.unexpected,
            latency: Percentiles::of(&counted.confirmed),
            refusal: Percentiles::of(&counted.refused),
            refusal_wire: Percentiles::of(&counted.refused_wire),
            without_retry_after: counted.without_retry_after,
            unavailable: Percentiles::of(&counted.unavailable),
        }
    };
    schedule.phases.iter().zip(schedule.begins()).zip(&tally.phases).map(one).collect()
}

/// The windows of a tally, taken together by second.
pub fn seconds(tally: &Tally) -> Vec<Second> {
    let windows = (Duration::from_secs(1).as_millis() / WINDOW.as_millis()) as usize;
    let one = |(number, windows): (usize, &[tally::Window])| {
        let mut latencies = Latencies::default();
        windows.iter().for_each(|window| latencies.add(&window.latencies));
        let sum = |count: fn(&tally::Window) -> u32| windows.iter().map(count).sum();
        let Percentiles { p50, p99, max, .. } = Percentiles::of(&latencies);
        let (offered, confirmed) = (sum(|w| w.offered), sum(|w| w.confirmed));
        Second {
            at: number as f64,
            offered,
            confirmed,
            refused: sum(|w| w.refused),
            other: sum(|w| w.other),
            p50,
            p99,
            max,
        }
    };
    tally.windows.chunks(windows).enumerate().map(one).collect()
}

/// The kinds of customers that there were.
pub fn ways(tally: &Tally) -> Vec<Way> {
    let one = |(kind, way): (Kind, &tally::Way)| Way {
        name: kind.name().to_owned(),
        offered: way.offered,
        expected: way.expected,
        unexpected: way.unexpected,
        latency: Percentiles::of(&way.latencies),
    };
    Kind::ALL.into_iter().zip(&tally.ways).filter(|(_, way)| way.offered > 0).map(one).collect()
}

/// How the generator did, and whether it was the limit.
pub fn generator(tally: &Tally, connections: usize) -> Generator {
    let (own, elapsed) = (&tally.own, tally.elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
    let (starts, busy) = (own.lag.count().max(1), own.cpu / elapsed);
    let mut limits = Vec::new();
    if own.late as f64 > LATE_SHARE * starts as f64 {
        let share = 100.0 * own.late as f64 / starts as f64;
        limits.push(format!("{share:.1} % of its starts left more than {} ms late", LATE.as_millis()));
    }
    if own.without_connection as f64 > LATE_SHARE * starts as f64 {
        limits.push(format!("{} starts found all connections in use: --connections", own.without_connection));
    }
    if busy > BUSY_SHARE {
        limits.push(format!("its thread used {:.0} % of a core", busy * 100.0));
    }
    Generator {
        lag: Percentiles::of(&own.lag),
        late: own.late,
        without_connection: own.without_connection,
        connections,
        requests: own.requests,
        us_a_request: own.cpu * 1e6 / own.requests.max(1) as f64,
        busy,
        limits,
    }
}

/// CPU by process for a confirmed booking, the largest first.
pub fn cpu(spent: &BTreeMap<String, f64>, confirmed: u64) -> Vec<Cpu> {
    let one = |(name, &seconds): (&String, &f64)| {
        let us_a_booking = seconds * 1e6 / confirmed.max(1) as f64;
        Cpu { name: name.clone(), seconds, us_a_booking }
    };
    let mut rows: Vec<Cpu> = spent.iter().map(one).collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows
}

/// CPU of a process's threads between two looks.
pub fn threads(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, confirmed: u64) -> Vec<Cpu> {
    let spent = |(name, cpu): (&String, &f64)| (name.clone(), cpu - before.get(name).copied().unwrap_or_default());
    cpu(&after.iter().map(spent).collect(), confirmed)
}

/// Mails of which so many were left after a while.
pub fn mails(waiting: u64, left: u64, passed: Duration) -> Mails {
    let rate = waiting.saturating_sub(left) as f64 / passed.as_secs_f64().max(f64::MIN_POSITIVE);
    let drain_seconds = match (left, rate > 0.0) {
        (0, _) => Some(passed.as_secs_f64()),
        (_, true) => Some(waiting as f64 / rate),
        (_, false) => None,
    };
    Mails { waiting, rate, drain_seconds, measured: left == 0 }
}

/// Whether bookings ended otherwise than they must, refusals apart.
pub fn is_wrong(report: &Report) -> bool {
    report.phases.iter().any(|phase| phase.unexpected > 0)
}

/// The machine that this runs on.
pub fn machine() -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        model: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit(),
        release: !cfg!(debug_assertions),
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            std::process::Command::new("git").args(arguments).output().ok().filter(|out| out.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    // What the suite writes about its runs before this one is no change of the program.
    let changed = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)tests/load/README.md",
        ":(top,exclude)tests/load/rush.svg",
    ];
    let changed = git(&changed).is_some_and(|changes| !changes.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

/// The generator's row of the CPU table.
pub const OWN: &str = GENERATOR;
