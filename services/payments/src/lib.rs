//! Charges and refunds: commands record what is wanted, drivers carry it out at the payment gateway.
//!
//! The row of a round is the record of its do and its undo. An intent is created (which moves no money), its id is
//! committed, and only then is it confirmed; the gateway's own state machine lets it succeed once and never after it was
//! cancelled. [`charges`] serves the audit.

mod charge;
mod commands;
mod decide;
mod driver;
mod gateway;
mod queries;
mod recorder;
mod store;

use std::sync::Arc;

use eventicket_contracts::subjects::Service;
use eventicket_kit::seal::SealKeys;
use eventicket_kit::tasks::Tasks;
use eventicket_kit::{Context, database};
use eventicket_nats::outbox::Relay;
use eventicket_nats::{WorkerLimits, run_worker};
use tokio::sync::mpsc;

pub use charge::{Outcome, State};
pub use store::{ChargeRow, MIGRATOR, charges};

use crate::commands::Payments;
use crate::driver::{CALLS, Driver};
use crate::gateway::Gateway;
use crate::recorder::{REPLIES, Recorder, WAITING, send_replies};
use crate::store::Store;

/// Name of the service's database.
pub const DATABASE: &str = Service::PAYMENTS.name();

/// Runs the service until shutdown: takes commands, drives charges, relays events, answers queries.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = database(&ctx.settings, DATABASE, &MIGRATOR).await?;
    let store = Store::new(pool.clone());
    store.beat().await?; // before the first row that names this replica
    let (writes, written) = mpsc::channel(WAITING);
    let (replies, answered) = mpsc::channel(REPLIES);
    let driver = Driver::new(Gateway::new(&ctx.settings, CALLS)?, writes);
    let relay = Relay::new(pool, ctx.nats.clone(), ctx.clock.clone()).limits(ctx.limits.clone());
    let wake = relay.waker();
    let recorder = Recorder {
        store: store.clone(),
        clock: ctx.clock.clone(),
        writes: written,
        replies,
        wake,
        shutdown: ctx.shutdown.clone(),
    };
    let seal = SealKeys::parse(&ctx.settings.seal_keys)?;
    let commands = Arc::new(Payments::new(store.clone(), ctx.clock.clone(), driver.clone(), seal));
    let limits = WorkerLimits { limits: ctx.limits.clone(), ..WorkerLimits::default() };
    let queries = queries::serve(&ctx.nats, store.clone()).await?;

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    let shutdown = || ctx.shutdown.clone();
    tasks.spawn("commands", run_worker(ctx.nats.clone(), commands, limits, ctx.clock.clone(), shutdown()));
    tasks.spawn("driver", unfailing(driver.run(store, shutdown())));
    tasks.spawn("recorder", unfailing(recorder.run()));
    tasks.spawn("replies", unfailing(send_replies(ctx.nats.clone(), answered)));
    tasks.spawn("relay", unfailing(relay.run(shutdown())));
    tasks.spawn("queries", unfailing(queries.run(shutdown())));
    tasks.join().await
}

async fn unfailing(part: impl Future<Output = ()>) -> anyhow::Result<()> {
    part.await;
    Ok(())
}
