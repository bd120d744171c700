//! The end of a turn: what is stored, what lost a race, and what follows from it.

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{ActAnswer, StatusChange};
use eventicket_contracts::subjects;
use std::collections::HashSet;

use super::Replica;
use super::intake::{Work, respond};
use super::journal::{self, Shown, Write};
use super::replicas::{Outstanding, parse};
use super::results::Turn;
use super::row::Row;
use super::spans;
use super::turn::view;

impl Replica {
    /// Stores a turn in one transaction. Effects leave, and replies are acknowledged, only for the rows that it returned;
    /// the inputs of the others are looked at again (6.10).
    pub(super) async fn commit(&mut self, turn: &mut Turn) -> Result<(), sqlx::Error> {
        if turn.changes.changed.is_empty() {
            return Ok(());
        }
        let span = spans::transaction(self.changed(turn));
        let all: HashSet<SagaId> = self.changed(turn).map(|row| row.id).collect();
        let (stored, counts) = match self.store(turn, &all).await? {
            Some(counts) => (all, counts),
            None => self.store_some(turn).await?,
        };
        drop(span);
        self.own.send_replace(text(&counts));
        self.memory.counts = counts;
        let (spans, figures) = (&self.spans, &mut self.figures);
        let told = self.memory.stored(turn, &stored, |row, works| {
            spans.acted(row, works);
            spans.tell(row);
            figures.tell(row);
        });
        self.broadcast(told).await;
        Ok(())
    }

    fn changed<'a>(&'a self, turn: &'a Turn) -> impl Iterator<Item = &'a Row> {
        turn.changes.changed.iter().filter_map(|id| self.memory.rows.get(id))
    }

    /// Everything, as nearly always, in one statement, with the counts that then hold; `None` where another replica was
    /// faster at one of the sagas.
    async fn store(&mut self, turn: &Turn, all: &HashSet<SagaId>) -> Result<Option<Outstanding>, sqlx::Error> {
        let mut session = self.session().await?;
        let counts = self.memory.counted(turn, all);
        let news = (counts != self.memory.counts).then(|| text(&counts));
        let alone = self.sum.borrow().replicas == 1;
        let stored = journal::store(&mut session, self.name, &self.writes(turn), news.as_deref(), alone).await?;
        // After an error it is not used again.
        self.session = Some(session);
        Ok(stored.then_some(counts))
    }

    /// Those that are as they were read, with the counts that then hold.
    async fn store_some(&self, turn: &Turn) -> Result<(HashSet<SagaId>, Outstanding), sqlx::Error> {
        let mut tx = self.config.pool.begin().await?;
        let stored = journal::write(&mut tx, self.name, &self.writes(turn)).await?;
        let counts = self.memory.counted(turn, &stored);
        if counts != self.memory.counts {
            journal::count(&mut tx, self.name, &text(&counts)).await?;
        }
        tx.commit().await?;
        Ok((stored, counts))
    }

    fn writes<'a>(&'a self, turn: &'a Turn) -> Vec<Write<'a>> {
        let shown = |row: &'a Row| {
            let definition = self.config.catalogue.registry.get(&row.saga.definition, row.saga.version);
            Shown { state: row.saga.state().name(), step: definition.and_then(|definition| row.step(definition)) }
        };
        self.changed(turn).map(|row| Write { row, shown: shown(row) }).collect()
    }

    async fn broadcast(&self, told: Vec<StatusChange>) {
        for part in told.chunks(1_000) {
            let payload = serde_json::to_vec(part).unwrap_or_default();
            if let Err(error) = self.config.nats.publisher().publish(subjects::STATUS, payload.into()).await {
                tracing::debug!(%error, "a change of status was not told; it is a hint only");
            }
        }
    }

    /// After a commit without an answer: false while the journal cannot be read. A turn is one transaction, so one row
    /// tells of all; the counts are those that stand with it.
    pub(super) async fn reread(&mut self, turn: &mut Turn) -> bool {
        let Some(id) = turn.changes.changed.iter().next() else { return true };
        let Ok(version) = journal::version(&self.config.pool, *id).await else { return false };
        let Ok(counts) = journal::counts(&self.config.pool, self.name).await else { return false };
        self.memory.counts = counts.as_deref().map(parse).unwrap_or_default();
        let known = self.memory.rows.get(id).map_or(0, |r| r.version);
        if version.unwrap_or(0) > known {
            // What it had to send is sent when its sagas are adopted, see `forget`.
            tracing::warn!("a commit without an answer had been stored");
            return self.find_acts(turn).await;
        }
        true
    }

    /// Finds the actions that were stored: the saga may not take them twice, and their askers are told that they are done.
    /// By the history, since other replicas may have been first at some sagas, and may have gone on with the others.
    async fn find_acts(&self, turn: &mut Turn) -> bool {
        let acted = |works: &[Work]| works.iter().any(|work| matches!(work, Work::Act(..)));
        let acted: Vec<SagaId> = turn.applied.iter().filter(|(_, works)| acted(works)).map(|(id, _)| *id).collect();
        for id in acted {
            let Some(row) = self.memory.rows.get(&id).filter(|row| !row.news.is_empty()) else { continue };
            let Ok(history) = journal::history(&self.config.pool, id).await else { return false };
            let history = history.unwrap_or_default();
            if !row.news.iter().all(|entry| history.contains(entry)) {
                continue;
            }
            let view = view(&self.config.catalogue, row);
            let works = turn.applied.remove(&id).unwrap_or_default();
            let (acts, others) = works.into_iter().partition(|work| matches!(work, Work::Act(..)));
            turn.applied.insert(id, others);
            let done = |work| (work, ActAnswer::Done { view: view.clone(), repeated: false });
            turn.found.extend(Vec::into_iter(acts).map(done));
        }
        true
    }

    /// Tells the askers of what [`Self::reread`] found.
    pub(super) async fn answer_stored(&self, turn: &mut Turn) {
        for (work, answer) in turn.found.drain(..) {
            if let Work::Act(_, to) = work {
                respond(&self.config.nats, to, &answer).await;
            }
        }
    }
}

/// Counts of commands in flight as they are stored.
fn text(counts: &Outstanding) -> String {
    serde_json::to_string(counts).unwrap_or_default()
}
