//! What a replica keeps in memory, all of which can be lost, and what becomes of it when a turn is stored. Without IO.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{InFlight, StatusChange};
use eventicket_planted::Fault;

use super::admission::{Bound, Shut};
use super::held::Held;
use super::intake::{Unacked, Work};
use super::replicas::{Outstanding, Stuck};
use super::results::Turn;
use super::row::Row;
use super::timers::Timers;
use crate::sagas::Catalogue;

/// A replica's memory. `M` is the message that a reply came in.
pub struct Memory<M = Arc<Unacked>> {
    /// The sagas that it knows to run.
    pub catalogue: Arc<Catalogue>,
    /// Most commands in flight at a service.
    pub bound: Bound,
    /// Sagas as they were last read or stored.
    pub rows: HashMap<SagaId, Row>,
    /// Read in this turn, whether they were there or not.
    pub fresh: HashSet<SagaId>,
    /// When its sagas want to be looked at.
    pub timers: Timers,
    /// Its sagas that wait for a service.
    pub held: Held,
    /// What is not sent to in this turn.
    pub shut: Shut,
    /// Commands in flight by its own count.
    pub counts: Outstanding,
    /// The same by the counts of the other replicas.
    pub others: Outstanding,
    /// Inputs for the next turn.
    pub again: Vec<Work<M>>,
    /// Adopted sagas that it cannot take.
    pub stuck: Stuck,
}

impl<M> Memory<M> {
    /// The memory of a replica that has just started.
    pub fn new(catalogue: Arc<Catalogue>, bound: Bound) -> Self {
        Self {
            catalogue,
            bound,
            rows: HashMap::new(),
            fresh: HashSet::new(),
            timers: Timers::default(),
            held: Held::default(),
            shut: Shut::default(),
            counts: Outstanding::new(),
            others: Outstanding::new(),
            again: Vec::new(),
            stuck: Stuck::default(),
        }
    }

    /// Commands in flight at a service, over all replicas.
    pub fn outstanding(&self, service: &str) -> i64 {
        let of = |counts: &Outstanding| counts.get(service).copied().unwrap_or(0);
        of(&self.others) + of(&self.counts)
    }

    /// The same at all services.
    pub fn in_flight(&self) -> InFlight {
        let services = self.counts.keys().chain(self.others.keys());
        let commands = services.map(|service| (service.clone(), self.outstanding(service))).collect();
        InFlight { limit: self.bound.starts(), commands, askers: 1 }
    }

    /// The counts of commands in flight once these sagas of the turn are stored.
    pub fn counted(&self, turn: &Turn<M>, stored: &HashSet<SagaId>) -> Outstanding {
        let mut counts = self.counts.clone();
        for row in stored.iter().filter_map(|id| self.rows.get(id)) {
            turn.changes.count(&self.catalogue, row, &mut counts);
        }
        counts.retain(|_, n| *n != 0);
        counts
    }

    /// Takes over what was stored of a turn, and what lost its race; `witness` sees each stored saga with its news and the
    /// inputs that brought them. Returns what is to be told of it.
    pub fn stored(
        &mut self,
        turn: &mut Turn<M>,
        stored: &HashSet<SagaId>,
        mut witness: impl FnMut(&Row, &[Work<M>]),
    ) -> Vec<StatusChange> {
        let mut told: Vec<StatusChange> = Vec::new();
        for id in std::mem::take(&mut turn.changes.changed) {
            let works = turn.applied.remove(&id).unwrap_or_default();
            if !stored.contains(&id) {
                self.lost_race(id, works, turn);
                continue;
            }
            let Some(row) = self.rows.get_mut(&id) else { continue };
            row.version += 1;
            witness(row, &works);
            row.news.clear();
            let settled = turn.changes.settle(&self.catalogue, row);
            told.extend(settled.change);
            self.timers.set(id, settled.due);
            self.held.set(id, settled.held);
            if row.saga.ended() {
                turn.ended.push(id);
            }
            turn.stored.extend(works);
        }
        turn.changes.calls.retain(|(saga, ..)| stored.contains(saga));
        turn.sends = std::mem::take(&mut turn.changes.sends);
        turn.sends.retain(|s| stored.contains(&s.saga) || Fault::EffectsOfRefusedUpdate.is_planted());
        told
    }

    /// Another replica was first: what it wrote is read, and the inputs are taken again.
    fn lost_race(&mut self, id: SagaId, works: Vec<Work<M>>, turn: &mut Turn<M>) {
        self.rows.remove(&id);
        self.timers.set(id, None);
        self.held.set(id, BTreeMap::new());
        for work in works {
            match work {
                Work::Start(..) => {
                    turn.existing.push(work);
                    // Where it was this replica's own commit without an answer, nobody else drives it.
                    self.again.push(Work::Adopt(id));
                }
                // A timer belongs to whoever dispatches the saga now.
                Work::Poke(_, eventicket_saga::Input::Timer) => {}
                work => self.again.push(work),
            }
        }
    }

    /// After a commit without an answer: what was changed is read again.
    pub fn forget(&mut self, turn: &Turn<M>) {
        for id in &turn.changes.changed {
            self.rows.remove(id);
            // Sent again where the turn had been stored after all; nothing where it had not.
            self.again.push(Work::Adopt(*id));
        }
    }
}
