//! Starts that are refused before their turn (6.12). In a rush a turn takes its time, and who is not let in should hear so at
//! once. The turn itself still admits exactly; the door goes by what the turn before has left.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Subject;
use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::sagas::{AnsweredStart, StartAnswer, StartSaga};
use eventicket_nats::Nats;
use eventicket_saga::Saga;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::admission::surely_called;
use super::intake::respond;
use super::starts::{busy, known_first};
use crate::sagas::Catalogue;

/// Messages whose refused starts are looked up at once; those of more are refused unseen.
const LOOKS: usize = 2;

/// Lets starts in, and refuses the others.
pub struct Door {
    nats: Nats,
    pool: PgPool,
    catalogue: Arc<Catalogue>,
    places: Mutex<Places>,
    looks: Arc<Semaphore>,
}

/// What may begin until a turn or a look has counted again.
#[derive(Default)]
struct Places {
    /// Sagas for which each service has room. One that is not named has room.
    at: HashMap<String, i64>,
    /// Starts that were let in since; each counts at every service.
    taken: i64,
}

impl Places {
    /// Takes a place for a start that calls these services, which are asked for only where one of all is full.
    fn take<'a, C: IntoIterator<Item = &'a str>>(&mut self, called: impl FnOnce() -> C) -> bool {
        let full = |left: &i64| *left <= self.taken;
        let no_room = self.at.values().any(full) && called().into_iter().any(|at| self.at.get(at).is_some_and(full));
        self.taken += i64::from(!no_room);
        !no_room
    }
}

impl Door {
    /// An open one.
    pub fn new(nats: Nats, pool: PgPool, catalogue: Arc<Catalogue>) -> Self {
        Self { nats, pool, catalogue, places: Mutex::default(), looks: Arc::new(Semaphore::new(LOOKS)) }
    }

    /// Each service has room for so many sagas.
    pub fn set(&self, at: HashMap<String, i64>) {
        *self.places() = Places { at, taken: 0 };
    }

    /// Whether a start may wait for its turn. What is wrong with it is for its turn to find.
    pub fn lets_in(&self, start: &StartSaga) -> bool {
        self.places().take(|| {
            let definition = self.catalogue.registry.newest(&start.definition);
            definition.map_or_else(BTreeSet::new, |definition| {
                surely_called(definition, &Saga::new(start.id.0, definition, start.input.clone(), 0))
            })
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers starts of one message that were not let in. It never waits, else a rush of repeats would keep everybody
    /// waiting: where it has no time to look whether they began before, it says nothing of that.
    pub async fn refuse(self: &Arc<Self>, starts: Vec<StartSaga>, to: Option<Subject>) {
        let Ok(permit) = self.looks.clone().try_acquire_owned() else {
            let busy = vec![busy(); starts.len()];
            return self.answer(&starts, busy, to).await;
        };
        let door = self.clone();
        tokio::spawn(async move {
            let answers = known_first(&door.pool, &door.catalogue, starts.iter().map(|s| (s, busy())).collect()).await;
            door.answer(&starts, answers, to).await;
            drop(permit);
        });
    }

    async fn answer(&self, starts: &[StartSaga], answers: Vec<StartAnswer>, to: Option<Subject>) {
        let answered = starts.iter().zip(answers).map(|(s, answer)| AnsweredStart { id: s.id, answer }).collect();
        respond(&self.nats, to, &Envelope::new(answered)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_12_the_door_refuses_only_starts_that_call_a_full_service() {
        let at = [("bookings", 3), ("payments", 0)].map(|(service, room)| (service.to_owned(), room));
        let mut places = Places { at: at.into(), taken: 0 };
        let mut take = |called: &'static [&str]| places.take(|| called.iter().copied());
        assert!(!take(&["bookings", "payments"]), "payments is full");
        assert!(take(&["bookings"]) && take(&["bookings"]), "who is refused takes no place");
        assert!(take(&["elsewhere"]) && take(&[]), "nobody knows of a bound");
        assert!(!take(&["bookings"]), "each that was let in counts at every service");
        assert!(Places::default().take(|| ["bookings"]), "before the first turn");
    }
}
