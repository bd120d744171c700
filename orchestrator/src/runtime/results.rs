//! What a turn's inputs have led to, until it is stored and followed up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use eventicket_contracts::envelope::Reply;
use eventicket_contracts::sagas::{ActAnswer, StartAnswer, StartSaga};
use eventicket_contracts::{CustomerId, SagaId};

use super::intake::{Unacked, Work};
use super::turn::{Changes, Fate, Outgoing};
use super::work::conflict_code;

/// One turn's results, until they are stored.
pub struct Turn<M = Arc<Unacked>> {
    /// Sagas that changed, with their commands.
    pub changes: Changes,
    /// Inputs that changed a saga, by saga.
    pub applied: BTreeMap<SagaId, Vec<Work<M>>>,
    /// Inputs that had been taken before.
    pub settled: Vec<Work<M>>,
    /// Actions with their refusals.
    pub answers: Vec<(Work<M>, ActAnswer)>,
    /// Actions that were stored by a commit without an answer.
    pub found: Vec<(Work<M>, ActAnswer)>,
    /// Starts with their refusals.
    pub starts: Vec<(Work<M>, StartAnswer)>,
    /// Starts of what exists.
    pub existing: Vec<Work<M>>,
    /// Replies that nobody awaits.
    pub dead: Vec<(Reply, M, String)>,
    /// Inputs whose saga was stored.
    pub stored: Vec<Work<M>>,
    /// Commands of the sagas that were stored.
    pub sends: Vec<Outgoing>,
    /// Sagas that ended, no longer kept in memory.
    pub ended: Vec<SagaId>,
    keys: HashSet<(Option<CustomerId>, String)>,
}

impl<M> Default for Turn<M> {
    fn default() -> Self {
        Self {
            changes: Changes::default(),
            applied: BTreeMap::new(),
            settled: Vec::new(),
            answers: Vec::new(),
            found: Vec::new(),
            starts: Vec::new(),
            existing: Vec::new(),
            dead: Vec::new(),
            stored: Vec::new(),
            sends: Vec::new(),
            ended: Vec::new(),
            keys: HashSet::new(),
        }
    }
}

impl<M> Turn<M> {
    /// Whether no other start of this turn has the same owner and key.
    pub fn claim(&mut self, start: &StartSaga) -> bool {
        start.idempotency.as_ref().is_none_or(|i| self.keys.insert((start.owner, i.key.clone())))
    }

    /// An input that the saga's state does not take.
    pub fn refused(&mut self, work: Work<M>, fate: Fate) {
        let reason = match &fate {
            Fate::Illegal(illegal) => illegal.to_string(),
            Fate::Unknown => "no such saga".to_owned(),
            _ => "this replica does not know the saga's definition".to_owned(),
        };
        match (work, fate) {
            (Work::Act(act, to), Fate::Unknown) => self.answers.push((Work::Act(act, to), ActAnswer::NotFound)),
            (Work::Act(act, to), Fate::Illegal(illegal)) => {
                let code = conflict_code(&illegal).to_owned();
                self.answers.push((Work::Act(act, to), ActAnswer::Conflict { code, message: reason }));
            }
            // Asked again, another replica may get it.
            (Work::Act(act, to), Fate::Foreign) => {
                self.answers
                    .push((Work::Act(act, to), ActAnswer::Conflict { code: "try_again".into(), message: reason }));
            }
            (Work::Reply(reply, unacked), Fate::Illegal(_) | Fate::Unknown) => self.dead.push((reply, unacked, reason)),
            // Left unacknowledged for a replica that knows the definition.
            (Work::Reply(..), Fate::Foreign) => tracing::error!(reason, "a reply is left to another replica"),
            (work, _) => self.settled.push(work),
        }
    }

    /// All inputs, to be taken anew.
    pub fn into_work(self) -> impl Iterator<Item = Work<M>> {
        let answers = self.answers.into_iter().map(|(w, _)| w);
        let starts = self.starts.into_iter().map(|(w, _)| w);
        let dead = self.dead.into_iter().map(|(r, u, _)| Work::Reply(r, u));
        let applied = self.applied.into_values().flatten();
        applied.chain(self.settled).chain(answers).chain(starts).chain(self.existing).chain(dead)
    }
}
