//! `eventicket migrate`: brings all databases up to date.

use std::path::Path;
use std::process::ExitCode;

use eventicket_kit::{Settings, database};
use sqlx::migrate::Migrator;

use crate::output;
use crate::platform::Platform;

/// Bring all databases up to date: of the running platform, or where DATABASE_URL points
#[derive(Debug, clap::Args)]
pub struct Args {}

/// The databases with their migrations.
fn databases() -> [(&'static str, &'static Migrator); 6] {
    [
        (eventicket_identity::DATABASE, &eventicket_identity::MIGRATOR),
        (eventicket_events::DATABASE, &eventicket_events::MIGRATOR),
        (eventicket_bookings::DATABASE, &eventicket_bookings::MIGRATOR),
        (eventicket_payments::DATABASE, &eventicket_payments::MIGRATOR),
        (eventicket_notifications::DATABASE, &eventicket_notifications::MIGRATOR),
        (eventicket_orchestrator::DATABASE, &eventicket_orchestrator::runtime::journal::MIGRATOR),
    ]
}

/// Migrates each database, made where it is missing.
///
/// # Errors
/// A database cannot be reached, or a migration failed.
pub async fn run(_: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let settings = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => {
            let mut settings = Settings::development(&url, "");
            settings.database_prefix = std::env::var("EVENTICKET_DATABASE_PREFIX").unwrap_or_default();
            settings
        }
        _ => Platform::read(home)?.settings(home)?,
    };
    for (name, migrator) in databases() {
        database(&settings, name, migrator).await?.close().await;
        output::line(&format!("{}{name} is up to date", settings.database_prefix));
    }
    Ok(ExitCode::SUCCESS)
}
