//! A saga of your own: an order with shipping, driven by the runtime over NATS and PostgreSQL.
//!
//! ```text
//! TAKE    shop.take     undo shop.put_back
//! CHARGE  shop.charge   undo shop.give_back
//! SHIP    shop.ship     the point of no return
//! ```
//!
//! `cargo run -p eventicket-orchestrator --example order` runs two orders: one is shipped, one has no cover and is undone.

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::envelope::Answer;
use eventicket_contracts::sagas::{StartSaga, StatusChange};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, Json, SagaId};
use eventicket_kit::Context;
use eventicket_nats::{Commands, Delivered, Fault, Handled, WorkerLimits, run_worker};
use eventicket_orchestrator::runtime::{self, journal};
use eventicket_orchestrator::sagas::{Catalogue, Kind};
use eventicket_saga::definition::{Call, Command, Definition, Step};
use eventicket_saga::{Phase, Saga};
use futures::StreamExt;
use serde_json::json;

const SHOP: Service = Service::new("shop", &["take", "put_back", "charge", "give_back", "ship"]);

fn order() -> Kind {
    let call = |action: &str| Call::new(SHOP.name(), action, |v| Ok(v.input().clone()));
    let steps = vec![
        Step::command("TAKE", Command::new(call("take")).undo(call("put_back"))),
        Step::command("CHARGE", Command::new(call("charge")).undo(call("give_back"))),
        Step::command("SHIP", Command::new(call("ship")).no_return()),
    ];
    let definition = Definition { name: "order".into(), version: 1, steps, deadlines: vec![] };
    let status = |saga: &Saga| match saga.phase {
        Phase::Completed => "shipped",
        Phase::Compensated => "undone",
        _ => "pending",
    };
    let (check, view) = (|_: &Json| Ok(()), |row: &eventicket_orchestrator::sagas::RowView<'_>| json!(row.id).into());
    Kind { name: "order", definitions: vec![definition], check, status, view }
}

struct Shop;

impl Commands for Shop {
    const SERVICE: Service = SHOP;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        let answer = |d: &Delivered| match (d.action.as_str(), d.item.body.text().contains("\"poor\"")) {
            ("charge", true) => Answer::rejected("no_cover", "the card has no cover"),
            _ => Answer::done(&d.action),
        };
        Ok(batch.iter().map(|d| Handled::Answer(answer(d))).collect())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _telemetry = eventicket_kit::telemetry::init("order");
    let world = eventicket_testkit::world().await;
    let ctx = Context::for_tests(&world.database_url, &world.nats_url).await?;
    let ctx = ctx.with_settings(|s| s.database_prefix = world.prefix.clone());
    let pool = eventicket_kit::database(&ctx.settings, "orders", &journal::MIGRATOR).await?;
    let may_call = |service: &str, action: &str| service == SHOP.name() && SHOP.actions().contains(&action);
    let catalogue = Arc::new(Catalogue::new(vec![order()], may_call)?);
    let (nats, limits, clock) = (ctx.nats.clone(), ctx.limits.clone(), Clock::system());
    let bound = runtime::admission::Bound::default();
    let config =
        runtime::Config { pool, nats: nats.clone(), limits: limits.clone(), clock: clock.clone(), catalogue, bound };
    let orchestrator = tokio::spawn(runtime::run(config, ctx.shutdown.clone()));
    let limits = WorkerLimits { limits, ..WorkerLimits::default() };
    let shop = tokio::spawn(run_worker(nats.clone(), Arc::new(Shop), limits, clock.clone(), ctx.shutdown.clone()));

    let mut changes = nats.subscriber().subscribe(subjects::STATUS).await?;
    for customer in ["rich", "poor"] {
        let (id, definition, input) = (SagaId::fresh(), "order".to_owned(), json!({ "customer": customer }));
        let give_up_at = clock.now().plus(Duration::from_secs(10));
        let (owner, idempotency, event, trace) = (None, None, None, None);
        let start = StartSaga {
            id,
            definition,
            owner,
            idempotency,
            event,
            input: input.into(),
            give_up_at,
            trace,
            blind: true,
        };
        while nats.start(&start, Duration::from_secs(2)).await.is_err() {
            tokio::task::yield_now().await; // the runtime is still starting
        }
    }
    let mut ended = 0;
    while ended < 2 {
        let message = changes.next().await.ok_or_else(|| anyhow::anyhow!("NATS is gone"))?;
        for change in serde_json::from_slice::<Vec<StatusChange>>(&message.payload)? {
            tracing::info!(saga = %change.id, "{}", change.status);
            ended += usize::from(change.status != "pending");
        }
    }
    ctx.shutdown.cancel();
    shop.await??;
    orchestrator.await?
}
