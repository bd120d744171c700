//! New sagas: admitted, begun once, and answered with the first one where they come again.

use std::collections::HashMap;

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{StartAnswer, StartSaga, room};
use eventicket_contracts::{CustomerId, SagaId, Timestamp};
use eventicket_nats::Fault;
use eventicket_saga::{Input, Saga};
use sqlx::PgPool;

use super::intake::{self, Work};
use super::memory::Memory;
use super::results::Turn;
use super::row::Row;
use super::take::Moment;
use super::turn::{guarded, view};
use super::work::StartAnswers;
use super::{Replica, admission, journal};
use crate::sagas::Catalogue;

/// Come again a little later.
pub(super) fn busy() -> StartAnswer {
    StartAnswer::Busy { retry_after_ms: intake::RETRY_AFTER.as_millis() as u64 }
}

/// What a repeat of a start is known by: the id, or the owner and key.
fn key_of(start: &StartSaga) -> (SagaId, Option<(CustomerId, String)>) {
    let key = start.owner.zip(start.idempotency.as_ref()).map(|(owner, i)| (owner, i.key.clone()));
    (start.id, key)
}

fn start_of(work: &Work) -> Option<&StartSaga> {
    if let Work::Start(start, _) = work { Some(start) } else { None }
}

impl<M> Memory<M> {
    pub(super) fn start(&mut self, work: Work<M>, moment: Moment, turn: &mut Turn<M>) {
        let Work::Start(start, _) = &work else { return };
        if start.give_up_at < moment.now {
            return; // nobody listens any more
        }
        let row = match self.begun(start, moment.now) {
            Ok(row) => row,
            Err(refusal) => return turn.starts.push((work, refusal)),
        };
        if self.rows.contains_key(&start.id) || !turn.claim(start) {
            // Started before, or twice in this turn: the first one decides.
            return turn.existing.push(work);
        }
        let id = start.id;
        self.rows.insert(id, row);
        match self.feed(id, Input::Start, None, moment, turn) {
            Ok(_) => turn.applied.entry(id).or_default().push(work),
            Err(reason) => self.poison(work, &reason, moment.now, turn),
        }
    }

    /// The row of a new saga, where it may begin.
    fn begun(&self, start: &StartSaga, now: Timestamp) -> Result<Row, StartAnswer> {
        let refuse = |code: &str, message: String| StartAnswer::Refused { code: code.into(), message };
        let unknown = || refuse("unknown_definition", "no saga has this name".into());
        let catalogue = &self.catalogue;
        let kind = catalogue.kind(&start.definition).ok_or_else(unknown)?;
        let definition = catalogue.registry.newest(&start.definition).ok_or_else(unknown)?;
        let checked = guarded(|| (kind.check)(&start.input)).and_then(|checked| checked);
        checked.map_err(|message| refuse("invalid_input", message))?;
        let saga = Saga::new(start.id.0, definition, start.input.clone(), now.millis());
        let called = admission::surely_called(definition, &saga);
        if room(self.bound.starts(), called.into_iter().map(|service| self.outstanding(service))) <= 0 {
            return Err(busy());
        }
        Ok(Row {
            id: start.id,
            saga,
            owner: start.owner,
            event: start.event,
            idempotency: start.idempotency.clone(),
            trace: start.trace.clone(),
            version: 0,
            updated_at: now,
            news: Vec::new(),
        })
    }

    /// The answer to a start whose saga is there.
    pub fn existing(&self, start: &StartSaga, row: &Row) -> StartAnswer {
        existing(&self.catalogue, start, row)
    }
}

/// The answer to a start whose saga is there.
fn existing(catalogue: &Catalogue, start: &StartSaga, row: &Row) -> StartAnswer {
    let other =
        |i: &Idempotency| start.idempotency.as_ref().is_some_and(|s| s.key == i.key && s.fingerprint != i.fingerprint);
    if row.idempotency.as_ref().is_some_and(other) {
        return StartAnswer::KeyReused;
    }
    StartAnswer::Started { id: row.id, created: false, view: view(catalogue, row) }
}

/// The answers to these starts whose sagas are there, by their place; all are looked up at once, since there are many
/// where there is no room.
async fn known(
    pool: &PgPool,
    catalogue: &Catalogue,
    starts: &[&StartSaga],
) -> Result<HashMap<usize, StartAnswer>, sqlx::Error> {
    if starts.is_empty() {
        return Ok(HashMap::new());
    }
    let asked: Vec<_> = starts.iter().map(|start| key_of(start)).collect();
    let found = journal::known(pool, &asked).await?;
    let by_id: HashMap<SagaId, &Row> = found.iter().map(|row| (row.id, row)).collect();
    let key = |row: &'_ Row| Some((row.owner?, row.idempotency.as_ref()?.key.clone()));
    let by_key: HashMap<_, &Row> = found.iter().filter_map(|row| Some((key(row)?, row))).collect();
    let row = |(id, key): &(SagaId, Option<_>)| key.as_ref().and_then(|k| by_key.get(k)).or_else(|| by_id.get(id));
    let answer = |(at, start): (usize, &&StartSaga)| Some((at, existing(catalogue, start, row(&asked[at])?)));
    Ok(starts.iter().enumerate().filter_map(answer).collect())
}

/// The answers to starts that are refused, unless they are known: a repeat is answered as the first one was, whatever stands
/// against it now.
pub(super) async fn known_first(
    pool: &PgPool,
    catalogue: &Catalogue,
    refused: Vec<(&StartSaga, StartAnswer)>,
) -> Vec<StartAnswer> {
    let (starts, mut answers): (Vec<&StartSaga>, Vec<StartAnswer>) = refused.into_iter().unzip();
    match known(pool, catalogue, &starts).await.map_err(Fault::from) {
        Ok(known) => known.into_iter().for_each(|(at, answer)| answers[at] = answer),
        // What the database cannot look for it cannot hold.
        Err(Fault::Broken(_)) => {}
        Err(Fault::Transient(error)) => {
            tracing::warn!(error, "starts cannot be looked up; they are put off");
            answers.fill(busy());
        }
    }
    answers
}

impl Replica {
    /// What the refused starts of a turn are told.
    pub(super) async fn told_refused(&self, refused: Vec<(Work, StartAnswer)>) -> Vec<(Work, StartAnswer)> {
        let starts = refused.iter().filter_map(|(work, answer)| Some((start_of(work)?, answer.clone()))).collect();
        let answers = known_first(&self.config.pool, &self.config.catalogue, starts).await;
        refused.into_iter().map(|(work, _)| work).zip(answers).collect()
    }

    /// Starts whose id or key is known get the first one's answer.
    pub(super) async fn answer_existing(&mut self, existing: Vec<Work>) {
        let starts: Vec<&StartSaga> = existing.iter().filter_map(start_of).collect();
        let mut known = match known(&self.config.pool, &self.config.catalogue, &starts).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "starts cannot be looked up; they are looked at again");
                HashMap::new()
            }
        };
        let mut answers = StartAnswers::default();
        for (at, work) in existing.into_iter().enumerate() {
            match known.remove(&at) {
                Some(answer) => answers.add(&work, answer),
                // The first one was not stored after all, or cannot be read.
                None => self.memory.again.push(work),
            }
        }
        for (to, payload) in answers.addressed() {
            if let Err(error) = self.config.nats.publisher().publish(to, payload).await {
                tracing::debug!(%error, "an answer was lost");
            }
        }
    }
}
