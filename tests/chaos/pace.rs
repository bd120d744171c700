//! How fast bookings are confirmed, and since when at full speed again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Full speed is this share of the rate.
const FULL: f64 = 0.9;
/// A second is looked at from each of these steps on.
const STEP: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// For so long each second must be full: a backlog that is worked off alone is no full speed.
const STEADY: Duration = Duration::from_secs(3);

/// When bookings were confirmed, as their customers learned it.
pub struct Pace {
    begin: Instant,
    confirmed: Mutex<Vec<Duration>>,
}

impl Pace {
    /// Begins now.
    pub fn new() -> Self {
        Self { begin: Instant::now(), confirmed: Mutex::default() }
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// A customer was told so, now.
    pub fn confirmed(&self) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.push(self.begin.elapsed());
    }

    /// How many were told so.
    pub fn total(&self) -> usize {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The first moment from `from` on since which bookings are confirmed at full speed; `None` while there is none.
    pub fn full_since(&self, from: Duration, rate: f64) -> Option<Duration> {
        let confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = confirmed.partition_point(|at| *at < from);
        full_since(&confirmed[first..], from, self.begin.elapsed(), rate)
    }
}

/// The same of given times, in order, as it is known at `now`.
fn full_since(times: &[Duration], from: Duration, now: Duration, rate: f64) -> Option<Duration> {
    let full = |begin: Duration| {
        let count = times.partition_point(|at| *at < begin + SECOND) - times.partition_point(|at| *at < begin);
        count as f64 >= FULL * rate
    };
    let (mut since, mut begin) = (from, from);
    while begin + SECOND <= now {
        if !full(begin) {
            since = begin + STEP;
        } else if begin + SECOND >= since + STEADY {
            return Some(since);
        }
        begin += STEP;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A hundred a second between these moments, in milliseconds.
    fn steady(from: u64, until: u64) -> Vec<Duration> {
        (from..until).step_by(10).map(at).collect()
    }

    #[test]
    fn what_was_not_felt_is_full_at_once() {
        assert_eq!(full_since(&steady(2_000, 9_000), at(2_000), at(9_000), 100.0), Some(at(2_000)));
    }

    #[test]
    fn it_is_known_only_after_some_seconds() {
        let times = steady(0, 9_000);
        assert_eq!(full_since(&times, at(2_000), at(4_900), 100.0), None);
        assert_eq!(full_since(&times, at(2_000), at(5_000), 100.0), Some(at(2_000)));
    }

    #[test]
    fn a_gap_moves_it_behind_the_gap() {
        let times = [steady(0, 3_000), steady(5_000, 12_000)].concat();
        let since = full_since(&times, at(3_000), at(12_000), 100.0).unwrap();
        assert!((4_800..=5_000).contains(&since.as_millis()), "{since:?}");
    }

    #[test]
    fn a_backlog_that_comes_at_once_is_no_full_speed() {
        let burst = vec![at(5_000); 1_000];
        let times = [steady(0, 3_000), burst, steady(8_000, 13_000)].concat();
        let since = full_since(&times, at(3_000), at(13_000), 100.0).unwrap();
        assert!((7_800..=8_000).contains(&since.as_millis()), "{since:?}");
    }

    #[test]
    fn less_than_nine_tenths_are_never_full() {
        let slow: Vec<_> = (0..20_000).step_by(12).map(at).collect();
        assert_eq!(full_since(&slow, at(0), at(20_000), 100.0), None);
        assert_eq!(full_since(&slow, at(0), at(20_000), 83.0), Some(at(0)));
    }
}
