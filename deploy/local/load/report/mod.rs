//! What is written about a run: one value, which is the JSON file, and from which everything else is made.

mod machine;
mod measured;

pub mod html;
pub mod readme;
pub mod svg;
pub mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tally::Latencies;
use super::watch::Sample;
use super::watch::processes::GENERATOR;

pub use machine::{Machine, machine};
pub use measured::{cpu, generator, mails, phases, seconds, threads, ways};

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
    /// The same as at first, afterwards, ms.
    pub p99_after: f64,
}

impl Report {
    /// The phase that is the load: the last but those that only look whether all is normal again.
    pub fn load(&self) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == super::LOAD).or(self.phases.first())
    }
}

/// Whether bookings ended otherwise than they must, refusals apart.
pub fn is_wrong(report: &Report) -> bool {
    report.phases.iter().any(|phase| phase.unexpected > 0)
}

/// The generator's row of the CPU table.
pub const OWN: &str = GENERATOR;
