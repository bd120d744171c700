//! The parts of a report, made of what was counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cpu, Generator, Mails, Percentiles, Phase, Second, Way};
use crate::load::schedule::{self, Schedule};
use crate::load::story::Kind;
use crate::load::tally::{self, LATE, Latencies, Tally, WINDOW};

/// Share of late starts beyond which the generator was the limit.
const LATE_SHARE: f64 = 0.01;
/// Share of a core beyond which the generator's thread was the limit.
const BUSY_SHARE: f64 = 0.85;

/// The phases of a tally.
pub fn phases(schedule: &Schedule, tally: &Tally) -> Vec<Phase> {
    let one = |((phase, begin), counted): ((&schedule::Phase, Duration), &tally::Phase)| {
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
