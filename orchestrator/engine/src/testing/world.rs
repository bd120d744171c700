//! Services in memory that keep to the protocol: the first answer is repeated, an undo that comes first closes its round.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use eventicket_json::Json;
use serde_json::json;

use crate::input::{Answer, Found, Recorded, Send};
use crate::state::Half;

/// Code of a do whose round was undone or closed before.
const UNDONE: &str = "undone";

/// How a service takes a half of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// It happens.
    #[default]
    Done,
    /// It is refused with this code.
    Reject(String),
    /// It happens, and no answer ever comes.
    Mute,
    /// Nothing happens, and no answer comes.
    Deaf,
    /// It answers `pending` so many times; then it happens.
    Pending(u32),
    /// It answers `retry` so many times; then it happens.
    Retry(u32),
    /// It is dead-lettered.
    Dead,
}

/// The record of a round.
#[derive(Clone, Debug, Default)]
struct Record {
    answer: Option<Answer>,
    stands: bool,
    undone: bool,
    undo_closed: bool,
    asked: u32,
    undo_asked: u32,
}

/// What a service answers a command with when it happens.
pub type Outputs = Arc<dyn Fn(&Send, i64) -> Json + std::marker::Send + Sync>;

/// All services.
#[derive(Clone)]
pub struct World {
    behaviours: HashMap<(String, Half), Behaviour>,
    needs: Vec<(String, String)>,
    outputs: Outputs,
    records: BTreeMap<(String, u32), Record>,
    /// Effects and undos in the order in which they happened; a repetition is not listed.
    pub happened: Vec<(Half, String, u32)>,
}

impl World {
    /// Services that do what they are told; `outputs` makes the outputs from a command and the time.
    pub fn new(outputs: Outputs) -> Self {
        Self { behaviours: HashMap::new(), needs: Vec::new(), outputs, records: BTreeMap::new(), happened: Vec::new() }
    }

    /// From now on, a half of a step's rounds is taken so.
    pub fn behave(&mut self, step: &str, half: Half, behaviour: Behaviour) {
        self.behaviours.insert((step.to_owned(), half), behaviour);
    }

    /// From now on, every service does what it is told.
    pub fn behave_well(&mut self) {
        self.behaviours.clear();
    }

    /// The effect of `step` is refused unless one of `other` stands.
    pub fn needs(&mut self, step: &str, other: &str) {
        self.needs.push((step.to_owned(), other.to_owned()));
    }

    /// The rounds whose effects stand.
    pub fn standing(&self) -> impl Iterator<Item = (&str, u32)> {
        self.records.iter().filter(|(_, r)| r.stands).map(|((step, round), _)| (step.as_str(), *round))
    }

    /// Whether the effect of a round stands.
    pub fn stands(&self, step: &str, round: u32) -> bool {
        self.records.get(&(step.to_owned(), round)).is_some_and(|r| r.stands)
    }

    /// Takes a command; `None` is silence.
    pub fn take(&mut self, send: &Send, now: i64) -> Option<Answer> {
        let behaviour = self.behaviours.get(&(send.step.clone(), send.half)).cloned().unwrap_or_default();
        match send.half {
            Half::Do => self.take_do(send, &behaviour, now),
            Half::Undo => self.take_undo(send, &behaviour),
            Half::Fence => self.take_fence(send, &behaviour),
        }
    }

    fn take_do(&mut self, send: &Send, behaviour: &Behaviour, now: i64) -> Option<Answer> {
        let missing =
            |(step, other): &(String, String)| *step == send.step && !self.standing().any(|(s, _)| s == other);
        let missing = self.needs.iter().any(missing);
        let record = self.records.entry((send.step.clone(), send.round)).or_default();
        let rejected = |code: &str| Answer::Rejected { code: code.to_owned(), message: String::new() };
        if record.answer.is_none() {
            // A recorded answer comes before any look at the deadline.
            if record.undone {
                record.answer = Some(rejected(UNDONE));
            } else if send.deadline.is_some_and(|d| d < now) {
                return Some(Answer::Expired);
            } else if missing {
                record.answer = Some(rejected("missing"));
            } else {
                record.asked += 1;
                match behaviour {
                    Behaviour::Deaf => return None,
                    Behaviour::Dead => return Some(Answer::Dead { reason: "poison".into() }),
                    Behaviour::Pending(n) if record.asked <= *n => {
                        return Some(Answer::Pending(json!({ "next": "act" }).into()));
                    }
                    Behaviour::Retry(n) if record.asked <= *n => return Some(Answer::Retry { code: "busy".into() }),
                    Behaviour::Reject(code) => record.answer = Some(rejected(code)),
                    _ => {
                        record.answer = Some(Answer::Done((self.outputs)(send, now)));
                        record.stands = true;
                        self.happened.push((Half::Do, send.step.clone(), send.round));
                    }
                }
            }
        }
        if *behaviour == Behaviour::Mute { None } else { record.answer.clone() }
    }

    /// Tells what is recorded and closes the rest; like a bank, it undoes by itself what a fence met half way.
    fn take_fence(&mut self, send: &Send, behaviour: &Behaviour) -> Option<Answer> {
        match behaviour {
            Behaviour::Deaf | Behaviour::Mute => return None,
            Behaviour::Dead => return Some(Answer::Dead { reason: "poison".into() }),
            _ => {}
        }
        let question = send.question?;
        let record = self.records.entry((send.step.clone(), send.round)).or_default();
        let effect = match &record.answer {
            Some(Answer::Done(output)) => Recorded::Done(output.clone()),
            Some(Answer::Rejected { code, .. }) if code == UNDONE => Recorded::Closed,
            Some(Answer::Rejected { code, .. }) => Recorded::Rejected { code: code.clone() },
            _ => {
                record.answer = Some(Answer::Rejected { code: UNDONE.into(), message: String::new() });
                Recorded::Closed
            }
        };
        let undo = question.undo.then(|| match record.undone {
            true => Recorded::Done(Json::NULL),
            false => {
                record.undo_closed = true;
                Recorded::Closed
            }
        });
        Some(Answer::Fenced(Found { id: question.id, effect, undo }))
    }

    /// Somebody gives back by hand what stands of a round.
    pub fn give_back(&mut self, step: &str, round: u32) {
        let record = self.records.entry((step.to_owned(), round)).or_default();
        (record.stands, record.undone) = (false, true);
    }

    fn take_undo(&mut self, send: &Send, behaviour: &Behaviour) -> Option<Answer> {
        let record = self.records.entry((send.step.clone(), send.round)).or_default();
        if record.undo_closed && !record.undone {
            return Some(Answer::Rejected { code: "closed".into(), message: String::new() });
        }
        if !record.undone {
            record.undo_asked += 1;
            match behaviour {
                Behaviour::Deaf => return None,
                Behaviour::Dead => return Some(Answer::Dead { reason: "poison".into() }),
                Behaviour::Pending(n) if record.undo_asked <= *n => return Some(Answer::Pending(Json::NULL)),
                Behaviour::Retry(n) if record.undo_asked <= *n => return Some(Answer::Retry { code: "busy".into() }),
                Behaviour::Reject(code) => {
                    return Some(Answer::Rejected { code: code.clone(), message: String::new() });
                }
                _ => {
                    record.undone = true;
                    record.stands = false;
                    self.happened.push((Half::Undo, send.step.clone(), send.round));
                }
            }
        }
        if *behaviour == Behaviour::Mute { None } else { Some(Answer::Done(Json::NULL)) }
    }
}
