//! The journal: the only folder of the orchestrator with SQL.

mod breakers;
mod reads;
mod replicas;
mod writes;

pub use breakers::{StoredBreaker, breakers, force_breaker, held, set_breaker};
pub use reads::{
    Slice, Standing, histories, history, known, list, load, marked, of_owner, orphans, own, page, standings, version,
};
pub use replicas::{Beat, beat, bury, count, counts, retire};
pub use writes::{Shown, Write, store, write};

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_saga::{Entry, Origin, Saga};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::row::Row;

/// The journal's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The rows of sagas that have not ended.
const UNFINISHED: &str = "unfinished JOIN sagas USING (id)";
const COLUMNS: &str = "id, definition, definition_version, owner, event, idempotency_key, fingerprint, trace, started_at, input, \
                       version, updated_at, body";

fn read(row: &PgRow) -> Result<Row, (SagaId, String)> {
    let id = SagaId(row.get("id"));
    let saga = saga(row).map_err(|e| (id, e.to_string()))?;
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

fn saga(row: &PgRow) -> Result<Saga, Box<dyn std::error::Error>> {
    let origin = Origin {
        id: row.get("id"),
        definition: row.get("definition"),
        version: row.get::<i32, _>("definition_version").try_into()?,
        input: serde_json::from_str(row.get("input"))?,
        started_at: row.get("started_at"),
    };
    Ok(Saga::read(origin, row.get("body"))?)
}

/// The entries of a history, oldest first; they are stored newest first.
fn entries(history: &str) -> Vec<Entry> {
    history.lines().rev().filter_map(|line| serde_json::from_str(line).ok()).collect()
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
