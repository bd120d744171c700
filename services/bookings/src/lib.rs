//! Bookings: what is sold, what is held, and the tickets. A ticket is never sold twice.
//!
//! A hold's row is the record of its reserve, release and confirm in one; it leaves `held` once, and only that changes
//! what is available. All that decides is pure ([`commands`] over the books of a batch); a batch is one transaction under
//! the locks of its sagas and then of its events, in an order that all replicas share.

mod allocation;
mod announce;
pub mod audit;
pub mod commands;
mod desk;
mod event;
mod limits;
#[cfg(test)]
mod model;
mod needs;
mod offering;
mod queries;
mod seats;
pub mod simulation;
mod store;
mod sweep;
mod tickets;

use std::sync::Arc;

use eventicket_contracts::subjects::Service;
use eventicket_kit::tasks::Tasks;
use eventicket_kit::{Context, database};
use eventicket_nats::outbox::Relay;
use eventicket_nats::{WorkerLimits, run_worker};

pub use store::MIGRATOR;

use crate::announce::{Announcer, Dirty};
use crate::commands::Bookings;
use crate::desk::Desk;
use crate::store::Store;
use crate::sweep::Sweep;

/// The service's database.
pub const DATABASE: &str = Service::BOOKINGS.name();

/// Runs the service until shutdown: takes commands, answers queries, frees holds, tells what happened.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = database(&ctx.settings, DATABASE, &MIGRATOR).await?;
    eventicket_kit::pool::watch(&pool, DATABASE, &ctx.shutdown);
    let (store, dirty) = (Store::new(pool.clone()), Arc::new(Dirty::default()));
    let relay = Relay::new(pool, ctx.nats.clone(), ctx.clock.clone()).limits(ctx.limits.clone());
    let desk = Desk::new(store.clone(), dirty.clone(), relay.waker());
    let queries = queries::serve(&ctx.nats, store.clone()).await?;
    let sweep = Sweep::new(store.clone(), desk.clone(), ctx.clock.clone());
    let announcer = Announcer { store, clock: ctx.clock.clone(), dirty, relay: relay.waker() };
    let commands = Arc::new(Bookings::new(desk, ctx.clock.clone()));
    let limits = WorkerLimits { limits: ctx.limits.clone(), ..WorkerLimits::default() };

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    tasks.spawn("commands", run_worker(ctx.nats, commands, limits, ctx.clock, ctx.shutdown.clone()));
    part(&mut tasks, "queries", queries.run(ctx.shutdown.clone()));
    part(&mut tasks, "sweep", sweep.run(ctx.shutdown.clone()));
    part(&mut tasks, "announcer", announcer.run(ctx.shutdown.clone()));
    part(&mut tasks, "relay", relay.run(ctx.shutdown));
    tasks.join().await
}

fn part(tasks: &mut Tasks, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(name, async move {
        part.await;
        anyhow::Ok(())
    });
}
