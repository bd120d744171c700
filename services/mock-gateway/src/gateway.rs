//! The gateway behind its HTTP: idempotency keys, the book, and the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventicket_contracts::Clock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::book::{Book, Outcome};
use crate::form::Operation;
use crate::intents::Refusal;
use crate::ledger::{History, Place, Record, Writer};
use crate::tokens::hex;

/// What answers a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
    /// It was stored before.
    pub replayed: bool,
    /// The connection is to be cut in its place.
    pub unheard: bool,
}

impl Answer {
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body, replayed: false, unheard: false }
    }

    fn of(record: &Record) -> Self {
        Self { status: record.status, ..Self::ok(record.body()) }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, ..Self::ok(refusal.body()) }
    }
}

/// What tests may change while the gateway runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// How long each change takes at least.
    pub latency: Duration,
    /// The share of changes that are not made and answer a 500, which is stored under its key.
    pub failure_rate: f64,
}

pub(crate) struct Gateway {
    state: Mutex<State>,
    writer: Writer,
    clock: Clock,
}

struct State {
    book: Book,
    keys: HashMap<String, Key>,
    faults: Faults,
}

/// An idempotency key: the request it stands for, and where its answer is stored once there is one.
struct Key {
    request: Arc<str>,
    stored: Option<Place>,
}

/// An operation with its key.
pub(crate) struct Change {
    pub operation: Operation,
    pub key: Option<String>,
    /// Of path and body.
    pub fingerprint: String,
}

/// Names a request, so that a key used for another one is noticed.
pub(crate) fn fingerprint(path: &str, body: &[u8]) -> String {
    hex(&Sha256::new().chain_update(path).chain_update([0]).chain_update(body).finalize())
}

impl Gateway {
    pub fn new(writer: Writer, history: History, latency: Duration) -> Self {
        let (mut book, mut keys) = (Book::default(), HashMap::new());
        for (record, place) in history {
            book.enter(&record);
            if let (Some(key), Some(request)) = (record.key, record.request) {
                keys.insert(key, Key { request: request.into(), stored: Some(place) });
            }
        }
        let state = State { book, keys, faults: Faults { latency, failure_rate: 0.0 } };
        Self { state: Mutex::new(state), writer, clock: Clock::system() }
    }

    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) -> Faults {
        let mut state = self.state();
        change(&mut state.faults);
        state.faults
    }

    /// How often the ledger was synced.
    pub fn syncs(&self) -> u64 {
        self.writer.syncs()
    }

    /// Makes a change, or repeats the answer that is stored under its key.
    pub async fn change(&self, change: Change) -> Answer {
        if let Some(key) = &change.key {
            match self.claim(key, &change.fingerprint) {
                Ok(None) => {}
                Ok(Some(stored)) => return self.replay(stored),
                Err(refusal) => return refusal.into(),
            }
        }
        let latency = self.state().faults.latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // The place in the queue comes first: under the lock nothing may wait, and its order is the file's.
        let Some(permit) = self.writer.reserve().await else { return broken() };
        let (answer, synced) = {
            let mut state = self.state();
            let Outcome { mut record, unheard } = state.carry_out(change.operation, self.clock.now().millis());
            record.key.clone_from(&change.key);
            record.request = change.key.as_ref().map(|_| change.fingerprint);
            (Answer { unheard, ..Answer::of(&record) }, permit.append(&record))
        };
        let Ok(place) = synced.await else { return broken() };
        if let Some(key) = change.key {
            self.state().keys.entry(key).and_modify(|key| key.stored = Some(place));
        }
        answer
    }

    /// Reads, once all that the answer may tell is synced.
    pub async fn look<T>(&self, read: impl FnOnce(&Book) -> T) -> Option<T> {
        let permit = self.writer.reserve().await?;
        let (found, synced) = {
            let state = self.state();
            (read(&state.book), permit.barrier())
        };
        synced.await.ok()?;
        Some(found)
    }

    /// Takes a key for a request, or tells where its stored answer is.
    fn claim(&self, key: &str, request: &str) -> Result<Option<Place>, Refusal> {
        let mut state = self.state();
        let Some(known) = state.keys.get(key) else {
            state.keys.insert(key.to_owned(), Key { request: request.into(), stored: None });
            return Ok(None);
        };
        let refusal = |status, code, message: &str| Refusal {
            status,
            kind: "idempotency_error",
            ..Refusal::invalid(code, message)
        };
        if &*known.request != request {
            return Err(refusal(400, "idempotency_error", "the key was used for another request"));
        }
        let in_use = || refusal(409, "idempotency_key_in_use", "a request with this key is under way");
        known.stored.ok_or_else(in_use).map(Some)
    }

    fn replay(&self, stored: Place) -> Answer {
        match self.writer.load(stored) {
            Ok(record) => Answer { replayed: true, ..Answer::of(&record) },
            Err(error) => {
                tracing::error!(%error, "a stored answer cannot be read");
                broken()
            }
        }
    }

    /// A panic under the lock is a defect that the next request need not share.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn carry_out(&mut self, operation: Operation, now: i64) -> Outcome {
        if self.faults.failure_rate > 0.0 && rand::random::<f64>() < self.faults.failure_rate {
            let mut record = Record::at(now);
            record.status = 500;
            record.error = Some(failure());
            return Outcome { record, unheard: false };
        }
        self.book.apply(operation, now)
    }
}

fn failure() -> Value {
    json!({ "error": { "type": "api_error", "message": "something went wrong on the gateway's side" } })
}

/// The ledger cannot be written or read: nothing is stored, and the process ends.
pub(crate) fn broken() -> Answer {
    Answer { status: 500, ..Answer::ok(failure()) }
}
