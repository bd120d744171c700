//! What a batch knows and has decided so far.

use std::collections::{BTreeMap, HashMap};

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::events::{Event, EventPublished};
use eventicket_contracts::{EventId, Timestamp};
use serde_json::json;

use crate::lifecycle::{self, Settled, Stored};
use crate::store::Tx;

pub(super) struct Desk {
    recorded: HashMap<Key, Answer>,
    events: HashMap<EventId, Stored>,
    pub now: Timestamp,
    answers: Vec<(Key, Answer)>,
    changed: BTreeMap<EventId, Stored>,
    told: Vec<(Key, Settled)>,
}

impl Desk {
    pub fn new(recorded: HashMap<Key, Answer>, events: HashMap<EventId, Stored>, now: Timestamp) -> Self {
        Self { recorded, events, now, answers: Vec::new(), changed: BTreeMap::new(), told: Vec::new() }
    }

    /// The recorded answer of a round.
    pub fn recorded(&self, key: &Key) -> Option<&Answer> {
        self.recorded.get(key)
    }

    /// Records the answer of a round that has none.
    pub fn record(&mut self, key: &Key, answer: Answer) {
        self.recorded.insert(key.clone(), answer.clone());
        self.answers.push((key.clone(), answer));
    }

    /// Ends the change that offered `version`; false where it is not under way.
    pub fn settle(&mut self, key: &Key, event: EventId, version: i64, refused: Option<&str>) -> bool {
        let stored = self.events.get(&event).cloned();
        let settled = stored.and_then(|stored| lifecycle::settle(stored, version, refused, self.now));
        let Some(settled) = settled else { return false };
        let stored = Stored { event: settled.event.clone(), next: None };
        self.events.insert(event, stored.clone());
        self.changed.insert(event, stored);
        self.told.push((key.clone(), settled));
        true
    }

    /// Writes each row once.
    pub async fn write(self, tx: &mut Tx) -> Result<(), sqlx::Error> {
        if !self.answers.is_empty() {
            tx.record(&self.answers, self.now).await?;
        }
        if !self.changed.is_empty() {
            let changed: Vec<Stored> = self.changed.into_values().collect();
            tx.update(&changed).await?;
        }
        let data = |key: &Key, settled: &Settled| match settled.what {
            "published" => json!(EventPublished { event: settled.event.clone(), saga: key.saga }),
            _ => json!({ "event": settled.event }),
        };
        let told = self
            .told
            .iter()
            .map(|(key, settled)| -> (&'static str, &Event, _) { (settled.what, &settled.event, data(key, settled)) });
        tx.tell(told, self.now).await
    }

    /// How many answers are to be recorded.
    #[cfg(test)]
    pub fn new_answers(&self) -> usize {
        self.answers.len()
    }
}
