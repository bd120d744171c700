//! Starts that are refused before their turn (6.12). In a rush a turn takes its time, and who is not let in should hear so at
//! once. The turn itself still admits exactly; the door goes by what the turn before has left.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Subject;
use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::sagas::{AnsweredStart, InFlight, StartAnswer, StartSaga};
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
/// Who asked for no start in this time has no share of the room.
const LATELY: Duration = Duration::from_secs(1);

/// Lets starts in, and refuses the others.
pub struct Door {
    nats: Nats,
    pool: PgPool,
    catalogue: Arc<Catalogue>,
    places: Mutex<Places>,
    askers: Mutex<Askers>,
    looks: Arc<Semaphore>,
}

/// What may begin until a turn or a look has counted again.
struct Places {
    in_flight: InFlight,
    /// Starts that wait for their turn; each counts at every service.
    taken: i64,
}

impl Default for Places {
    fn default() -> Self {
        let in_flight = InFlight { limit: i64::MAX, ..InFlight::default() };
        Self { in_flight, taken: 0 }
    }
}

impl Places {
    /// Takes a place for a start that calls these services, which are asked for only where all together are full.
    fn take<'a, C: IntoIterator<Item = &'a str>>(&mut self, called: impl FnOnce() -> C) -> bool {
        let all = self.in_flight.commands.keys().map(String::as_str);
        let has_room = self.in_flight.room(all) > self.taken || self.in_flight.room(called()) > self.taken;
        self.taken += i64::from(has_room);
        has_room
    }
}

/// Who asked for starts, by where their answers go, and when last.
#[derive(Default)]
struct Askers(HashMap<String, Instant>);

impl Askers {
    /// The last part of the address is the message's own.
    fn hear(&mut self, to: &str, now: Instant) {
        let asker = to.rsplit_once('.').map_or(to, |(asker, _)| asker);
        match self.0.get_mut(asker) {
            Some(last) => *last = now,
            None => drop(self.0.insert(asker.to_owned(), now)),
        }
    }

    /// Number of those who asked lately; the others are forgotten.
    fn lately(&mut self, now: Instant) -> u32 {
        self.0.retain(|_, last| now.duration_since(*last) < LATELY);
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

impl Door {
    /// An open one.
    pub fn new(nats: Nats, pool: PgPool, catalogue: Arc<Catalogue>) -> Self {
        let looks = Arc::new(Semaphore::new(LOOKS));
        Self { nats, pool, catalogue, places: Mutex::default(), askers: Mutex::default(), looks }
    }

    /// So much is in flight, and so many starts wait for their turn.
    pub fn set(&self, in_flight: InFlight, taken: i64) {
        *self.places() = Places { in_flight, taken };
    }

    /// Somebody asks for starts.
    pub fn asked(&self, to: Option<&Subject>) {
        if let Some(to) = to {
            self.askers().hear(to, Instant::now());
        }
    }

    /// How many asked for starts lately, at least one.
    pub fn number_of_askers(&self) -> u32 {
        self.askers().lately(Instant::now()).max(1)
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

    fn askers(&self) -> MutexGuard<'_, Askers> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
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
        let commands = [("bookings", 7), ("payments", 13)].map(|(service, n)| (service.to_owned(), n));
        let mut places = Places { in_flight: InFlight { limit: 10, commands: commands.into(), askers: 1 }, taken: 0 };
        let mut take = |called: &'static [&str]| places.take(|| called.iter().copied());
        assert!(!take(&["bookings", "payments"]), "payments is full");
        assert!(take(&["bookings"]) && take(&["bookings"]), "who is refused takes no place");
        assert!(take(&["elsewhere"]), "nothing is in flight there");
        assert!(!take(&["bookings"]), "each that was let in counts at every service");
        let mut before_the_first_turn = Places::default();
        assert!(before_the_first_turn.take(|| ["bookings"]));
    }

    #[test]
    fn rule_12_who_asked_for_starts_lately_is_counted_once() {
        let (mut askers, begin) = (Askers::default(), Instant::now());
        for to in ["_INBOX.a.1", "_INBOX.a.2", "_INBOX.b.1", "elsewhere"] {
            askers.hear(to, begin);
        }
        askers.hear("_INBOX.b.2", begin + LATELY);
        assert_eq!((askers.lately(begin), askers.lately(begin + LATELY), askers.lately(begin + 2 * LATELY)), (3, 1, 0));
    }
}
