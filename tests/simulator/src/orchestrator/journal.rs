//! A replica's transactions: what it reads before a turn, the turn's commit, and what is read anew where that had no answer.

use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::ActAnswer;
use eventicket_nats::Fault;
use eventicket_orchestrator::runtime::results::Turn;
use eventicket_orchestrator::runtime::row::Row;
use eventicket_orchestrator::runtime::turn::view;
use eventicket_orchestrator::runtime::work::saga_of;

use super::{Letter, Mine, Replica, Work};
use crate::flaws::Flaw;
use crate::store::{Lock, Tx, Write};

impl Replica {
    /// Reads the sagas that a turn needs and are not in memory.
    pub(super) async fn load(&mut self, work: &[Mine]) -> Result<(), Fault> {
        if self.sim.living("orchestrator").len() > 1 {
            self.memory.rows.clear();
        }
        self.memory.fresh.clear();
        let rows = &self.memory.rows;
        let wanted: BTreeSet<SagaId> = work.iter().filter_map(saga_of).filter(|id| !rows.contains_key(id)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        Tx::begin(&self.sim, self.me).statement().await?;
        let store = self.sim.store.borrow();
        for journaled in wanted.iter().filter_map(|id| store.tables.sagas.get(id)) {
            self.memory.rows.insert(journaled.row.id, journaled.row.clone());
        }
        self.memory.fresh.extend(wanted);
        Ok(())
    }

    /// Stores a turn in one transaction; effects leave only for the rows that it returned.
    pub(super) async fn commit(&mut self, turn: &mut Turn<Rc<Letter>>) -> Result<(), Fault> {
        if turn.changes.changed.is_empty() {
            return Ok(());
        }
        let mut tx = Tx::begin(&self.sim, self.me);
        tx.statement().await?;
        let changed: Vec<Row> =
            turn.changes.changed.iter().filter_map(|id| self.memory.rows.get(id)).cloned().collect();
        let mut stored = HashSet::new();
        for row in changed {
            let id = row.id;
            let written =
                if row.version == 0 { self.insert(&mut tx, row).await? } else { self.update(&mut tx, row).await? };
            if written {
                stored.insert(id);
            }
        }
        let counts = self.memory.counted(turn, &stored);
        if counts != self.memory.counts {
            tx.write(Write::Count(self.name, counts.clone()));
        }
        tx.commit().await?;
        self.memory.counts = counts;
        self.memory.stored(turn, &stored, |_, _| ());
        Ok(())
    }

    /// Inserts a saga, unless it is there by its id, or by owner and key.
    async fn insert(&self, tx: &mut Tx, row: Row) -> Result<bool, Fault> {
        tx.lock(Lock::Saga(row.id)).await?;
        let request = row.owner.zip(row.idempotency.as_ref()).map(|(owner, request)| (owner, request.key.clone()));
        if let Some((owner, key)) = &request {
            tx.lock(Lock::Request(*owner, key.clone())).await?;
        }
        let store = self.sim.store.borrow();
        let same = request.is_some_and(|request| store.tables.requests.contains_key(&request));
        let unique = self.sim.has_flaw(Flaw::NoUniqueRequest);
        let there = store.tables.sagas.contains_key(&row.id) || (same && !unique);
        drop(store);
        if !there {
            tx.write(Write::NewSaga(Box::new(row), self.name));
        }
        Ok(!there)
    }

    /// Stores a changed saga where its version is still the one that was read.
    async fn update(&self, tx: &mut Tx, row: Row) -> Result<bool, Fault> {
        tx.lock(Lock::Saga(row.id)).await?;
        let version = self.sim.store.borrow().tables.sagas.get(&row.id).map(|journaled| journaled.row.version);
        let guarded = !eventicket_planted::Fault::NoVersionGuard.is_planted();
        let free = version == Some(row.version) || (!guarded && version.is_some());
        if free {
            tx.write(Write::Saga(Box::new(row), self.name));
        }
        Ok(free)
    }

    /// After a commit without an answer: what of it was stored.
    pub(super) async fn reread(&mut self, turn: &mut Turn<Rc<Letter>>) -> Result<(), Fault> {
        Tx::begin(&self.sim, self.me).statement().await?;
        let store = self.sim.store.borrow();
        let Some(id) = turn.changes.changed.iter().next() else { return Ok(()) };
        self.memory.counts = store.tables.counts.get(&self.name).cloned().unwrap_or_default();
        let version = store.tables.sagas.get(id).map_or(0, |journaled| journaled.row.version);
        let known = self.memory.rows.get(id).map_or(0, |row| row.version);
        if version <= known {
            return Ok(());
        }
        // The actions among the inputs may not be taken twice, and their askers are told that they are done.
        let ids: Vec<SagaId> = turn.applied.keys().copied().collect();
        for id in ids {
            let Some(row) = self.memory.rows.get(&id).filter(|row| !row.news.is_empty()) else { continue };
            let history = store.tables.sagas.get(&id).map(|journaled| &journaled.history);
            if !row.news.iter().all(|entry| history.is_some_and(|history| history.contains(entry))) {
                continue;
            }
            let shown = view(&self.sim.catalogue, row);
            let works = turn.applied.remove(&id).unwrap_or_default();
            let (acts, others): (Vec<_>, Vec<_>) = works.into_iter().partition(|work| matches!(work, Work::Act(..)));
            turn.applied.insert(id, others);
            let done = |work| (work, ActAnswer::Done { view: shown.clone(), repeated: false });
            turn.found.extend(acts.into_iter().map(done));
        }
        Ok(())
    }
}
