//! Overload: a calm before, the rush, and a calm after it, in which everything must become normal again.

use std::time::Duration;

use super::LOAD;
use super::report::{Percentiles, Settled};
use super::schedule::{Phase, Schedule};
use super::tally::{Tally, WINDOW, Window};

/// How long the calm before a rush is looked at.
const CALM: Duration = Duration::from_secs(10);
/// Normal is a p99 of at most so many times that of the calm,
const FACTOR: f64 = 2.0;
/// or one that is so much longer, ms: at low latencies a window has too few bookings for a sharper look.
const ALLOWANCE: f64 = 50.0;
const MILLISECOND: f64 = 1_000.0;

/// The three phases.
pub fn schedule(calm: f64, rate: f64, duration: Duration, settle: Duration) -> Schedule {
    let phases =
        vec![Phase::new("calm", calm, CALM), Phase::new(LOAD, rate, duration), Phase::new("after", calm, settle)];
    Schedule { phases }
}

/// How long the way back to normal took, from the end of the last phase but one.
pub fn settled(schedule: &Schedule, tally: &Tally) -> Option<Settled> {
    let (calm, end) = (tally.phases.first()?, *schedule.begins().last()?);
    let normal = Percentiles::of(&calm.confirmed).p99;
    let number = |at: Duration| (at.as_millis() / WINDOW.as_millis()) as usize;
    let windows = tally.windows.get(number(end)..number(schedule.length()).min(tally.windows.len()))?;
    Some(Settled { normal, after: settled_after(windows, normal) })
}

/// Seconds to the first window from which on all are normal; none where the last one is not.
fn settled_after(windows: &[Window], normal: f64) -> Option<f64> {
    let most = (normal * FACTOR).max(normal + ALLOWANCE);
    let is_normal = |window: &Window| {
        let p99 = window.latencies.quantile(0.99) as f64 / MILLISECOND;
        window.offered == 0 || (window.latencies.count() == u64::from(window.offered) && p99 <= most)
    };
    let bad = windows.iter().rposition(|window| !is_normal(window)).map_or(0, |at| at + 1);
    (bad < windows.len()).then(|| bad as f64 * WINDOW.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window in which all of ten are confirmed after so many ms, but for those that are missing.
    fn window(ms: u64, missing: u32) -> Window {
        let mut window = Window { offered: 10, ..Window::default() };
        (missing..10).for_each(|_| window.latencies.record(Duration::from_millis(ms)));
        window
    }

    #[test]
    fn it_is_normal_from_the_last_window_that_was_not() {
        let windows = [window(900, 0), window(40, 0), window(400, 0), window(60, 0), window(50, 0)];
        assert_eq!(settled_after(&windows, 30.0), Some(0.75));
        assert_eq!(settled_after(&windows[3..], 30.0), Some(0.0));
        assert_eq!(settled_after(&windows[..3], 30.0), None);
    }

    #[test]
    fn a_refusal_is_not_normal() {
        assert_eq!(settled_after(&[window(30, 0), window(30, 1), window(30, 0)], 30.0), Some(0.5));
        assert_eq!(settled_after(&[], 30.0), None);
    }

    #[test]
    fn a_rush_stands_between_two_calms() {
        let seconds = Duration::from_secs;
        let schedule = schedule(100.0, 900.0, seconds(60), seconds(20));
        assert_eq!((schedule.length(), schedule.begins()[2]), (seconds(90), seconds(70)));
        assert_eq!(schedule.total(), 1_000 + 54_000 + 2_000);
    }
}
