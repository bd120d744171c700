//! Which rate still holds: it is raised step by step, and the gap between the last that held and the first that did not
//! is halved.

use serde::{Deserialize, Serialize};

use super::report::Report;

/// What is asked of a rate that holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// The share of the offered bookings that is confirmed.
    pub share: f64,
    /// The longest p99, ms.
    pub p99: f64,
}

impl Default for Demand {
    fn default() -> Self {
        Self { share: 0.99, p99: 1_000.0 }
    }
}

/// A rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Bookings a second.
    pub rate: f64,
    /// Confirmed a second.
    pub goodput: f64,
    /// ms.
    pub p50: f64,
    /// ms.
    pub p99: f64,
    /// Whether it held.
    pub held: bool,
    /// Whether the generator was the limit.
    pub generator_limited: bool,
}

/// What became of a rate that was tried.
pub fn step(report: &Report, demand: Demand) -> Step {
    let (mut offered, mut confirmed) = (0, 0);
    for phase in &report.phases {
        (offered, confirmed) = (offered + phase.offered, confirmed + phase.confirmed);
    }
    let latency = report.load().map(|phase| phase.latency).unwrap_or_default();
    let held = confirmed as f64 >= demand.share * offered as f64 && latency.p99 <= demand.p99;
    Step {
        rate: report.plan.rate,
        goodput: report.load().map_or(0.0, |phase| phase.goodput),
        p50: latency.p50,
        p99: latency.p99,
        held,
        generator_limited: !report.generator.limits.is_empty(),
    }
}

/// The search, and what it found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// What holding means.
    pub demand: Demand,
    /// In the order of the trials.
    pub steps: Vec<Step>,
    /// The highest rate that held.
    pub rate: Option<f64>,
}

/// Looks for the highest rate that holds.
#[derive(Clone, Debug)]
pub struct Search {
    next: f64,
    factor: f64,
    /// The gap that is left at the end, as a share of the rate.
    precision: f64,
    held: Option<f64>,
    failed: Option<f64>,
}

impl Search {
    /// From a rate upwards by a factor above 1.
    pub const fn new(first: f64, factor: f64, precision: f64) -> Self {
        Self { next: first, factor, precision, held: None, failed: None }
    }

    /// The rate to try next; none where the knee is known well enough.
    pub fn next(&self) -> Option<f64> {
        let done = match (self.held, self.failed) {
            (Some(held), Some(failed)) => failed - held <= self.precision * held,
            // Even a crawl does not hold.
            (None, Some(failed)) => failed < 1.0,
            _ => false,
        };
        (!done).then_some(self.next)
    }

    /// Takes what became of the rate that was tried.
    pub fn tried(&mut self, rate: f64, held: bool) {
        if held {
            self.held = Some(self.held.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |least| least.min(rate)));
        }
        self.next = match (self.held, self.failed) {
            (Some(held), Some(failed)) => f64::midpoint(held, failed),
            (Some(held), None) => held * self.factor,
            (None, Some(failed)) => failed / self.factor / self.factor,
            (None, None) => rate,
        };
    }

    /// The highest rate that held.
    pub const fn knee(&self) -> Option<f64> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(first: f64, holds: impl Fn(f64) -> bool) -> (Option<f64>, usize) {
        let mut search = Search::new(first, 1.25, 0.05);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.tried(rate, holds(rate));
            steps += 1;
            assert!(steps < 60);
        }
        (search.knee(), steps)
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for first in [500.0, 1_000.0, 5_800.0, 20_000.0] {
            let (knee, steps) = find(first, |rate| rate <= 5_900.0);
            let knee = knee.unwrap();
            assert!(knee <= 5_900.0 && knee * 1.05 >= 5_900.0, "{first}: {knee}");
            assert!(steps <= 16, "{first}: {steps} steps");
        }
    }

    #[test]
    fn a_platform_that_holds_nothing_has_no_knee() {
        assert_eq!(find(1_000.0, |_| false).0, None);
    }
}
