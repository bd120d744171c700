//! Rows that wait for their bank or their customer: kept without a task, and so many of them that nothing else is late.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use eventicket_contracts::envelope::Key;
use tokio::time::Instant;

use crate::charge::Charge;
use crate::decide::Delay;

/// First and longest wait for a key that is in use, and after a failure.
const SOON: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between two looks at what takes time by its nature. Webhooks are faster, and who asks is answered at once.
const SLOW: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// What each row that rests adds to the wait of a further one, so that a hundred thousand of them, taken over at once, do
/// not ask the gateway all at once.
const SPREAD: Duration = Duration::from_millis(2);
/// Shift of a wait that doubles; beyond it all waits are the longest.
const MOST_DOUBLINGS: u32 = 10;

/// The rows by key, and by the time of their next call.
#[derive(Default)]
pub(crate) struct Rest {
    rows: HashMap<Key, Resting>,
    due: BTreeSet<(Instant, Key)>,
}

struct Resting {
    charge: Charge,
    pace: Pace,
    due: Instant,
}

impl Rest {
    pub fn holds(&self, key: &Key) -> bool {
        self.rows.contains_key(key)
    }

    /// Takes a row in until its next call is due.
    pub fn put(&mut self, charge: Charge, mut pace: Pace) {
        let many = SPREAD.saturating_mul(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        let due = Instant::now() + pace.wait(Delay::Slow) + many.min(SLOW.1);
        let key = charge.key.clone();
        self.take(&key);
        self.due.insert((due, key.clone()));
        self.rows.insert(key, Resting { charge, pace, due });
    }

    /// Lets a row go.
    pub fn take(&mut self, key: &Key) -> Option<(Charge, Pace)> {
        let Resting { charge, pace, due } = self.rows.remove(key)?;
        self.due.remove(&(due, key.clone()));
        Some((charge, pace))
    }

    /// Lets those go that have waited long enough, at most `most`.
    pub fn take_due(&mut self, now: Instant, most: usize) -> Vec<(Charge, Pace)> {
        let due: Vec<Key> =
            self.due.iter().take(most).take_while(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect();
        due.iter().filter_map(|key| self.take(key)).collect()
    }
}

/// Waits of one row, which double from one to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    waits: u32,
}

impl Pace {
    /// Between half and the whole of it, so that rows that failed together do not repeat together.
    pub fn wait(&mut self, delay: Delay) -> Duration {
        let (first, longest) = match delay {
            Delay::Soon => SOON,
            Delay::Backoff => BACKOFF,
            Delay::Slow => SLOW,
        };
        let doubled = first.saturating_mul(1 << self.waits.min(MOST_DOUBLINGS)).min(longest);
        self.waits += 1;
        doubled.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::SagaId;

    fn charge() -> Charge {
        Charge::new(Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 }, None)
    }

    #[test]
    fn rows_rest_longer_each_time_and_are_let_go_once() {
        let mut rest = Rest::default();
        let first = charge();
        rest.put(first.clone(), Pace::default());
        assert!(rest.take_due(Instant::now() + SLOW.0 / 3, 9).is_empty());
        let (again, pace) = rest.take_due(Instant::now() + SLOW.0, 9).remove(0);
        assert_eq!((again == first, rest.holds(&first.key)), (true, false));
        rest.put(again, pace);
        assert!(rest.take_due(Instant::now() + SLOW.0 * 2 / 3, 9).is_empty(), "twice as long");
        assert_eq!(rest.take(&first.key).map(|(charge, _)| charge), Some(first.clone()));
        assert!(rest.take_due(Instant::now() + SLOW.1, 9).is_empty());
    }

    #[test]
    fn rule_07_many_rows_that_wait_are_looked_at_one_after_the_other() {
        let mut rest = Rest::default();
        (0..10_000).for_each(|_| rest.put(charge(), Pace::default()));
        let due = |rest: &mut Rest, after| rest.take_due(Instant::now() + after, usize::MAX).len();
        let soon = due(&mut rest, SLOW.0);
        assert!(soon <= 1_000, "{soon} of 10,000 within {:?}", SLOW.0);
        assert_eq!(soon + due(&mut rest, SLOW.0 + SPREAD * 10_000), 10_000);
    }
}
