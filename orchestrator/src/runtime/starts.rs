//! New sagas: admitted, begun once, and answered with the first one where they come again.

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{StartAnswer, StartSaga};
use eventicket_saga::{Input, Saga};

use super::intake::{self, Work, respond};
use super::results::Turn;
use super::row::Row;
use super::turn::{guarded, view};
use super::{Replica, admission, journal};

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
            return Err(StartAnswer::Busy { retry_after_ms: intake::RETRY_AFTER.as_millis() as u64 });
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
            Ok(Some(row)) => {
                let other = |i: &Idempotency| {
                    start.idempotency.as_ref().is_some_and(|s| s.key == i.key && s.fingerprint != i.fingerprint)
                };
                if row.idempotency.as_ref().is_some_and(other) {
                    StartAnswer::KeyReused
                } else {
                    let view = view(&self.config.catalogue, &row);
                    StartAnswer::Started { id: row.id, created: false, view }
                }
            }
            // The first one was not stored after all, or cannot be read: this one is looked at again.
            Ok(None) | Err(_) => return self.again.push(work),
        };
        respond(&self.config.nats, to.clone(), &answer).await;
    }
}
