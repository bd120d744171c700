//! New sagas: admitted, begun once, and answered with the first one where they come again.

use std::collections::HashMap;

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{StartAnswer, StartSaga};
use eventicket_contracts::{CustomerId, SagaId};
use eventicket_nats::Fault;
use eventicket_saga::{Input, Saga};

use super::intake::{self, Work, respond};
use super::results::Turn;
use super::row::Row;
use super::turn::{guarded, view};
use super::{Replica, admission, journal};

fn busy() -> StartAnswer {
    StartAnswer::Busy { retry_after_ms: intake::RETRY_AFTER.as_millis() as u64 }
}

/// What a repeat of a start is known by: the id, or the owner and key.
fn key_of(start: &StartSaga) -> (SagaId, Option<(CustomerId, String)>) {
    let key = start.owner.zip(start.idempotency.as_ref()).map(|(owner, i)| (owner, i.key.clone()));
    (start.id, key)
}

impl Replica {
    pub(super) fn start(&mut self, work: Work, turn: &mut Turn) {
        let Work::Start(start, _) = &work else { return };
        if start.give_up_at < self.config.clock.now() {
            return; // nobody listens any more
        }
        let row = match self.begun(start) {
            Ok(row) => row,
            Err(refusal) => return turn.starts.push((work, refusal)),
        };
        if self.rows.contains_key(&start.id) || !turn.claim(start) {
            // Started before, or twice in this turn: the first one decides.
            return turn.existing.push(work);
        }
        let id = start.id;
        self.rows.insert(id, row);
        match self.feed(id, Input::Start, None, turn) {
            Ok(_) => turn.applied.entry(id).or_default().push(work),
            Err(reason) => self.poison(work, &reason, turn),
        }
    }

    /// The row of a new saga, where it may begin.
    fn begun(&self, start: &StartSaga) -> Result<Row, StartAnswer> {
        let refuse = |code: &str, message: String| StartAnswer::Refused { code: code.into(), message };
        let unknown = || refuse("unknown_definition", "no saga has this name".into());
        let catalogue = &self.config.catalogue;
        let kind = catalogue.kind(&start.definition).ok_or_else(unknown)?;
        let definition = catalogue.registry.newest(&start.definition).ok_or_else(unknown)?;
        let checked = guarded(|| (kind.check)(&start.input)).and_then(|checked| checked);
        checked.map_err(|message| refuse("invalid_input", message))?;
        let now = self.config.clock.now();
        let saga = Saga::new(start.id.0, definition, start.input.clone(), now.millis());
        let called = guarded(|| admission::surely_called(definition, &saga)).unwrap_or_default();
        if !called.into_iter().all(|service| self.config.bound.admits(self.outstanding(service))) {
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

    /// A start that is refused, unless it is known: a repeat is answered as the first one was, whatever stands against it
    /// now. All of a turn are looked up at once, since there are many where there is no room.
    pub(super) async fn known_first(&self, refused: Vec<(Work, StartAnswer)>) -> Vec<(Work, StartAnswer)> {
        let asked =
            |(work, _): &(Work, StartAnswer)| if let Work::Start(start, _) = work { Some(key_of(start)) } else { None };
        let asked: Vec<_> = refused.iter().filter_map(asked).collect();
        if asked.is_empty() {
            return refused;
        }
        let found = match journal::known(&self.config.pool, &asked).await.map_err(Fault::from) {
            Ok(found) => found,
            // What the database cannot look for it cannot hold.
            Err(Fault::Broken(_)) => return refused,
            Err(Fault::Transient(error)) => {
                tracing::warn!(error, "starts cannot be looked up; they are put off");
                return refused.into_iter().map(|(work, _)| (work, busy())).collect();
            }
        };
        let by_id: HashMap<SagaId, &Row> = found.iter().map(|row| (row.id, row)).collect();
        let key = |row: &'_ Row| Some((row.owner?, row.idempotency.as_ref()?.key.clone()));
        let by_key: HashMap<_, &Row> = found.iter().filter_map(|row| Some((key(row)?, row))).collect();
        let answer = |(work, refusal): (Work, StartAnswer)| {
            let Work::Start(start, _) = &work else { return (work, refusal) };
            let (id, key) = key_of(start);
            let row = key.and_then(|key| by_key.get(&key)).or_else(|| by_id.get(&id));
            let answer = row.map_or(refusal, |row| self.existing(start, row));
            (work, answer)
        };
        refused.into_iter().map(answer).collect()
    }

    /// The answer to a start whose saga is there.
    fn existing(&self, start: &StartSaga, row: &Row) -> StartAnswer {
        let other = |i: &Idempotency| {
            start.idempotency.as_ref().is_some_and(|s| s.key == i.key && s.fingerprint != i.fingerprint)
        };
        if row.idempotency.as_ref().is_some_and(other) {
            return StartAnswer::KeyReused;
        }
        StartAnswer::Started { id: row.id, created: false, view: view(&self.config.catalogue, row) }
    }

    /// A start whose id or key is known gets the first one's answer.
    pub(super) async fn answer_existing(&mut self, work: Work) {
        let Work::Start(start, to) = &work else { return };
        let found = match (&start.owner, &start.idempotency) {
            (Some(owner), Some(i)) => journal::by_key(&self.config.pool, *owner, &i.key).await,
            _ => journal::load(&self.config.pool, &[start.id]).await.map(|mut rows| rows.pop()),
        };
        let found = match found {
            Ok(Some(row)) => Ok(Some(row)),
            Ok(None) => journal::load(&self.config.pool, &[start.id]).await.map(|mut rows| rows.pop()),
            Err(error) => Err(error),
        };
        let answer = match found {
            Ok(Some(row)) => self.existing(start, &row),
            // The first one was not stored after all, or cannot be read: this one is looked at again.
            Ok(None) | Err(_) => return self.again.push(work),
        };
        respond(&self.config.nats, to.clone(), &answer).await;
    }
}
