//! The service's tables: the only folder with SQL.

mod rows;
mod tx;

use std::time::Duration;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::events::{Event, ListEvents, Viewer};
use eventicket_contracts::{CustomerId, EventId, Json, SagaId, Timestamp};
use eventicket_kit::batch::lock_sagas;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, QueryBuilder, Row};

pub(crate) use tx::Tx;

use rows::{LISTED, WHOLE, before, json};

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(86_400);
/// How long a saga's start is kept after it was answered.
const START_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Most rows that one sweep deletes of a table.
const SWEEP: i64 = 1000;

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
    pub input: Json,
    /// W3C `traceparent` of the request that it comes from.
    pub trace: Option<String>,
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
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {WHOLE} FROM events WHERE id = "));
        query.push_bind(id.0);
        let row = query.build().fetch_optional(&self.0).await?;
        row.map(|row| rows::stored(&row).map(|stored| stored.event)).transpose()
    }

    /// One page by start and id, without seats, each with the bytes of its details; with one event more where another
    /// page follows. What is over is left out, except from one's own list and from an administrator's.
    pub async fn list(
        &self,
        list: &ListEvents,
        limit: i64,
        now: Timestamp,
    ) -> Result<Vec<(Event, usize)>, sqlx::Error> {
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {LISTED} FROM events WHERE "));
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
        let sized = |row: &PgRow| Ok((rows::listed(row)?, row.try_get::<&str, _>("details")?.len()));
        query.build().fetch_all(&self.0).await?.iter().map(sized).collect()
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
        let sql = "SELECT id, event, organizer, input, trace FROM saga_starts WHERE NOT done ORDER BY id LIMIT $1";
        let rows = sqlx::query(sql).bind(i64::try_from(most).unwrap_or(i64::MAX)).fetch_all(&self.0).await?;
        let start = |row: &PgRow| {
            Ok(SagaStart {
                id: SagaId(row.try_get("id")?),
                event: EventId(row.try_get("event")?),
                organizer: CustomerId(row.try_get("organizer")?),
                input: json(row, "input")?,
                trace: row.try_get("trace")?,
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
