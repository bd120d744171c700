//! The table of replicas: heartbeats and commands in flight.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

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
