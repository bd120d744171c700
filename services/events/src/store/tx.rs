//! Changes, each in one transaction.

use std::collections::HashMap;

use eventicket_contracts::envelope::{Answer, DomainEvent, Key};
use eventicket_contracts::events::Event;
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::{EventId, SagaId, Timestamp};
use eventicket_nats::outbox::{self, NewEvent};
use eventicket_nats::trace::here;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Transaction};
use uuid::Uuid;

use super::rows::{self, WHOLE, before, json, state_name, text};
use super::{KEY_LIFE, SagaStart};
use crate::lifecycle::Stored;

/// A change in one transaction.
pub(crate) struct Tx(pub(super) Transaction<'static, Postgres>);

impl Tx {
    /// The event, which nobody else changes before this transaction ends.
    pub async fn lock(&mut self, id: EventId) -> Result<Option<Stored>, sqlx::Error> {
        Ok(self.lock_all(&[id]).await?.remove(&id))
    }

    /// The events of these ids.
    pub async fn lock_all(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, Stored>, sqlx::Error> {
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {WHOLE} FROM events WHERE id = ANY("));
        query.push_bind(ids.iter().map(|id| id.0).collect::<Vec<_>>()).push(") ORDER BY id FOR UPDATE");
        let rows = query.build().fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| rows::stored(row).map(|stored| (stored.event.id, stored))).collect()
    }

    /// Takes an idempotency key with its answer; false where it is taken.
    pub async fn claim(&mut self, key: &Idempotency, answer: &Event, now: Timestamp) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "INSERT INTO creations AS c (organizer, key, fingerprint, answer, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (organizer, key) DO UPDATE
             SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at
             WHERE c.created_at <= $6",
        )
        .bind(answer.organizer_id.0)
        .bind(&key.key)
        .bind(&key.fingerprint)
        .bind(text(answer)?)
        .bind(now.millis())
        .bind(before(now, KEY_LIFE))
        .execute(&mut *self.0)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// A new draft.
    pub async fn insert(&mut self, event: &Event) -> Result<(), sqlx::Error> {
        let (details, seats) = rows::texts(event)?;
        sqlx::query(
            "INSERT INTO events (id, organizer, state, version, title, category, starts_at, ends_at, details, seats,
                                 created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(event.id.0)
        .bind(event.organizer_id.0)
        .bind(state_name(event.state))
        .bind(event.version)
        .bind(&event.details.title)
        .bind(&event.details.category)
        .bind(event.details.starts_at.millis())
        .bind(event.details.ends_at.millis())
        .bind(details)
        .bind(seats)
        .bind(event.created_at.millis())
        .bind(event.updated_at.millis())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    /// Writes locked events as they are now.
    pub async fn update(&mut self, all: &[Stored]) -> Result<(), sqlx::Error> {
        let events = || all.iter().map(|stored| &stored.event);
        let (details, seats): (Vec<_>, Vec<_>) =
            events().map(rows::texts).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let next = all.iter().map(|stored| stored.next.as_ref().map(text).transpose());
        sqlx::query(
            "UPDATE events e SET state = n.state, version = n.version, title = n.title, category = n.category,
                                 starts_at = n.starts_at, ends_at = n.ends_at, details = n.details, seats = n.seats,
                                 change_version = n.change_version, change_refused = n.change_refused,
                                 change_to = n.change_to, updated_at = n.updated_at
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                         $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[], $13::bigint[])
                  AS n (id, state, version, title, category, starts_at, ends_at, details, seats, change_version,
                        change_refused, change_to, updated_at)
             WHERE e.id = n.id",
        )
        .bind(events().map(|event| event.id.0).collect::<Vec<_>>())
        .bind(events().map(|event| state_name(event.state)).collect::<Vec<_>>())
        .bind(events().map(|event| event.version).collect::<Vec<_>>())
        .bind(events().map(|event| event.details.title.as_str()).collect::<Vec<_>>())
        .bind(events().map(|event| event.details.category.as_str()).collect::<Vec<_>>())
        .bind(events().map(|event| event.details.starts_at.millis()).collect::<Vec<_>>())
        .bind(events().map(|event| event.details.ends_at.millis()).collect::<Vec<_>>())
        .bind(details)
        .bind(seats)
        .bind(events().map(|event| event.change.as_ref().map(|change| change.version)).collect::<Vec<_>>())
        .bind(events().map(|event| event.change.as_ref()?.refused.as_deref()).collect::<Vec<_>>())
        .bind(next.collect::<Result<Vec<_>, _>>()?)
        .bind(events().map(|event| event.updated_at.millis()).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    pub async fn delete(&mut self, id: EventId) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM events WHERE id = $1").bind(id.0).execute(&mut *self.0).await?;
        Ok(())
    }

    pub async fn insert_start(&mut self, start: &SagaStart, now: Timestamp) -> Result<(), sqlx::Error> {
        let sql =
            "INSERT INTO saga_starts (id, event, organizer, input, trace, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(sql)
            .bind(start.id.0)
            .bind(start.event.0)
            .bind(start.organizer.0)
            .bind(start.input.text())
            .bind(&start.trace)
            .bind(now.millis())
            .execute(&mut *self.0)
            .await?;
        Ok(())
    }

    /// The saga was not accepted; false where that is known.
    pub async fn refuse_start(&mut self, id: SagaId, reason: &str) -> Result<bool, sqlx::Error> {
        let done = sqlx::query("UPDATE saga_starts SET done = true, refused = $2 WHERE id = $1 AND NOT done")
            .bind(id.0)
            .bind(reason)
            .execute(&mut *self.0)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The answers that are recorded of these rounds.
    pub async fn recorded(&mut self, keys: &[Key]) -> Result<HashMap<Key, Answer>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT s.saga, s.step, s.round, s.answer FROM settlements s
             JOIN unnest($1::uuid[], $2::text[], $3::integer[]) AS k (saga, step, round) USING (saga, step, round)",
        )
        .bind(keys.iter().map(|key| key.saga.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.step.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.round.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&mut *self.0)
        .await?;
        let entry = |row: &PgRow| Ok((rows::key(row)?, json(row, "answer")?));
        rows.iter().map(entry).collect()
    }

    pub async fn record(&mut self, answers: &[(Key, Answer)], now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO settlements (saga, step, round, answer, settled_at)
             SELECT n.*, $5::bigint FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[]) AS n",
        )
        .bind(answers.iter().map(|(key, _)| key.saga.0).collect::<Vec<_>>())
        .bind(answers.iter().map(|(key, _)| key.step.as_str()).collect::<Vec<_>>())
        .bind(answers.iter().map(|(key, _)| key.round.cast_signed()).collect::<Vec<_>>())
        .bind(answers.iter().map(|(_, answer)| text(answer)).collect::<Result<Vec<_>, _>>()?)
        .bind(now.millis())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    /// Tells of changes once they are committed: `evt.event.<what>`, of the event's version.
    pub async fn tell<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'static str, &'a Event, Value)>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let new = |(what, event, data): (&'static str, &Event, Value)| NewEvent {
            aggregate: "event",
            what,
            event: DomainEvent {
                id: Uuid::now_v7(),
                aggregate: event.id.0,
                version: event.version,
                at: now,
                trace: here(),
                data,
            },
        };
        outbox::write(&mut self.0, changes.into_iter().map(new).collect(), now).await
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}
