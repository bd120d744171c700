//! What a batch knows and has decided so far.

use std::collections::HashMap;

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{Json, Timestamp};

use crate::store::NewDelivery;

pub(super) struct Desk {
    recorded: HashMap<Key, Answer>,
    pub now: Timestamp,
    /// Deliveries to be recorded.
    pub new: Vec<NewDelivery>,
}

impl Desk {
    pub fn new(recorded: HashMap<Key, Answer>, now: Timestamp) -> Self {
        Self { recorded, now, new: Vec::new() }
    }

    /// The recorded answer of a round.
    pub fn recorded(&self, key: &Key) -> Option<&Answer> {
        self.recorded.get(key)
    }

    /// Records the delivery of a round that has none; a refused one never leaves. Its answer.
    pub fn record(&mut self, new: NewDelivery) -> Answer {
        let answer = new.refused.clone().unwrap_or(Answer::Done(Json::NULL));
        self.recorded.insert(new.key.clone(), answer.clone());
        self.new.push(new);
        answer
    }
}
