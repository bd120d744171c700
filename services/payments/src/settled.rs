//! Intents whose charges were done a moment ago. Their webhooks come about now, and tell nothing new: what is done stays so
//! (undone, it is refunded), and no webhook of its intent changes that. So the row need not be read for them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventicket_contracts::envelope::Key;

use crate::charge::{Charge, State};

/// Charges that are remembered: those of some seconds.
const MOST: usize = 16_384;

/// Remembers charges that were committed as done.
#[derive(Default)]
pub(crate) struct Settled(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    rounds: HashMap<Arc<str>, Key>,
    /// Oldest first.
    order: VecDeque<Arc<str>>,
}

impl Settled {
    /// Takes note of rows that are committed so; of those that are done.
    pub fn note<'a>(&self, rows: impl Iterator<Item = &'a Charge>) {
        let mut inner = self.inner();
        for charge in rows.filter(|charge| charge.state == State::Done) {
            let Some(intent) = &charge.intent else { continue };
            let intent: Arc<str> = intent.as_str().into();
            if inner.rounds.insert(Arc::clone(&intent), charge.key.clone()).is_none() {
                inner.order.push_back(intent);
            }
            if inner.order.len() > MOST
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.rounds.remove(&oldest);
            }
        }
    }

    /// Whether the round is known to be done with this intent.
    pub fn knows(&self, key: &Key, intent: &str) -> bool {
        self.inner().rounds.get(intent) == Some(key)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::SagaId;

    fn charge(state: State, intent: &str) -> Charge {
        let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 };
        Charge { intent: Some(intent.to_owned()), ..Charge::new(key, None).next(state) }
    }

    #[test]
    fn only_the_newest_of_those_that_are_done_are_known() {
        let settled = Settled::default();
        let (done, pending) = (charge(State::Done, "pi_1"), charge(State::Pending, "pi_2"));
        settled.note([&done, &pending].into_iter());
        assert!(settled.knows(&done.key, "pi_1"));
        assert!(!settled.knows(&pending.key, "pi_2") && !settled.knows(&done.key, "pi_2"));
        assert!(!settled.knows(&pending.key, "pi_1"), "another round");
        let more: Vec<Charge> = (0..MOST).map(|n| charge(State::Done, &format!("pi_n{n}"))).collect();
        settled.note(more.iter());
        assert!(!settled.knows(&done.key, "pi_1") && settled.knows(&more[0].key, "pi_n0"));
    }
}
