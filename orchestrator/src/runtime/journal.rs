//! The journal: the only file of the orchestrator with SQL.

use std::time::Duration;

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::ListSagas;
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_saga::{Entry, Saga};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::row::Row;

/// The journal's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// What stands in a row beside the saga, for the operators' filters.
pub struct Shown {
    /// [`eventicket_saga::State::name`].
    pub state: &'static str,
    /// The current step.
    pub step: Option<String>,
}

/// A row to write, with what is shown of it.
pub struct Write<'a> {
    /// The row, its version still the one that was read.
    pub row: &'a Row,
    /// Shown in lists.
    pub shown: Shown,
}

const COLUMNS: &str = "id, owner, event, idempotency_key, fingerprint, trace, version, updated_at, body";

fn read(row: &PgRow) -> Result<Row, (SagaId, String)> {
    let id = SagaId(row.get("id"));
    let saga: Saga = serde_json::from_str(row.get("body")).map_err(|e| (id, e.to_string()))?;
    let key: Option<String> = row.get("idempotency_key");
    let fingerprint: Option<String> = row.get("fingerprint");
    Ok(Row {
        id,
        saga,
        owner: row.get::<Option<Uuid>, _>("owner").map(CustomerId),
        event: row.get::<Option<Uuid>, _>("event").map(EventId),
        idempotency: key.zip(fingerprint).map(|(key, fingerprint)| Idempotency { key, fingerprint }),
        trace: row.get("trace"),
        version: row.get("version"),
        updated_at: Timestamp(row.get("updated_at")),
        news: Vec::new(),
    })
}

/// Rows that could be read; one that could not is told to the log and stops no other.
fn readable(rows: Vec<PgRow>) -> Vec<Row> {
    let mut good = Vec::with_capacity(rows.len());
    for row in &rows {
        match read(row) {
            Ok(row) => good.push(row),
            Err((saga, error)) => tracing::error!(%saga, error, "a saga cannot be read and is left alone"),
        }
    }
    good
}

/// Reads sagas by id.
pub async fn load(pool: &PgPool, ids: &[SagaId]) -> Result<Vec<Row>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|i| i.0).collect();
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM sagas WHERE id = ANY($1)"));
    Ok(readable(sqlx::query(sql).bind(ids).fetch_all(pool).await?))
}

/// Inserts new sagas and returns the ids of those that were not there, neither by id nor by owner and key.
pub async fn insert(tx: &mut PgConnection, replica: Uuid, writes: &[Write<'_>]) -> Result<Vec<SagaId>, sqlx::Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let c = Columns::of(writes);
    let rows = sqlx::query(
        "INSERT INTO sagas (id, definition, definition_version, owner, idempotency_key, fingerprint, event, trace,
                            started_at, updated_at, version, dispatcher, ended, attention, state, step, body, history)
         SELECT u.id, u.definition, u.dv, u.owner, u.ikey, u.fp, u.event, u.trace, u.started, u.updated, 1, $1,
                u.ended, u.attention, u.state, u.step, u.body, u.history
         FROM unnest($2::uuid[], $3::text[], $4::int[], $5::uuid[], $6::text[], $7::text[], $8::uuid[], $9::text[],
                     $10::bigint[], $11::bigint[], $12::bool[], $13::bool[], $14::text[], $15::text[], $16::text[],
                     $17::text[])
              AS u(id, definition, dv, owner, ikey, fp, event, trace, started, updated, ended, attention, state, step,
                   body, history)
         ORDER BY u.owner, u.ikey, u.id
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(replica)
    .bind(c.ids)
    .bind(c.definitions)
    .bind(c.definition_versions)
    .bind(c.owners)
    .bind(c.keys)
    .bind(c.fingerprints)
    .bind(c.events)
    .bind(c.traces)
    .bind(c.started)
    .bind(c.updated)
    .bind(c.ended)
    .bind(c.attention)
    .bind(c.states)
    .bind(c.steps)
    .bind(c.bodies)
    .bind(c.histories)
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|r| SagaId(r.get(0))).collect())
}

/// Stores changed sagas where their version is still the one that was read, and returns those that were stored.
/// Rows are locked in the order of their ids before they are written (6.9); the locks are taken when the count is asked
/// for, before the first row, and are not joined: that would be quadratic in the batch.
pub async fn update(tx: &mut PgConnection, replica: Uuid, writes: &[Write<'_>]) -> Result<Vec<SagaId>, sqlx::Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let versions: Vec<i64> = writes.iter().map(|w| w.row.version).collect();
    let c = Columns::of(writes);
    let rows = sqlx::query(
        "WITH locked AS MATERIALIZED (SELECT id FROM sagas WHERE id = ANY($2) ORDER BY id FOR UPDATE)
         UPDATE sagas s SET version = s.version + 1, dispatcher = $1, updated_at = u.updated, ended = u.ended,
                attention = u.attention, state = u.state, step = u.step, body = u.body, history = s.history || u.history
         FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bool[], $6::bool[], $7::text[], $8::text[], $9::text[],
                     $10::text[]) AS u(id, version, updated, ended, attention, state, step, body, history)
         WHERE s.id = u.id AND s.version = u.version AND (SELECT count(*) FROM locked) > 0 RETURNING s.id",
    )
    .bind(replica)
    .bind(c.ids)
    .bind(versions)
    .bind(c.updated)
    .bind(c.ended)
    .bind(c.attention)
    .bind(c.states)
    .bind(c.steps)
    .bind(c.bodies)
    .bind(c.histories)
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|r| SagaId(r.get(0))).collect())
}

#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    definitions: Vec<String>,
    definition_versions: Vec<i32>,
    owners: Vec<Option<Uuid>>,
    keys: Vec<Option<String>>,
    fingerprints: Vec<Option<String>>,
    events: Vec<Option<Uuid>>,
    traces: Vec<Option<String>>,
    started: Vec<i64>,
    updated: Vec<i64>,
    ended: Vec<bool>,
    attention: Vec<bool>,
    states: Vec<&'static str>,
    steps: Vec<Option<String>>,
    bodies: Vec<String>,
    histories: Vec<String>,
}

impl Columns {
    fn of(writes: &[Write<'_>]) -> Self {
        let mut c = Self::default();
        for Write { row, shown } in writes {
            c.ids.push(row.id.0);
            c.definitions.push(row.saga.definition.clone());
            c.definition_versions.push(i32::try_from(row.saga.version).unwrap_or(i32::MAX));
            c.owners.push(row.owner.map(|o| o.0));
            c.keys.push(row.idempotency.as_ref().map(|i| i.key.clone()));
            c.fingerprints.push(row.idempotency.as_ref().map(|i| i.fingerprint.clone()));
            c.events.push(row.event.map(|e| e.0));
            c.traces.push(row.trace.clone());
            c.started.push(row.saga.started_at);
            c.updated.push(row.updated_at.millis());
            c.ended.push(row.saga.ended());
            c.attention.push(!row.saga.attention.is_empty());
            c.states.push(shown.state);
            c.steps.push(shown.step.clone());
            c.bodies.push(serde_json::to_string(&row.saga).unwrap_or_default());
            c.histories.push(lines(&row.news));
        }
        c
    }
}

fn lines(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// Finds the saga that an owner started with a key.
pub async fn by_key(pool: &PgPool, owner: CustomerId, key: &str) -> Result<Option<Row>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM sagas WHERE owner = $1 AND idempotency_key = $2"));
    let row = sqlx::query(sql).bind(owner.0).bind(key).fetch_optional(pool).await?;
    Ok(row.and_then(|r| readable(vec![r]).pop()))
}

/// The row's version, to learn what became of a commit without an answer.
pub async fn version(pool: &PgPool, id: SagaId) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT version FROM sagas WHERE id = $1").bind(id.0).fetch_optional(pool).await
}

/// A customer's sagas of one definition, newest first.
pub async fn of_owner(
    pool: &PgPool,
    owner: CustomerId,
    definition: &str,
    limit: u32,
    before: Option<SagaId>,
) -> Result<Vec<Row>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sagas WHERE owner = $1 AND definition = $2 AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4"
    ));
    let rows = sqlx::query(sql)
        .bind(owner.0)
        .bind(definition)
        .bind(before.map(|b| b.0))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    Ok(readable(rows))
}

/// Sagas by filter, newest first.
pub async fn list(pool: &PgPool, filter: &ListSagas) -> Result<Vec<Row>, sqlx::Error> {
    let attention = filter.state.as_deref() == Some("attention");
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sagas
         WHERE ($1::text IS NULL OR state = $1) AND (NOT $2 OR attention) AND ($3::text IS NULL OR definition = $3)
           AND ($4::text IS NULL OR step = $4) AND ($5::uuid IS NULL OR event = $5) AND ($6::uuid IS NULL OR owner = $6)
           AND ($7::bigint IS NULL OR started_at >= $7) AND ($8::bigint IS NULL OR started_at < $8)
           AND ($9::uuid IS NULL OR id < $9)
         ORDER BY id DESC LIMIT $10"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.state.as_deref().filter(|_| !attention))
        .bind(attention)
        .bind(filter.kind.as_deref())
        .bind(filter.step.as_deref())
        .bind(filter.event.map(|e| e.0))
        .bind(filter.user.map(|u| u.0))
        .bind(filter.from.map(Timestamp::millis))
        .bind(filter.to.map(Timestamp::millis))
        .bind(filter.before.map(|b| b.0))
        .bind(i64::from(filter.limit))
        .fetch_all(pool)
        .await?;
    Ok(readable(rows))
}

/// A saga's history, oldest first.
pub async fn history(pool: &PgPool, id: SagaId) -> Result<Option<Vec<Entry>>, sqlx::Error> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT history FROM sagas WHERE id = $1").bind(id.0).fetch_optional(pool).await?;
    Ok(text.map(|t| t.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()))
}

/// A replica as the table shows it.
pub struct Beat {
    /// Its name.
    pub name: Uuid,
    /// Since its last beat, by the database's clock.
    pub silent: Duration,
    /// Its counts, JSON.
    pub outstanding: String,
}

/// Registers a replica, or beats its heart. Returns all replicas, this one included, and whether it had to be registered:
/// for the first time, or because others took it for dead.
pub async fn beat(pool: &PgPool, name: Uuid, outstanding: &str) -> Result<(Vec<Beat>, bool), sqlx::Error> {
    let registered: bool = sqlx::query_scalar(
        "INSERT INTO replicas (name, heartbeat_at, outstanding)
         VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $2)
         ON CONFLICT (name) DO UPDATE SET heartbeat_at = EXCLUDED.heartbeat_at RETURNING xmax = 0",
    )
    .bind(name)
    .bind(outstanding)
    .fetch_one(pool)
    .await?;
    let rows = sqlx::query(
        "SELECT name, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - heartbeat_at AS silent, outstanding
         FROM replicas",
    )
    .fetch_all(pool)
    .await?;
    let beat = |r: &PgRow| Beat {
        name: r.get("name"),
        silent: Duration::from_millis(u64::try_from(r.get::<i64, _>("silent")).unwrap_or(0)),
        outstanding: r.get("outstanding"),
    };
    Ok((rows.iter().map(beat).collect(), registered))
}

/// A replica's own counts as they are stored.
pub async fn counts(pool: &PgPool, name: Uuid) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT outstanding FROM replicas WHERE name = $1").bind(name).fetch_optional(pool).await
}

/// Stores a replica's counts in the batch's transaction.
pub async fn count(tx: &mut PgConnection, name: Uuid, outstanding: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE replicas SET outstanding = $2 WHERE name = $1")
        .bind(name)
        .bind(outstanding)
        .execute(tx)
        .await?;
    Ok(())
}

/// Unfinished sagas whose dispatcher is not among the living, oldest first.
pub async fn orphans(
    pool: &PgPool,
    living: &[Uuid],
    after: Option<SagaId>,
    limit: i64,
) -> Result<Vec<SagaId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM sagas WHERE NOT ended AND NOT dispatcher = ANY($1) AND ($2::uuid IS NULL OR id > $2)
         ORDER BY id LIMIT $3",
    )
    .bind(living)
    .bind(after.map(|a| a.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(SagaId).collect())
}

/// A page of this replica's own unfinished sagas.
pub async fn own(pool: &PgPool, name: Uuid, after: Option<SagaId>, limit: i64) -> Result<Vec<SagaId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM sagas WHERE NOT ended AND dispatcher = $1 AND ($2::uuid IS NULL OR id > $2)
         ORDER BY id LIMIT $3",
    )
    .bind(name)
    .bind(after.map(|a| a.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(SagaId).collect())
}

/// Signs a replica off: the others take it for dead at once.
pub async fn retire(pool: &PgPool, name: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE replicas SET heartbeat_at = 0 WHERE name = $1").bind(name).execute(pool).await?;
    Ok(())
}

/// Forgets replicas that are dead and have no unfinished saga left, and returns their counts for an heir. One that has
/// beaten meanwhile stays.
pub async fn bury(pool: &PgPool, dead: &[Uuid], silent: Duration) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "DELETE FROM replicas WHERE name = ANY($1)
         AND heartbeat_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2 RETURNING outstanding",
    )
    .bind(dead)
    .bind(i64::try_from(silent.as_millis()).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
}

/// All stored breakers: service, state as JSON, version.
pub async fn breakers(pool: &PgPool) -> Result<Vec<(String, String, i64)>, sqlx::Error> {
    let rows = sqlx::query("SELECT service, state, version FROM breakers").fetch_all(pool).await?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect())
}

/// Stores a breaker's state where its version is still `version` (0 for one that is not stored). False: another was first.
pub async fn set_breaker(
    pool: &PgPool,
    service: &str,
    state: &str,
    version: i64,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO breakers AS b (service, state, version, changed_at) VALUES ($1, $2, 1, $4)
         ON CONFLICT (service) DO UPDATE SET state = $2, version = b.version + 1, changed_at = $4 WHERE b.version = $3",
    )
    .bind(service)
    .bind(state)
    .bind(version)
    .bind(now.millis())
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// All sagas that started before `until`, in pages by id, for the audit.
pub async fn page(pool: &PgPool, until: Timestamp, after: Option<SagaId>, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sagas WHERE started_at <= $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3"
    ));
    let rows = sqlx::query(sql).bind(until.millis()).bind(after.map(|a| a.0)).bind(limit).fetch_all(pool).await?;
    Ok(readable(rows))
}
