//! The rhythm of a loop that takes whatever is ready.
//!
//! What is ready is taken together, but on a machine with idle moments little is ever ready: each message wakes its loop,
//! and every turn pays anew for its transaction and its messages. So a loop that is busy leaves some time between the
//! beginnings of its turns, and one that is not leaves none: a command that comes alone never waits.

use std::time::Duration;

use tokio::time::Instant;

/// Longest time between the beginnings of two turns.
const LONGEST: Duration = Duration::from_millis(5);
/// Time for each item of the turn before. A loop with fewer than one item in this time has no pauses: they shrink with its
/// turns until they are gone. One with more grows both until its pauses are the longest.
const PER_ITEM: Duration = Duration::from_micros(250);

/// When the next turn of a loop may begin.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    gap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { began: Instant::now(), gap: Duration::ZERO }
    }
}

impl Pace {
    /// Waits until the next turn may begin, and begins it.
    pub async fn begin(&mut self) {
        if self.began.elapsed() < self.gap {
            tokio::time::sleep_until(self.began + self.gap).await;
        }
        self.began = Instant::now();
    }

    /// The turn had so many items.
    pub fn took(&mut self, items: usize) {
        self.gap = PER_ITEM.saturating_mul(u32::try_from(items).unwrap_or(u32::MAX)).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean items of a turn where one arrives every `every`, and a turn itself takes no time.
    async fn items_of_a_turn(every: Duration) -> usize {
        let (start, mut pace, mut seen, mut last) = (Instant::now(), Pace::default(), 0, 0);
        for _ in 0..200 {
            tokio::time::sleep_until(start + every * (seen + 1)).await;
            pace.begin().await;
            let arrived = u32::try_from(start.elapsed().as_micros() / every.as_micros()).unwrap();
            last = (arrived - seen) as usize;
            pace.took(last);
            seen = arrived;
        }
        last
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_busy_loop_has_pauses() {
        assert_eq!(items_of_a_turn(Duration::from_millis(2)).await, 1, "500/s");
        assert!(items_of_a_turn(Duration::from_micros(100)).await >= 40, "10,000/s");
    }
}
