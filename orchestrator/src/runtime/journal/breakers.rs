//! The table of breakers, and what they hold.

use std::collections::BTreeMap;

use eventicket_contracts::Timestamp;
use eventicket_saga::breaker::{Breaker, Mode};
use futures::TryStreamExt as _;
use sqlx::{PgPool, Row as _};

use super::{COLUMNS, UNFINISHED, read};
use crate::runtime::row;
use crate::sagas::Catalogue;

/// A breaker as the table has it.
#[derive(Clone, Debug)]
pub struct StoredBreaker {
    /// Its service.
    pub service: String,
    /// Where it stands.
    pub breaker: Breaker,
    /// Rises with each change.
    pub version: i64,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// Who set its mode.
    pub actor: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// All stored breakers.
pub async fn breakers(pool: &PgPool) -> Result<Vec<StoredBreaker>, sqlx::Error> {
    let sql = "SELECT service, mode, state, version, changed_at, actor, reason FROM breakers";
    let rows = sqlx::query(sql).fetch_all(pool).await?;
    let stored = rows.iter().map(|row| StoredBreaker {
        service: row.get("service"),
        breaker: Breaker {
            mode: Mode::named(row.get("mode")).unwrap_or_default(),
            state: serde_json::from_str(row.get("state")).unwrap_or_default(),
        },
        version: row.get("version"),
        changed_at: Timestamp(row.get("changed_at")),
        actor: row.get("actor"),
        reason: row.get("reason"),
    });
    Ok(stored.collect())
}

/// Stores a breaker's state where its version is still `version` (0 for one that is not stored). False: another was first.
pub async fn set_breaker(
    pool: &PgPool,
    service: &str,
    breaker: Breaker,
    version: i64,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO breakers AS b (service, mode, state, version, changed_at) VALUES ($1, $2, $3, 1, $5)
         ON CONFLICT (service) DO UPDATE SET state = $3, version = b.version + 1, changed_at = $5 WHERE b.version = $4",
    )
    .bind(service)
    .bind(breaker.mode.name())
    .bind(text(breaker))
    .bind(version)
    .bind(now.millis())
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets a breaker's mode for an operator, whatever it was before.
pub async fn force_breaker(
    pool: &PgPool,
    service: &str,
    mode: Mode,
    (actor, reason): (&str, &str),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO breakers AS b (service, mode, state, version, changed_at, actor, reason)
         VALUES ($1, $2, $3, 1, $4, $5, $6)
         ON CONFLICT (service) DO UPDATE
         SET mode = $2, state = $3, version = b.version + 1, changed_at = $4, actor = $5, reason = $6",
    )
    .bind(service)
    .bind(mode.name())
    .bind(text(Breaker::set(mode)))
    .bind(now.millis())
    .bind(actor)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

fn text(breaker: Breaker) -> String {
    serde_json::to_string(&breaker.state).unwrap_or_default()
}

/// Number of held sagas by service: each unfinished saga is looked at, for an operator's page.
pub async fn held(pool: &PgPool, catalogue: &Catalogue) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM {UNFINISHED} WHERE state = 'held'"));
    let mut rows = sqlx::query(sql).fetch(pool);
    let mut held = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let Ok(row) = read(&row) else { continue };
        let Some(definition) = catalogue.registry.get(&row.saga.definition, row.saga.version) else { continue };
        for service in row::held(&row.saga, definition).into_keys() {
            *held.entry(service).or_default() += 1;
        }
    }
    Ok(held)
}
