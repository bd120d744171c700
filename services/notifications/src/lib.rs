//! E-mail: `notifications.send` records a delivery, and a mailer drains the table; `notifications.fence` closes a round.
//!
//! A mail leaves at least once, with the same `Message-ID` on every try, so that mailboxes keep one. Nothing here stores
//! or logs an address or a name: both are asked of identity when the mail leaves.

pub mod audit;
pub mod commands;
pub mod mailbox;
mod mailer;
mod outgoing;
mod queries;
mod store;
mod templates;

use std::sync::Arc;

use eventicket_contracts::subjects::Service;
use eventicket_kit::tasks::Tasks;
use eventicket_kit::{Context, database};
use eventicket_nats::{WorkerLimits, run_worker};

pub use store::MIGRATOR;

use crate::commands::Notifications;
use crate::mailer::Mailer;
use crate::store::Store;

/// Name of the service's database.
pub const DATABASE: &str = Service::NOTIFICATIONS.name();

/// Runs the service until shutdown: takes commands, answers queries, sends mail.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = database(&ctx.settings, DATABASE, &MIGRATOR).await?;
    eventicket_kit::pool::watch(&pool, DATABASE, &ctx.shutdown);
    let store = Store::new(pool);
    let mailer = Mailer::new(&ctx, store.clone())?;
    let queries = queries::serve(&ctx.nats, store.clone()).await?;
    let commands = Arc::new(Notifications::new(store, ctx.clock.clone(), mailer.waker()));
    let limits = WorkerLimits { limits: ctx.limits.clone(), ..WorkerLimits::default() };

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    tasks.spawn("commands", run_worker(ctx.nats.clone(), commands, limits, ctx.clock.clone(), ctx.shutdown.clone()));
    let shutdown = ctx.shutdown.clone();
    tasks.spawn("queries", async move {
        queries.run(shutdown).await;
        anyhow::Ok(())
    });
    tasks.spawn("mailer", async move {
        mailer.run(ctx.shutdown).await;
        anyhow::Ok(())
    });
    tasks.join().await
}
