//! The gateway behind its HTTP: idempotency keys, the book, and the ledger.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use eventicket_contracts::{Clock, Timestamp};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::book::{Book, Moment, Outcome, failure, fresh};
use crate::form::Operation;
use crate::intents::{Intent, Refusal};
use crate::ledger::{Place, Record, Writer};
use crate::settings::Settings;
use crate::tokens::{Fate, hex};
use crate::webhooks::{Due, Queue};

/// Longest wait for the next end that comes by itself: the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(1);

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

pub(crate) struct Gateway {
    state: Mutex<State>,
    writer: Writer,
    clock: Clock,
    /// Its own address, without a slash at its end.
    base: String,
    /// Whether anybody takes webhooks.
    webhooks: bool,
    /// Ends that come by themselves may have changed.
    due_changed: Notify,
    /// Webhooks, or the settings, may have changed.
    pub(crate) unsent_changed: Notify,
}

struct State {
    book: Book,
    keys: HashMap<String, Key>,
    settings: Settings,
    unsent: Queue,
}

/// An idempotency key: the request it stands for, and where its answer is stored once there is one.
struct Key {
    request: Box<str>,
    stored: Option<Place>,
}

/// What the records of a ledger came to, one after the other.
#[derive(Default)]
pub(crate) struct Past {
    book: Book,
    keys: HashMap<String, Key>,
    settings: Option<Settings>,
    /// Webhooks that nobody took, and where their records stand. Nearly all are taken, so that what the others show is
    /// read once they are known.
    untaken: HashMap<String, Place>,
}

impl Past {
    /// Takes over the next record.
    pub fn enter(&mut self, mut record: Record, place: Place) {
        for id in &record.delivered {
            self.untaken.remove(id);
        }
        self.untaken.extend(record.events.drain(..).map(|event| (event.id, place)));
        if let (Some(key), Some(request)) = (record.key.take(), record.request.take()) {
            self.keys.insert(key, Key { request: request.into(), stored: Some(place) });
        }
        if let Some(settings) = record.settings.take() {
            self.settings = Some(settings);
        }
        self.book.enter(record);
    }

    fn unsent(&self, writer: &Writer, base: &str) -> io::Result<Queue> {
        let mut unsent = Queue::default();
        for (id, place) in &self.untaken {
            let record = writer.load(*place)?;
            for event in record.events.iter().filter(|event| event.id == *id) {
                unsent.add(record.at, event, record.object(base), 0);
            }
        }
        Ok(unsent)
    }
}

impl Gateway {
    /// `settings` hold where the past says nothing of them.
    pub fn new(writer: Writer, past: Past, settings: Settings, base: String, webhooks: bool) -> io::Result<Self> {
        let unsent = if webhooks { past.unsent(&writer, &base)? } else { Queue::default() };
        let Past { book, keys, settings: set, .. } = past;
        let state = Mutex::new(State { book, keys, settings: set.unwrap_or(settings), unsent });
        let (due_changed, unsent_changed) = (Notify::new(), Notify::new());
        Ok(Self { state, writer, clock: Clock::system(), base, webhooks, due_changed, unsent_changed })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The settings, the number of the ledger's syncs, and that of the webhooks that were not taken yet.
    pub fn figures(&self) -> (Settings, u64, usize) {
        let state = self.state();
        (state.settings.clone(), self.writer.syncs(), state.unsent.len())
    }

    /// Changes settings; `Err` says what is wrong with them.
    pub async fn set(&self, new: Map<String, Value>) -> Option<Result<(), String>> {
        let permit = self.writer.reserve().await?;
        let synced = {
            let mut state = self.state();
            match state.settings.with(new) {
                Ok(settings) => state.settings = settings,
                Err(error) => return Some(Err(error)),
            }
            let settings = Some(state.settings.clone());
            permit.append(&Record { settings, ..Record::at(self.now().millis()) })
        };
        synced.await.ok()?;
        self.unsent_changed.notify_one();
        Some(Ok(()))
    }

    /// Makes a change, or repeats the answer that is stored under its key.
    pub async fn change(&self, change: Change) -> Answer {
        if let Some(key) = &change.key {
            match self.claim(key, &change.fingerprint) {
                Ok(None) => {}
                Ok(Some(stored)) => return self.replay(stored),
                Err(refusal) => return self.refused(&refusal),
            }
        }
        let pause = self.pause(&change.operation);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let fate = self.state().settings.fate(rand::random());
        let operation = change.operation;
        let named = change.key.as_deref().map(|key| (key, change.fingerprint.as_str()));
        self.record(named, |book, moment| Some(book.apply(operation, &Moment { fate, ..moment })))
            .await
            .unwrap_or_else(broken)
    }

    /// Makes a change that neither fails nor takes time: of tests, of customers.
    pub async fn settle(&self, operation: Operation) -> Answer {
        self.record(None, |book, moment| Some(book.apply(operation, &moment))).await.unwrap_or_else(broken)
    }

    /// Carries out what `carry_out` makes of the book, and answers once it is synced. `None` where it makes nothing, or
    /// the ledger broke.
    async fn record(
        &self,
        named: Option<(&str, &str)>,
        carry_out: impl FnOnce(&mut Book, Moment<'_>) -> Option<Outcome>,
    ) -> Option<Answer> {
        let key = named.map(|(key, _)| key);
        // The place in the queue comes first: under the lock nothing may wait, and its order is the file's.
        let permit = self.writer.reserve().await?;
        let (record, unheard, synced) = {
            let mut guard = self.state();
            let State { book, settings, .. } = &mut *guard;
            let now = self.now().millis();
            let (base, webhooks) = (self.base.as_str(), self.webhooks);
            let moment = Moment { now, settings, base, webhooks, fate: Fate::Made, fresh: &fresh };
            let Outcome { mut record, unheard, stored } = carry_out(book, moment)?;
            if let Some((key, fingerprint)) = named.filter(|_| stored) {
                record.key = Some(key.to_owned());
                record.request = Some(fingerprint.to_owned());
            }
            let synced = permit.append(&record);
            (record, unheard, synced)
        };
        let answer = Answer { unheard, ..Answer::json(record.status, record.body(&self.base)) };
        let place = synced.await.ok()?;
        self.after(&record, place, key, &answer.body);
        Some(answer)
    }

    /// The record is synced: its answer stands under its key, its webhooks leave.
    fn after(&self, record: &Record, place: Place, key: Option<&str>, body: &Bytes) {
        // A success says what webhooks tell.
        let object = if record.error.is_none() { Some(body.clone()) } else { record.object(&self.base) };
        let mut state = self.state();
        match (key, &record.key) {
            (Some(key), Some(_)) => {
                state.keys.entry(key.to_owned()).and_modify(|key| key.stored = Some(place));
            }
            (Some(key), None) => {
                state.keys.remove(key);
            }
            (None, _) => {}
        }
        if !record.events.is_empty() {
            let due = record.at.saturating_add_unsigned(state.settings.webhook_delay_ms);
            state.unsent.enter(record, object, due);
            self.unsent_changed.notify_one();
        }
        drop(state);
        if record.due.is_some() {
            self.due_changed.notify_one();
        }
    }

    /// Ends what takes time, when its time has come, until shutdown.
    pub async fn settle_due(&self, shutdown: CancellationToken) {
        loop {
            let next = self.state().book.next_due().map(|at| Timestamp(at).since(self.now()));
            if next == Some(Duration::ZERO) {
                let now = self.now().millis();
                let settle = |book: &mut Book, moment: Moment<'_>| {
                    let operation = book.take_due(now)?;
                    Some(book.apply(operation, &moment))
                };
                self.record(None, settle).await;
                tokio::task::yield_now().await;
                if shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.due_changed.notified() => {}
                () = tokio::time::sleep(next.unwrap_or(LOOK).min(LOOK)) => {}
            }
        }
    }

    /// Webhooks that are due now, at most `most`, or how long to wait for the next one; nothing while they are off.
    pub fn take_webhooks(&self, most: usize) -> (Vec<Due>, Option<Duration>) {
        let mut state = self.state();
        if state.settings.webhooks { state.unsent.take(self.now(), most) } else { (Vec::new(), None) }
    }

    /// These webhooks were taken.
    pub async fn delivered(&self, ids: Vec<String>) {
        self.state().unsent.delivered(&ids);
        if let Some(permit) = self.writer.reserve().await {
            let record = Record { delivered: ids, ..Record::at(self.now().millis()) };
            // Lost, they are sent once more.
            drop(permit.append(&record));
        }
    }

    /// This webhook was not taken; it is sent again.
    pub fn put_back(&self, webhook: Due) {
        self.state().unsent.put_back(webhook, self.now());
    }

    /// Reads, once all that the answer may tell is synced.
    pub async fn look(&self, read: impl FnOnce(&Book, &str) -> Result<Bytes, Refusal>) -> Answer {
        match self.state().settings.fate(rand::random()) {
            Fate::Unavailable => return Answer { status: 503, ..Answer::ok(&failure()) },
            Fate::Cut | Fate::Unheard => return Answer { unheard: true, ..Answer::ok(&Value::Null) },
            Fate::Made | Fate::Failed | Fate::FailedAfter => {}
        }
        let Some(permit) = self.writer.reserve().await else { return broken() };
        let (found, synced) = {
            let state = self.state();
            (read(&state.book, &self.base), permit.barrier())
        };
        match (synced.await, found) {
            (Err(_), _) => broken(),
            (Ok(_), Ok(body)) => Answer::json(200, body),
            (Ok(_), Err(refusal)) => self.refused(&refusal),
        }
    }

    /// The intent of that id, once all that it tells is synced.
    pub async fn intent(&self, id: &str) -> Option<Intent> {
        let permit = self.writer.reserve().await?;
        let (found, synced) = {
            let state = self.state();
            (state.book.intent(id).ok(), permit.barrier())
        };
        synced.await.ok()?;
        found
    }

    pub fn refused(&self, refusal: &Refusal) -> Answer {
        Answer { status: refusal.status, ..Answer::ok(&refusal.body(&self.base)) }
    }

    /// How long a change takes.
    fn pause(&self, operation: &Operation) -> Duration {
        let state = self.state();
        let slow = if state.book.is_slow(operation) { state.settings.slow_ms } else { 0 };
        state.settings.latency(rand::random()) + Duration::from_millis(slow)
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
            Ok(record) => Answer { replayed: true, ..Answer::json(record.status, record.body(&self.base)) },
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

/// The ledger cannot be written or read: nothing is stored, and the process ends.
pub(crate) fn broken() -> Answer {
    Answer { status: 500, ..Answer::ok(&failure()) }
}
