//! The service's tables: the only file with SQL.

use std::collections::HashMap;
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, DomainEvent, Key};
use eventicket_contracts::events::{Event, EventState, ListEvents, Viewer};
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_kit::batch::lock_sagas;
use eventicket_nats::outbox::{self, NewEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, QueryBuilder, Row, Transaction};
use uuid::Uuid;

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(86_400);
/// How long a saga's start is kept after it was answered.
const START_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Most rows that one sweep deletes of a table.
const SWEEP: i64 = 1000;

const COLUMNS: &str = "id, organizer, state, version, details, created_at, updated_at";

#[derive(Clone)]
pub(crate) struct Store(PgPool);

/// What is stored of an idempotency key that came before.
pub(crate) struct Creation {
    pub fingerprint: String,
    pub answer: Event,
}

/// A saga that is to be opened.
#[derive(Clone)]
pub(crate) struct SagaStart {
    pub id: SagaId,
    pub event: EventId,
    pub organizer: CustomerId,
    /// JSON.
    pub input: Value,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        Ok(Tx(self.0.begin().await?))
    }

    /// Opens a batch of commands, with the locks of their sagas.
    pub async fn begin_batch(&self, keys: &[Key]) -> Result<Tx, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        let sagas: Vec<SagaId> = keys.iter().map(|key| key.saga).collect();
        lock_sagas(&mut tx, &sagas).await?;
        Ok(Tx(tx))
    }

    pub async fn event(&self, id: EventId) -> Result<Option<Event>, sqlx::Error> {
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {COLUMNS} FROM events WHERE id = "));
        query.push_bind(id.0);
        query.build().fetch_optional(&self.0).await?.as_ref().map(event).transpose()
    }

    /// One page by start and id, with one event more where another page follows. What is over is left out, except from
    /// one's own list and from an administrator's.
    pub async fn list(&self, list: &ListEvents, limit: i64, now: Timestamp) -> Result<Vec<Event>, sqlx::Error> {
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {COLUMNS} FROM events WHERE "));
        match list.viewer {
            Viewer::Organizer(id) if list.mine => {
                query.push("organizer = ").push_bind(id.0);
            }
            Viewer::Public if list.mine => return Ok(Vec::new()),
            Viewer::Organizer(id) => {
                query.push("(state = 'published' OR organizer = ").push_bind(id.0);
                query.push(") AND ends_at > ").push_bind(now.millis());
            }
            Viewer::Public => {
                query.push("state = 'published' AND ends_at > ").push_bind(now.millis());
            }
            Viewer::Admin => {
                query.push("true");
            }
        }
        if let Some(category) = &list.category {
            query.push(" AND category = ").push_bind(category);
        }
        if let Some(cursor) = &list.cursor {
            query.push(" AND (starts_at, id) > (").push_bind(cursor.starts_at.millis());
            query.push(", ").push_bind(cursor.id.0).push(")");
        }
        query.push(" ORDER BY starts_at, id LIMIT ").push_bind(limit + 1);
        query.build().fetch_all(&self.0).await?.iter().map(event).collect()
    }

    /// What an idempotency key was answered.
    pub async fn creation(
        &self,
        organizer: CustomerId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<Creation>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT fingerprint, answer FROM creations WHERE organizer = $1 AND key = $2 AND created_at > $3",
        )
        .bind(organizer.0)
        .bind(key)
        .bind(before(now, KEY_LIFE))
        .fetch_optional(&self.0)
        .await?;
        row.map(|row| Ok(Creation { fingerprint: row.try_get("fingerprint")?, answer: json(&row, "answer")? }))
            .transpose()
    }

    /// The oldest sagas that are not opened yet.
    pub async fn starts_due(&self, most: usize) -> Result<Vec<SagaStart>, sqlx::Error> {
        let rows =
            sqlx::query("SELECT id, event, organizer, input FROM saga_starts WHERE NOT done ORDER BY id LIMIT $1")
                .bind(i64::try_from(most).unwrap_or(i64::MAX))
                .fetch_all(&self.0)
                .await?;
        let start = |row: &PgRow| {
            Ok(SagaStart {
                id: SagaId(row.try_get("id")?),
                event: EventId(row.try_get("event")?),
                organizer: CustomerId(row.try_get("organizer")?),
                input: json(row, "input")?,
            })
        };
        rows.iter().map(start).collect()
    }

    /// The saga is committed at the orchestrator.
    pub async fn started(&self, id: SagaId) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE saga_starts SET done = true WHERE id = $1").bind(id.0).execute(&self.0).await?;
        Ok(())
    }

    /// Deletes some of what has had its time.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query(
            "DELETE FROM creations WHERE (organizer, key) IN (
                 SELECT organizer, key FROM creations WHERE created_at <= $1
                 ORDER BY organizer, key LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(before(now, KEY_LIFE))
        .bind(SWEEP)
        .execute(&self.0)
        .await?;
        sqlx::query(
            "DELETE FROM saga_starts WHERE id IN (
                 SELECT id FROM saga_starts WHERE done AND created_at <= $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(before(now, START_LIFE))
        .bind(SWEEP)
        .execute(&self.0)
        .await?;
        Ok(())
    }
}

/// A change in one transaction.
pub(crate) struct Tx(Transaction<'static, Postgres>);

impl Tx {
    /// The event, which nobody else changes before this transaction ends.
    pub async fn lock(&mut self, id: EventId) -> Result<Option<Event>, sqlx::Error> {
        Ok(self.lock_all(&[id]).await?.remove(&id))
    }

    /// The events of these ids.
    pub async fn lock_all(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, Event>, sqlx::Error> {
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {COLUMNS} FROM events WHERE id = ANY("));
        query.push_bind(ids.iter().map(|id| id.0).collect::<Vec<_>>()).push(") ORDER BY id FOR UPDATE");
        let rows = query.build().fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| event(row).map(|event| (event.id, event))).collect()
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

    pub async fn insert(&mut self, event: &Event) -> Result<(), sqlx::Error> {
        let details = &event.details;
        sqlx::query(
            "INSERT INTO events (id, organizer, state, version, title, category, starts_at, ends_at, details, created_at,
                                 updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(event.id.0)
        .bind(event.organizer_id.0)
        .bind(state_name(event.state))
        .bind(event.version)
        .bind(&details.title)
        .bind(&details.category)
        .bind(details.starts_at.millis())
        .bind(details.ends_at.millis())
        .bind(text(details)?)
        .bind(event.created_at.millis())
        .bind(event.updated_at.millis())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    /// Writes a locked event as it is now.
    pub async fn update(&mut self, event: &Event) -> Result<(), sqlx::Error> {
        let details = &event.details;
        sqlx::query(
            "UPDATE events SET state = $2, version = $3, title = $4, category = $5, starts_at = $6, ends_at = $7,
                               details = $8, updated_at = $9 WHERE id = $1",
        )
        .bind(event.id.0)
        .bind(state_name(event.state))
        .bind(event.version)
        .bind(&details.title)
        .bind(&details.category)
        .bind(details.starts_at.millis())
        .bind(details.ends_at.millis())
        .bind(text(details)?)
        .bind(event.updated_at.millis())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    /// Writes state and version of locked events as they are now.
    pub async fn move_all(&mut self, events: &[Event]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE events e SET state = n.state, version = n.version, updated_at = n.updated_at
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[]) AS n (id, state, version, updated_at)
             WHERE e.id = n.id",
        )
        .bind(events.iter().map(|event| event.id.0).collect::<Vec<_>>())
        .bind(events.iter().map(|event| state_name(event.state)).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.version).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.updated_at.millis()).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    pub async fn delete(&mut self, id: EventId) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM events WHERE id = $1").bind(id.0).execute(&mut *self.0).await?;
        Ok(())
    }

    pub async fn insert_start(&mut self, start: &SagaStart, now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO saga_starts (id, event, organizer, input, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(start.id.0)
            .bind(start.event.0)
            .bind(start.organizer.0)
            .bind(start.input.to_string())
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
        let entry = |row: &PgRow| {
            let round = row.try_get::<i32, _>("round")?.cast_unsigned();
            Ok((Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round }, json(row, "answer")?))
        };
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
        what: &'static str,
        events: impl IntoIterator<Item = (&'a Event, Value)>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let new = |(event, data): (&Event, Value)| NewEvent {
            aggregate: "event",
            what,
            event: DomainEvent {
                id: Uuid::now_v7(),
                aggregate: event.id.0,
                version: event.version,
                at: now,
                trace: None,
                data,
            },
        };
        outbox::write(&mut self.0, events.into_iter().map(new).collect(), now).await
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

const fn state_name(state: EventState) -> &'static str {
    match state {
        EventState::Draft => "draft",
        EventState::Publishing => "publishing",
        EventState::Published => "published",
        EventState::Cancelled => "cancelled",
    }
}

fn event(row: &PgRow) -> Result<Event, sqlx::Error> {
    let name: String = row.try_get("state")?;
    let all = [EventState::Draft, EventState::Publishing, EventState::Published, EventState::Cancelled];
    let state = all.into_iter().find(|state| state_name(*state) == name);
    Ok(Event {
        id: EventId(row.try_get("id")?),
        organizer_id: CustomerId(row.try_get("organizer")?),
        state: state.ok_or_else(|| sqlx::Error::Decode("an unknown state".into()))?,
        version: row.try_get("version")?,
        details: json(row, "details")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn text(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn before(now: Timestamp, by: Duration) -> i64 {
    now.millis().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
