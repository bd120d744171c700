//! Events and their ticket types: drafts, and what is on sale.
//!
//! What is sold is decided by bookings. Publication, and every later change of what is sold, writes a row that opens the
//! saga `publish_event`, which offers the change to bookings and tells the end by `events.settle`.

mod commands;
mod lifecycle;
mod queries;
mod sale;
mod starter;
mod store;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::Clock;
use eventicket_contracts::subjects::Service;
use eventicket_kit::tasks::Tasks;
use eventicket_kit::{Context, database};
use eventicket_nats::outbox::Relay;
use eventicket_nats::{Nats, WorkerLimits, run_worker};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use store::MIGRATOR;

use crate::commands::EventCommands;
use crate::store::Store;

/// Name of the service's database.
pub const DATABASE: &str = Service::EVENTS.name();

/// How often what has had its time is deleted.
const UPKEEP: Duration = Duration::from_secs(3600);

/// What queries, commands and the starter share.
struct Events {
    store: Store,
    nats: Nats,
    clock: Clock,
    wake_relay: Arc<Notify>,
    wake_starter: Notify,
}

/// Runs the service until shutdown: answers queries, takes commands, opens sagas, tells what happened.
///
/// # Errors
/// The database or the broker cannot be reached, or a part ended before its time.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = database(&ctx.settings, DATABASE, &MIGRATOR).await?;
    eventicket_kit::pool::watch(&pool, DATABASE, &ctx.shutdown);
    let relay = Relay::new(pool.clone(), ctx.nats.clone(), ctx.clock.clone()).limits(ctx.limits.clone());
    let events = Arc::new(Events {
        store: Store::new(pool),
        nats: ctx.nats.clone(),
        clock: ctx.clock.clone(),
        wake_relay: relay.waker(),
        wake_starter: Notify::new(),
    });
    let queries = queries::serve(&ctx.nats, &events).await?;
    let commands = Arc::new(EventCommands(events.clone()));
    let limits = WorkerLimits { limits: ctx.limits.clone(), ..WorkerLimits::default() };

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    tasks.spawn("commands", run_worker(ctx.nats, commands, limits, ctx.clock, ctx.shutdown.clone()));
    let shutdown = ctx.shutdown.clone();
    tasks.spawn("queries", async move {
        queries.run(shutdown).await;
        anyhow::Ok(())
    });
    let shutdown = ctx.shutdown.clone();
    tasks.spawn("outbox", async move {
        relay.run(shutdown).await;
        anyhow::Ok(())
    });
    let (starter, shutdown) = (events.clone(), ctx.shutdown.clone());
    tasks.spawn("starter", async move {
        starter::run(starter, shutdown).await;
        anyhow::Ok(())
    });
    tasks.spawn("upkeep", async move {
        upkeep(&events, ctx.shutdown).await;
        anyhow::Ok(())
    });
    tasks.join().await
}

async fn upkeep(events: &Events, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(UPKEEP);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = every.tick() => {}
        }
        if let Err(error) = events.store.sweep(events.clock.now()).await {
            tracing::error!(%error, "events' tables cannot be swept");
        }
    }
}
