//! The gateway without its sockets, its ledger and its clock, for the simulator: the same book, forms and answers, one
//! request at a time, each as it is claimed, carried out and answered.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;

use crate::answer::json;
use crate::book::{Book, Moment, Outcome, failure};
use crate::form::{self, Operation};
use crate::gateway::fingerprint;
use crate::intents::{Refusal, Settlement};
use crate::ledger::Record;
use crate::settings::Settings;
use crate::webhooks::Due;

pub use crate::intents::{Intent, Refund, RefundStatus, Status};
pub use crate::tokens::Fate;

/// Its own address, in links.
const BASE: &str = "http://gateway";

/// The gateway.
pub struct Gateway {
    book: Book,
    settings: Settings,
    webhooks: bool,
    keys: BTreeMap<String, Key>,
    made: Cell<u32>,
}

/// An idempotency key: the request it stands for, and its answer once there is one.
#[derive(Debug)]
struct Key {
    request: String,
    stored: Option<(u16, Bytes)>,
}

#[derive(Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
}

/// What answers a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    /// It was stored before.
    pub replayed: bool,
    /// JSON.
    pub body: Bytes,
    /// The connection is cut in its place.
    pub unheard: bool,
}

/// A change whose key is claimed.
#[derive(Clone, Debug)]
pub struct Change {
    operation: Operation,
    key: Option<String>,
}

impl Change {
    /// The intent that it confirms.
    pub fn confirms(&self) -> Option<&str> {
        if let Operation::Confirm { intent, .. } = &self.operation { Some(intent) } else { None }
    }
}

/// A webhook as it is sent.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// What happened, as `payment_intent.succeeded`.
    pub kind: String,
    /// JSON.
    pub body: Vec<u8>,
}

fn answer(status: u16, body: Bytes) -> Answer {
    Answer { status, replayed: false, body, unheard: false }
}

fn shown(found: Result<Bytes, Refusal>) -> Answer {
    found.map_or_else(|refusal| refused(&refusal), |body| answer(200, body))
}

fn refused(refusal: &Refusal) -> Answer {
    answer(refusal.status, json(&refusal.body(BASE)))
}

impl Gateway {
    /// One that nobody has asked for anything.
    pub fn new(webhooks: bool) -> Self {
        let (book, settings) = (Book::default(), Settings::default());
        Self { book, settings, webhooks, keys: BTreeMap::new(), made: Cell::new(0) }
    }

    /// Takes a request: a change that is to be carried out, or an answer that can be given at once.
    ///
    /// # Errors
    /// The answer.
    pub fn take(&mut self, method: &str, path: &str, key: Option<&str>, body: &[u8]) -> Result<Change, Answer> {
        let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
        let operation = match (method, &parts[..]) {
            ("POST", ["payment_intents"]) => form::create(body),
            ("POST", ["payment_intents", id, "confirm"]) => form::confirm((*id).to_owned(), body),
            ("POST", ["payment_intents", id, "cancel"]) => form::cancel((*id).to_owned(), body),
            ("POST", ["refunds"]) => form::refund(body),
            ("GET", ["payment_intents", id]) => {
                return Err(shown(self.book.intent(id).map(|intent| json(&intent.shown(BASE)))));
            }
            ("GET", ["refunds", id]) => return Err(shown(self.book.refund(id).map(|refund| json(&refund.shown())))),
            ("GET", ["refunds"]) => {
                let of = path.split("payment_intent=").nth(1).unwrap_or_default();
                let refunds = self.book.refunds_of(of);
                let list = List { object: "list", data: refunds.iter().map(Refund::shown).collect(), has_more: false };
                return Err(answer(200, json(&list)));
            }
            _ => Err(Refusal { status: 404, ..Refusal::invalid("url_invalid", "no such URL") }),
        };
        let operation = operation.map_err(|refusal| refused(&refusal))?;
        let Some(key) = key else { return Ok(Change { operation, key: None }) };
        let request = fingerprint(path, body);
        let Some(known) = self.keys.get(key) else {
            self.keys.insert(key.to_owned(), Key { request, stored: None });
            return Ok(Change { operation, key: Some(key.to_owned()) });
        };
        let refusal = |status, code, message: &str| {
            refused(&Refusal { status, kind: "idempotency_error", ..Refusal::invalid(code, message) })
        };
        if known.request != request {
            return Err(refusal(400, "idempotency_error", "the key was used for another request"));
        }
        let Some((status, body)) = &known.stored else {
            return Err(refusal(409, "idempotency_key_in_use", "a request with this key is under way"));
        };
        Err(Answer { status: *status, replayed: true, body: body.clone(), unheard: false })
    }

    /// Carries out a change as it is fated to.
    pub fn carry_out(&mut self, change: Change, fate: Fate, now: i64) -> (Answer, Vec<Webhook>) {
        let Change { operation, key } = change;
        let Outcome { record, unheard, stored } = self.apply(operation, fate, now);
        let told = Answer { unheard, ..answer(record.status, record.body(BASE)) };
        match key {
            Some(key) if stored => {
                if let Some(key) = self.keys.get_mut(&key) {
                    key.stored = Some((told.status, told.body.clone()));
                }
            }
            Some(key) => drop(self.keys.remove(&key)),
            None => {}
        }
        (told, webhooks(&record))
    }

    fn apply(&mut self, operation: Operation, fate: Fate, now: i64) -> Outcome {
        let made = &self.made;
        let fresh = |kind: &str| {
            made.set(made.get() + 1);
            format!("{kind}_{:05}", made.get())
        };
        let (settings, webhooks) = (&self.settings, self.webhooks);
        self.book.apply(operation, &Moment { now, settings, base: BASE, webhooks, fate, fresh: &fresh })
    }

    /// The answer of a gateway in trouble.
    pub fn unavailable() -> Answer {
        answer(503, json(&failure()))
    }

    /// A crash: changes that were not carried out never are. With `all`, what was stored is forgotten, too.
    pub fn forget_keys(&mut self, all: bool) {
        self.keys.retain(|_, key| key.stored.is_some() && !all);
    }

    /// Its keys with what they stand for, and how many ids it has made, to tell its states apart.
    pub fn keys(&self) -> impl Debug {
        (&self.keys, &self.made)
    }

    /// When the next end comes by itself.
    pub fn next_due(&self) -> Option<i64> {
        self.book.next_due()
    }

    /// Ends what takes time, where its time has come.
    pub fn settle_due(&mut self, now: i64) -> Option<Vec<Webhook>> {
        let operation = self.book.take_due(now)?;
        Some(webhooks(&self.apply(operation, Fate::Made, now).record))
    }

    /// A customer authenticates the payment, or gives it up.
    pub fn act(&mut self, intent: &str, succeeds: bool, now: i64) -> Vec<Webhook> {
        let end = if succeeds { Settlement::Succeeds } else { Settlement::Fails };
        webhooks(&self.apply(Operation::Settle { id: intent.to_owned(), end }, Fate::Made, now).record)
    }

    /// All intents.
    pub fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.book.all().0
    }

    /// All refunds.
    pub fn refunds(&self) -> impl Iterator<Item = &Refund> {
        self.book.all().1
    }
}

fn webhooks(record: &Record) -> Vec<Webhook> {
    let sent = record.events.iter().map(|event| {
        let (id, kind, object) = (event.id.clone(), event.kind.clone(), record.object(BASE).unwrap_or_default());
        let due = Due { id, kind, at: record.at, object, tries: 0 };
        Webhook { kind: due.kind.clone(), body: due.body().into_bytes() }
    });
    sent.collect()
}
