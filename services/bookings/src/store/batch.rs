//! The transaction of a batch: its locks and what it reads under them.

use std::collections::BTreeSet;

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_kit::batch::{self, Read};
use eventicket_nats::outbox::Rows;
use eventicket_planted::Fault;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Store, rows, seats, writes};
use crate::allocation::{Books, Changes, Record};
use crate::event::Event;
use crate::needs::Needs;

/// What a batch begins with, beside its locks.
pub(super) const READS: &[Read] = &[RECORDS, EVENTS, TICKET_TYPES];

const RECORDS: Read = Read {
    name: "records",
    sql: "SELECT saga, step, round, state, changes, grace_until, event, customer, answer, max_per_customer
          FROM holds WHERE saga = ANY($1)",
};
/// Takes the capacity locks of events, in the order that all batches share.
const EVENTS: Read = Read {
    name: "events",
    sql: "SELECT id, version, title, starts_at, ends_at, on_sale, cancelled, hold_seconds, max_per_customer
          FROM events WHERE id = ANY($1) ORDER BY id FOR UPDATE",
};
/// Read after the locks: it sees what their former holders committed.
const TICKET_TYPES: Read = Read {
    name: "ticket_types",
    sql: "SELECT event, id, name, price, currency, quantity, available, max_per_order, numbered, free_from
          FROM ticket_types WHERE event = ANY($1) ORDER BY event, position",
};

impl Store {
    /// Opens a batch: the locks of its sagas, then of its events as far as they are known, with all that is recorded of
    /// both under them.
    pub async fn begin(&self, sagas: &[SagaId], events: &BTreeSet<EventId>) -> Result<(Batch, Books), sqlx::Error> {
        let (sagas_read, ids) = (rows::sagas(sagas), ids(events));
        let mut reads = vec![(RECORDS, &sagas_read[..])];
        if !ids.is_empty() {
            reads.extend([(EVENTS, &ids[..]), (TICKET_TYPES, &ids[..])]);
        }
        let (tx, found) = self.batches.begin(sagas, &reads).await?;
        let mut found = found.into_iter();
        let mut books = Books::new(records(&found.next().unwrap_or_default())?);
        if let (Some(events), Some(types)) = (found.next(), found.next()) {
            books.add_events(rows::events(&events, &types)?);
        }
        Ok((Batch { tx, limited: BTreeSet::new() }, books))
    }

    /// What is recorded of these sagas, without their locks.
    pub async fn records(&self, sagas: &[SagaId]) -> Result<Vec<(Key, Record)>, sqlx::Error> {
        records(&sqlx::query(RECORDS.sql).bind(rows::sagas(sagas)).fetch_all(&self.pool).await?)
    }
}

fn records(found: &[PgRow]) -> Result<Vec<(Key, Record)>, sqlx::Error> {
    found.iter().map(|row| Ok((rows::key(row)?, rows::record(row)?))).collect()
}

fn ids(events: &BTreeSet<EventId>) -> Vec<Uuid> {
    events.iter().map(|event| event.0).collect()
}

/// A batch in one transaction.
pub(crate) struct Batch {
    tx: batch::Batch,
    /// Events of which an offer may bring a limit: what is held from now on counts for it.
    limited: BTreeSet<EventId>,
}

impl Batch {
    /// The answers to offers of these sagas.
    pub async fn offer_answers(&mut self, sagas: &[SagaId]) -> Result<Vec<(Key, Answer)>, sqlx::Error> {
        let found =
            sqlx::query("SELECT saga, step, round, answer FROM offers WHERE saga = ANY($1)").bind(rows::sagas(sagas));
        let found = found.fetch_all(&mut *self.tx).await?;
        found.iter().map(|row| Ok((rows::key(row)?, rows::json(row.try_get("answer")?)?))).collect()
    }

    /// The answers to fences of these sagas, by round and number.
    pub async fn fence_answers(&mut self, sagas: &[SagaId]) -> Result<Vec<((Key, u32), Answer)>, sqlx::Error> {
        let found = sqlx::query("SELECT saga, step, round, id, answer FROM fences WHERE saga = ANY($1)")
            .bind(rows::sagas(sagas));
        let found = found.fetch_all(&mut *self.tx).await?;
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
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Takes the capacity locks of events, in the order that all batches share, and reads them under the locks.
    pub async fn lock_events(&mut self, events: &BTreeSet<EventId>) -> Result<Vec<Event>, sqlx::Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids(events);
        let found = self.tx.read(&[(EVENTS, &ids), (TICKET_TYPES, &ids)]).await?;
        match &found[..] {
            [events, types] => rows::events(events, types),
            _ => Ok(Vec::new()),
        }
    }

    /// Adds what the batch needs of seats and customers to its books. Their events are locked.
    pub async fn supply(&mut self, books: &mut Books, needs: &Needs) -> Result<(), sqlx::Error> {
        seats::supply(&mut self.tx, books, needs).await?;
        self.limited.clone_from(&needs.limited);
        self.count(books).await?;
        if needs.customers.is_empty() {
            return Ok(());
        }
        let mut live = vec!["held", "confirmed"];
        if Fault::LimitForgetsHolds.is_planted() {
            live.retain(|state| *state == "confirmed");
        }
        let found = sqlx::query(
            "SELECT n.event, n.customer, h.tickets FROM unnest($1::uuid[], $2::uuid[]) AS n (event, customer)
             CROSS JOIN LATERAL (
                 SELECT coalesce(sum(tickets), 0)::bigint AS tickets FROM holds
                 WHERE event = n.event AND customer = n.customer AND counted AND state = ANY($3)) AS h",
        )
        .bind(needs.customers.iter().map(|(event, _)| event.0).collect::<Vec<_>>())
        .bind(needs.customers.iter().map(|(_, customer)| customer.0).collect::<Vec<_>>())
        .bind(live)
        .fetch_all(&mut *self.tx)
        .await?;
        for row in &found {
            let (event, customer) = (EventId(row.try_get("event")?), CustomerId(row.try_get("customer")?));
            let tickets = row.try_get::<i64, _>("tickets")?;
            books.add_customer(event, customer, u32::try_from(tickets).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Lets the holds of events that had no limit until now count for the one that comes. That reads all holds, and is rare:
    /// a limit comes with an event's first offer, or late.
    async fn count(&mut self, books: &Books) -> Result<(), sqlx::Error> {
        let has_holds =
            |event: &Event| event.max_per_customer.is_none() && event.types.iter().any(|kind| kind.used() > 0);
        let events = self.limited.iter().filter(|id| books.event(**id).is_some_and(has_holds));
        let ids: Vec<Uuid> = events.map(|event| event.0).collect();
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE holds SET counted = true
             WHERE event = ANY($1) AND NOT counted AND state IN ('held', 'confirmed')",
        )
        .bind(ids)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Writes each row once, and the events.
    pub async fn write(&mut self, changes: &Changes, events: Rows, now: Timestamp) -> Result<(), sqlx::Error> {
        let is_counted = |record: &Record| {
            record.content.hold().is_some_and(|hold| hold.max_per_customer.is_some())
                || self.limited.contains(&record.event)
        };
        writes::most(&mut self.tx, changes, events, is_counted, now).await?;
        writes::offered(&mut self.tx, &changes.offered).await?;
        seats::write(&mut self.tx, &changes.seats).await?;
        writes::offers(&mut self.tx, &changes.offers, now).await?;
        writes::fences(&mut self.tx, &changes.fences, now).await
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}
