//! Charges and refunds: commands record what is wanted, drivers carry it out at the payment gateway.
//!
//! The row of a round is the record of its do and its undo. An intent is created (which moves no money), its id is
//! committed, and only then is it confirmed; the gateway's own state machine lets it succeed once and never after it was
//! cancelled. Webhooks are hints that save time: whatever they tell is found by asking, too. [`charges`] serves the audit.

mod charge;
mod commands;
mod decide;
mod driver;
mod figures;
mod gateway;
mod hint;
mod queries;
mod recorder;
mod rest;
mod settled;
pub mod simulation;
mod starter;
mod store;
mod watch;
mod webhooks;
mod wire;

use std::sync::Arc;

use eventicket_contracts::subjects::Service;
use eventicket_kit::seal::SealKeys;
use eventicket_kit::tasks::Tasks;
use eventicket_kit::{Context, database};
use eventicket_nats::outbox::Relay;
use eventicket_nats::{WorkerLimits, run_worker};
use tokio::sync::{Notify, mpsc};

pub use charge::{Outcome, State};
pub use store::{ChargeRow, MIGRATOR, charges};
pub use webhooks::PATH as WEBHOOKS;

use crate::commands::Payments;
use crate::driver::{CALLS, Driver};
use crate::gateway::Gateway;
use crate::recorder::{REPLIES, Recorder, Writes, send_replies};
use crate::settled::Settled;
use crate::starter::Starter;
use crate::store::Store;
use crate::watch::Watch;
use crate::webhooks::Webhooks;

/// Name of the service's database.
pub const DATABASE: &str = Service::PAYMENTS.name();

/// Runs the service until shutdown: takes commands, drives charges, relays events, answers queries.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = database(&ctx.settings, DATABASE, &MIGRATOR).await?;
    eventicket_kit::pool::watch(&pool, DATABASE, &ctx.shutdown);
    let store = Store::new(pool.clone());
    store.beat().await?; // before the first row that names this replica
    let (writes, written) = Writes::new();
    let (replies, answered) = mpsc::channel(REPLIES);
    let gateway = Arc::new(Gateway::new(&ctx.settings, CALLS)?);
    let driver = Driver::new(Arc::clone(&gateway), writes.clone(), replies.clone());
    let relay = Relay::new(pool, ctx.nats.clone(), ctx.clock.clone()).limits(ctx.limits.clone());
    let (clock, nats, wake) = (ctx.clock.clone(), ctx.nats.clone(), Arc::new(Notify::new()));
    let starter = Starter { store: store.clone(), nats, clock: clock.clone(), wake: Arc::clone(&wake) };
    let settled = Arc::<Settled>::default();
    let recorder = Recorder {
        store: store.clone(),
        clock: clock.clone(),
        writes: written,
        replies,
        settled: Arc::clone(&settled),
        wake: relay.waker(),
        wake_starter: wake,
        shutdown: ctx.shutdown.clone(),
    };
    let watch = Watch { store: store.clone(), gateway, writes: writes.clone(), clock: clock.clone() };
    // The recorder ends once nobody is left who writes.
    let listener = ctx.settings.payment_webhook_listen.map({
        let (store, driver) = (store.clone(), driver.clone());
        |listen| (listen, Webhooks { store, driver, writes, settled })
    });
    let seal = SealKeys::parse(&ctx.settings.seal_keys)?;
    let commands = Arc::new(Payments::new(store.clone(), ctx.clock.clone(), driver.clone(), seal));
    let limits = WorkerLimits { limits: ctx.limits.clone(), ..WorkerLimits::default() };
    let queries = queries::serve(&ctx.nats, store.clone()).await?;

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    let shutdown = || ctx.shutdown.clone();
    tasks.spawn("commands", run_worker(ctx.nats.clone(), commands, limits, ctx.clock.clone(), shutdown()));
    if let Some((listen, webhooks)) = listener {
        let (settings, shutdown) = (ctx.settings.clone(), shutdown());
        let running = async move { webhooks.run(listen, &settings.payment_webhook_secret, clock, shutdown).await };
        tasks.spawn("webhooks", running);
    }
    tasks.spawn("driver", unfailing(driver.run(store, shutdown())));
    tasks.spawn("watch", unfailing(Arc::new(watch).run(shutdown())));
    tasks.spawn("starter", unfailing(starter.run(shutdown())));
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
