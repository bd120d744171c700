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
use eventicket_saga::Saga;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::row::Row;

/// The journal's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The rows of sagas that have not ended.
const UNFINISHED: &str = "unfinished JOIN sagas USING (id)";
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
