//! When the sagas that this replica dispatches want to be looked at.

use std::collections::{BTreeSet, HashMap};

use eventicket_contracts::{SagaId, Timestamp};

/// Due times in memory; after a crash they are found again by a scan of the unfinished sagas.
#[derive(Debug, Default)]
pub struct Timers {
    by_time: BTreeSet<(Timestamp, SagaId)>,
    by_saga: HashMap<SagaId, Timestamp>,
}

impl Timers {
    /// Sets a saga's due time, or forgets the saga.
    pub fn set(&mut self, saga: SagaId, due: Option<Timestamp>) {
        if let Some(old) = self.by_saga.remove(&saga) {
            self.by_time.remove(&(old, saga));
        }
        if let Some(due) = due {
            self.by_time.insert((due, saga));
            self.by_saga.insert(saga, due);
        }
    }

    /// Takes at most `limit` sagas that are due, earliest first.
    pub fn take_due(&mut self, now: Timestamp, limit: usize) -> Vec<SagaId> {
        let due: Vec<_> = self.by_time.iter().take_while(|(t, _)| *t <= now).take(limit).copied().collect();
        for entry in &due {
            self.by_time.remove(entry);
            self.by_saga.remove(&entry.1);
        }
        due.into_iter().map(|(_, saga)| saga).collect()
    }

    /// When the next saga is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(t, _)| *t)
    }

    /// Number of sagas with a due time.
    pub fn len(&self) -> usize {
        self.by_saga.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_saga.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_due_in_order_and_once() {
        let (a, b, c) = (SagaId::fresh(), SagaId::fresh(), SagaId::fresh());
        let mut timers = Timers::default();
        timers.set(a, Some(Timestamp(30)));
        timers.set(b, Some(Timestamp(10)));
        timers.set(c, Some(Timestamp(20)));
        timers.set(a, Some(Timestamp(15)));
        timers.set(c, None);
        assert_eq!(timers.next(), Some(Timestamp(10)));
        assert_eq!(timers.take_due(Timestamp(9), 10), []);
        assert_eq!(timers.take_due(Timestamp(20), 1), [b]);
        assert_eq!(timers.take_due(Timestamp(20), 10), [a]);
        assert!(timers.is_empty());
    }
}
