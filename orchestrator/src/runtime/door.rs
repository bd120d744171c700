//! Starts that are refused before their turn (6.12). In a rush a turn takes its time, and who is not let in should hear so at
//! once. The turn itself still admits exactly; the door goes by what the turn before has left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::Subject;
use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::sagas::{AnsweredStart, StartSaga};
use eventicket_nats::Nats;
use eventicket_saga::Saga;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::intake::respond;
use super::starts::{busy, known_first};
use super::turn::guarded;
use crate::sagas::Catalogue;

/// Messages whose refused starts are looked up at once; the next one waits.
const LOOKS: usize = 4;

/// Lets starts in, and refuses the others.
pub struct Door {
    nats: Nats,
    pool: PgPool,
    catalogue: Arc<Catalogue>,
    room: Mutex<Room>,
    looks: Arc<Semaphore>,
}

/// What may begin until the next turn has begun.
#[derive(Default)]
struct Room {
    /// Sagas for which each service has room. One that is not named has room.
    at: HashMap<String, i64>,
    /// Starts that were let in since; each counts at every service.
    let_in: i64,
}

impl Room {
    fn is_at(&self, service: &str) -> bool {
        self.at.get(service).is_none_or(|room| *room > self.let_in)
    }
}

impl Door {
    /// An open one.
    pub fn new(nats: Nats, pool: PgPool, catalogue: Arc<Catalogue>) -> Self {
        Self { nats, pool, catalogue, room: Mutex::default(), looks: Arc::new(Semaphore::new(LOOKS)) }
    }

    /// A turn left room for so many sagas at each service.
    pub fn set(&self, at: HashMap<String, i64>) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Room { at, let_in: 0 };
    }

    /// Whether a start may wait for its turn.
    pub fn lets_in(&self, start: &StartSaga) -> bool {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let free = room.at.keys().all(|service| room.is_at(service)) || self.has_room(start, &room);
        room.let_in += i64::from(free);
        free
    }

    /// Whether there is room at all services that it surely calls. What is wrong with a start is for its turn to find.
    fn has_room(&self, start: &StartSaga, room: &Room) -> bool {
        let Some(definition) = self.catalogue.registry.newest(&start.definition) else { return true };
        let saga = Saga::new(start.id.0, definition, start.input.clone(), 0);
        let called = guarded(|| super::admission::surely_called(definition, &saga)).unwrap_or_default();
        called.into_iter().all(|service| room.is_at(service))
    }

    /// Answers starts of one message that were not let in.
    pub async fn refuse(self: &Arc<Self>, starts: Vec<StartSaga>, to: Option<Subject>) {
        let Ok(permit) = self.looks.clone().acquire_owned().await else { return };
        let door = self.clone();
        tokio::spawn(async move {
            let answers = known_first(&door.pool, &door.catalogue, starts.iter().map(|s| (s, busy())).collect()).await;
            let answered = starts.iter().zip(answers).map(|(s, answer)| AnsweredStart { id: s.id, answer }).collect();
            respond(&door.nats, to, &Envelope::new(answered)).await;
            drop(permit);
        });
    }
}
