//! A service's own database: made, migrated, connected.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};

use crate::Settings;

/// How long a server that is not up is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one caller waits for a connection of the pool before it gives up.
const ACQUIRE: Duration = Duration::from_secs(5);
/// A transaction never waits longer for a lock, nor holds its own while it idles (the protocol's rule on database faults).
/// Statements of the hot path find their rows by index, whatever the table's size was when their plan was made: a plan is
/// kept by its connection, and must not read the table whole for each batch as it grows (measured: 200 ms instead of 5 at
/// 17,000 sagas). With that one shape, planning anew for each set of parameters buys nothing.
const SESSION: [(&str, &str); 8] = [
    ("lock_timeout", "1s"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// Connects to the service's database, made and migrated where it is not; waits a minute for a server that is not up.
pub async fn database(settings: &Settings, name: &str, migrator: &Migrator) -> anyhow::Result<PgPool> {
    let options = options(settings, name)?;
    let retries = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .with_total_delay(Some(PATIENCE));
    (|| prepare(&options, settings, migrator))
        .retry(retries)
        .when(is_transient)
        .notify(|error, after| tracing::warn!(database = name, %error, ?after, "the database is not ready"))
        .await
        .with_context(|| format!("database {}{name}", settings.database_prefix))?;
    let pool = PgPoolOptions::new()
        .max_connections(settings.database_connections)
        .acquire_timeout(ACQUIRE)
        .connect_with(options.options(SESSION))
        .await?;
    Ok(pool)
}

/// The address of a service's database, for tools that connect by themselves.
pub fn database_url(settings: &Settings, name: &str) -> anyhow::Result<String> {
    Ok(options(settings, name)?.to_url_lossy().to_string())
}

fn options(settings: &Settings, name: &str) -> anyhow::Result<PgConnectOptions> {
    let base = PgConnectOptions::from_str(&settings.database_url).context("DATABASE_URL cannot be read")?;
    Ok(base.database(&format!("{}{name}", settings.database_prefix)).application_name(&format!("eventicket-{name}")))
}

/// Makes and migrates the database. The migrator holds an advisory lock, without the sessions' time-outs: a replica
/// may wait long for another's migration.
async fn prepare(options: &PgConnectOptions, settings: &Settings, migrator: &Migrator) -> Result<(), sqlx::Error> {
    let mut connection = match options.connect().await {
        Err(error) if code(&error).as_deref() == Some("3D000") => {
            create(options, settings).await?;
            options.connect().await?
        }
        other => other?,
    };
    match migrator.run_direct(None, &mut connection, false).await {
        Ok(()) => {}
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => return Err(error),
        Err(other) => return Err(sqlx::Error::Configuration(other.into())),
    }
    connection.close().await
}

async fn create(options: &PgConnectOptions, settings: &Settings) -> Result<(), sqlx::Error> {
    let base = PgConnectOptions::from_str(&settings.database_url)?;
    let named_after_user = base.get_database().is_none();
    let base = if named_after_user { base.database("postgres") } else { base };
    let mut connection: PgConnection = base.connect().await?;
    let name = options.get_database().unwrap_or_default().replace('"', "\"\"");
    // The name is a service's, of this code, behind a prefix of the operator's.
    let statement = AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
    let made = sqlx::query(statement).execute(&mut connection).await;
    connection.close().await?;
    match made {
        // Another replica was faster: "exists", or a collision in the catalogue.
        Err(error) if matches!(code(&error).as_deref(), Some("42P04" | "23505")) => Ok(()),
        other => other.map(|_| ()),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether waiting may help: the server is starting, stopping, full, or not reachable.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // connection exceptions, insufficient resources, operator intervention, a template in use by another CREATE
            ["08", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "55006"
        }),
        _ => false,
    }
}
