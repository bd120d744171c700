//! How often something that ends is started again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Restarts within [`WINDOW`] after which it is given up.
const MOST: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Pause before the first restart; it doubles with each further one in the window.
const FIRST: Duration = Duration::from_millis(200);

/// Restarts with growing pauses, given up after five in a minute.
#[derive(Debug, Default)]
pub struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// The pause before the next restart; `None` when it is given up.
    pub fn next(&mut self, now: Instant) -> Option<Duration> {
        while self.0.front().is_some_and(|then| now.duration_since(*then) >= WINDOW) {
            self.0.pop_front();
        }
        if self.0.len() >= MOST {
            return None;
        }
        let pause = FIRST * 2_u32.pow(u32::try_from(self.0.len()).unwrap_or(0));
        self.0.push_back(now);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_minute_with_doubling_pauses_and_no_sixth() {
        let (start, mut restarts) = (Instant::now(), Restarts::default());
        let pauses: Vec<_> = (0..6).map(|i| restarts.next(start + Duration::from_secs(i))).collect();
        let millis = [200, 400, 800, 1600, 3200].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(pauses[..5], millis);
        assert_eq!(pauses[5], None);
        assert_eq!(restarts.next(start + Duration::from_secs(61)), Some(Duration::from_millis(1600)));
    }

    #[test]
    fn a_quiet_minute_forgets() {
        let (start, mut restarts) = (Instant::now(), Restarts::default());
        for hour in 0..10 {
            assert_eq!(restarts.next(start + Duration::from_secs(3600 * hour)), Some(FIRST));
        }
    }
}
