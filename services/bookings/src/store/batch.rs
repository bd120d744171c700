//! The transaction of a batch: its locks and what it reads under them.

use std::collections::BTreeSet;

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_kit::batch::lock_sagas;
use eventicket_nats::outbox::{self, NewEvent};
use eventicket_planted::Fault;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row, Transaction};
use uuid::Uuid;

use super::{Store, rows, seats, writes};
use crate::allocation::{Books, Changes, Record};
use crate::event::Event;
use crate::needs::Needs;
use crate::tickets::{NewTicket, code};

/// Most tickets of one statement.
const TICKETS: usize = 10_000;

impl Store {
    /// Opens a batch.
    pub async fn begin(&self) -> Result<Batch, sqlx::Error> {
        self.0.begin().await.map(Batch)
    }
}

/// A batch in one transaction.
pub(crate) struct Batch(Transaction<'static, Postgres>);

impl Batch {
    /// Takes the locks of sagas, which come before those of events.
    pub async fn lock_sagas(&mut self, sagas: &[SagaId]) -> Result<(), sqlx::Error> {
        lock_sagas(&mut self.0, sagas).await
    }

    /// All that is recorded of these sagas.
    pub async fn records(&mut self, sagas: &[SagaId]) -> Result<Vec<(Key, Record)>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT saga, step, round, state, changes, grace_until, event, customer, answer, max_per_customer
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

    /// The answers to fences of these sagas, by round and number.
    pub async fn fence_answers(&mut self, sagas: &[SagaId]) -> Result<Vec<((Key, u32), Answer)>, sqlx::Error> {
        let found = sqlx::query("SELECT saga, step, round, id, answer FROM fences WHERE saga = ANY($1)")
            .bind(rows::sagas(sagas));
        let found = found.fetch_all(&mut *self.0).await?;
        let fence = |row: &PgRow| {
            let id = row.try_get::<i32, _>("id")?.cast_unsigned();
            Ok(((rows::key(row)?, id), rows::json(row.try_get("answer")?)?))
        };
        found.iter().map(fence).collect()
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
            "SELECT id, version, title, starts_at, ends_at, on_sale, cancelled, hold_seconds, max_per_customer
             FROM events WHERE id = ANY($1) ORDER BY id FOR UPDATE",
        )
        .bind(&ids)
        .fetch_all(&mut *self.0)
        .await?;
        let mut locked = found.iter().map(rows::event).collect::<Result<Vec<_>, _>>()?;
        // A statement of its own: it sees what the former holder of the lock committed.
        let found = sqlx::query(
            "SELECT event, id, name, price, currency, quantity, available, max_per_order, numbered, free_from
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

    /// Adds what the batch needs of seats and customers to its books. Their events are locked.
    pub async fn supply(&mut self, books: &mut Books, needs: &Needs) -> Result<(), sqlx::Error> {
        seats::supply(&mut self.0, books, needs).await?;
        if needs.customers.is_empty() {
            return Ok(());
        }
        let mut counted = vec!["held", "confirmed"];
        if Fault::LimitForgetsHolds.is_planted() {
            counted.retain(|state| *state == "confirmed");
        }
        let found = sqlx::query(
            "SELECT n.event, n.customer, h.tickets FROM unnest($1::uuid[], $2::uuid[]) AS n (event, customer)
             CROSS JOIN LATERAL (
                 SELECT coalesce(sum(tickets), 0)::bigint AS tickets FROM holds
                 WHERE event = n.event AND customer = n.customer AND grace_until IS NOT NULL AND state = ANY($3)) AS h",
        )
        .bind(needs.customers.iter().map(|(event, _)| event.0).collect::<Vec<_>>())
        .bind(needs.customers.iter().map(|(_, customer)| customer.0).collect::<Vec<_>>())
        .bind(counted)
        .fetch_all(&mut *self.0)
        .await?;
        for row in &found {
            let (event, customer) = (EventId(row.try_get("event")?), CustomerId(row.try_get("customer")?));
            let tickets = row.try_get::<i64, _>("tickets")?;
            books.add_customer(event, customer, u32::try_from(tickets).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Writes each row once.
    pub async fn write(&mut self, changes: &Changes, now: Timestamp) -> Result<(), sqlx::Error> {
        writes::inserted(&mut self.0, &changes.inserted, now).await?;
        writes::updated(&mut self.0, &changes.updated, now).await?;
        writes::left(&mut self.0, &changes.left).await?;
        writes::offered(&mut self.0, &changes.offered).await?;
        seats::write(&mut self.0, &changes.seats).await?;
        writes::offers(&mut self.0, &changes.offers, now).await?;
        writes::fences(&mut self.0, &changes.fences, now).await
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
