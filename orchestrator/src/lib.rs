//! The saga orchestrator: it drives every booking from POST to tickets, and back where that fails.
//!
//! * [`sagas`]: what it drives, one saga a file.
//! * [`runtime`]: how: journal, intake, dispatch, timers, recovery around the pure core of `eventicket-saga`.
//! * [`api`]: what it tells, and what operators have it do.

pub mod api;
pub mod runtime;
pub mod sagas;

use std::sync::Arc;

use eventicket_kit::Context;

/// Name of its database.
pub const DATABASE: &str = "orchestrator";
/// What the pool of its queries is called in figures.
const QUERIES: &str = "orchestrator_queries";

/// Runs one replica of the orchestrator with the platform's own sagas until shutdown.
///
/// # Errors
/// The database or NATS cannot be reached at the start.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = eventicket_kit::database(&ctx.settings, DATABASE, &runtime::journal::MIGRATOR).await?;
    // However many ask how their bookings stand, no turn and no heartbeat waits for them.
    let [pool, queries] = eventicket_kit::pool::halves(&pool);
    eventicket_kit::pool::watch(&pool, DATABASE, &ctx.shutdown);
    eventicket_kit::pool::watch(&queries, QUERIES, &ctx.shutdown);
    let catalogue = Arc::new(sagas::catalogue()?);
    let reader =
        api::Reader { pool: queries, catalogue: catalogue.clone(), nats: ctx.nats.clone(), clock: ctx.clock.clone() };
    let queries = tokio::spawn(api::server(&ctx.nats, reader).await?.run(ctx.shutdown.clone()));
    let config = runtime::Config {
        pool,
        nats: ctx.nats.clone(),
        limits: ctx.limits.clone(),
        clock: ctx.clock.clone(),
        catalogue,
        bound: runtime::admission::Bound::default(),
    };
    let keeper = eventicket_nats::keep_streams(ctx.nats.clone(), ctx.limits.clone(), ctx.shutdown.clone());
    let keeping = tokio::spawn(keeper);
    runtime::run(config, ctx.shutdown.clone()).await?;
    let _ = tokio::join!(queries, keeping);
    Ok(())
}
