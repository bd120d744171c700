//! The transaction of a batch: its locks and what it reads under them.

use std::collections::BTreeSet;

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{EventId, SagaId, Timestamp};
use eventicket_kit::batch::lock_sagas;
use eventicket_nats::outbox::{self, NewEvent};
use sqlx::{Postgres, Row, Transaction};
use uuid::Uuid;

use super::{Store, rows, writes};
use crate::allocation::{Changes, Event, Record};
use crate::tickets::{NewTicket, code};

/// Most tickets of one statement.
const TICKETS: usize = 10_000;

impl Store {
    /// Opens a batch, with the locks of its sagas.
    pub async fn begin(&self, sagas: &[SagaId]) -> Result<Batch, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        lock_sagas(&mut tx, sagas).await?;
        Ok(Batch(tx))
    }
}

/// A batch in one transaction, which holds the locks of its sagas.
pub(crate) struct Batch(Transaction<'static, Postgres>);

impl Batch {
    /// All that is recorded of these sagas.
    pub async fn records(&mut self, sagas: &[SagaId]) -> Result<Vec<(Key, Record)>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT saga, step, round, state, changes, grace_until, event, customer, answer
             FROM holds WHERE saga = ANY($1)",
        )
        .bind(rows::sagas(sagas))
        .fetch_all(&mut *self.0)
        .await?;
        found.iter().map(|row| Ok((rows::key(row)?, rows::record(row)?))).collect()
    }

    /// The answers to offers of these sagas.
    pub async fn offer_answers(&mut self, sagas: &[SagaId]) -> Result<Vec<(Key, Answer)>, sqlx::Error> {
        let found =
            sqlx::query("SELECT saga, step, round, answer FROM offers WHERE saga = ANY($1)").bind(rows::sagas(sagas));
        let found = found.fetch_all(&mut *self.0).await?;
        found.iter().map(|row| Ok((rows::key(row)?, rows::json(row.try_get("answer")?)?))).collect()
    }

    /// Makes the rows of events that are offered for the first time, so that they can be locked.
    pub async fn open_events(&mut self, events: &BTreeSet<EventId>) -> Result<(), sqlx::Error> {
        if events.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO events (id, version, title, starts_at, ends_at, on_sale)
             SELECT id, 0, '', 0, 0, false FROM unnest($1::uuid[]) AS id ORDER BY id ON CONFLICT DO NOTHING",
        )
        .bind(events.iter().map(|event| event.0).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    /// Takes the capacity locks of events, in the order that all batches share, and reads them under the locks.
    pub async fn lock_events(&mut self, events: &BTreeSet<EventId>) -> Result<Vec<Event>, sqlx::Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = events.iter().map(|event| event.0).collect();
        let found = sqlx::query(
            "SELECT id, version, title, starts_at, ends_at, on_sale, hold_seconds, max_per_customer
             FROM events WHERE id = ANY($1) ORDER BY id FOR UPDATE",
        )
        .bind(&ids)
        .fetch_all(&mut *self.0)
        .await?;
        let mut locked = found.iter().map(rows::event).collect::<Result<Vec<_>, _>>()?;
        // A statement of its own: it sees what the former holder of the lock committed.
        let found = sqlx::query(
            "SELECT event, id, name, price, currency, quantity, available, max_per_order
             FROM ticket_types WHERE event = ANY($1) ORDER BY event, position",
        )
        .bind(&ids)
        .fetch_all(&mut *self.0)
        .await?;
        for row in &found {
            let of = EventId(row.try_get("event")?);
            let kind = rows::ticket_type(row)?;
            locked.iter_mut().filter(|event| event.id == of).for_each(|event| event.types.push(kind.clone()));
        }
        Ok(locked)
    }

    /// Writes each row once.
    pub async fn write(&mut self, changes: &Changes, now: Timestamp) -> Result<(), sqlx::Error> {
        writes::inserted(&mut self.0, &changes.inserted, now).await?;
        writes::updated(&mut self.0, &changes.updated, now).await?;
        writes::available(&mut self.0, &changes.available).await?;
        writes::offered(&mut self.0, &changes.offered).await?;
        writes::offers(&mut self.0, &changes.offers, now).await
    }

    /// Writes tickets under fresh codes.
    pub async fn write_tickets(&mut self, tickets: Vec<NewTicket<'_>>, now: Timestamp) -> Result<(), sqlx::Error> {
        for tickets in tickets.chunks(TICKETS) {
            writes::tickets(&mut self.0, tickets, code, now).await?;
        }
        Ok(())
    }

    pub async fn write_events(&mut self, events: Vec<NewEvent>, now: Timestamp) -> Result<(), sqlx::Error> {
        outbox::write(&mut self.0, events, now).await
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}
