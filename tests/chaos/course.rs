//! A run from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::customers::{Kind, Shop, ends};
use crate::faults::{Fault, draw};
use crate::order::Order;
use crate::pace::Pace;
use crate::report::{Outcome, Report};
use crate::site::Site;
use crate::strike::strike;
use crate::verdict;

/// Full speed comes back within this.
const RECOVERY: Duration = Duration::from_secs(60);
/// Customers who are under way when the load ends have their answers within this.
const STOP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Connections that wait for the next request.
const IDLE_CONNECTIONS: usize = 1_000;

/// Runs as ordered; panics with the story where something is wrong, and keeps the platform's folder then.
pub async fn run(order: Order) {
    tokio::select! {
        ended = start_to_end(&order) => {
            if let Err(error) = ended {
                panic!("seed {}: {error:#}", order.seed);
            }
        }
        () = interrupted() => panic!("interrupted"),
    }
}

async fn start_to_end(order: &Order) -> anyhow::Result<()> {
    let mut site = Site::start(order).await?;
    let root = site.root.display().to_string();
    let report = under_fire(&mut site, order).await.with_context(|| format!("logs and data are kept in {root}"))?;
    eprintln!("{}", report.text());
    report.write(order)?;
    if !report.wrong.is_empty() {
        // Its last lines are what a test shows of it.
        bail!("{}\nlogs and data are kept in {root}", report.story());
    }
    site.stop().await
}

async fn under_fire(site: &mut Site, order: &Order) -> anyhow::Result<Report> {
    let (tokens, event) = (site.customers().await?, site.event(order.hold).await?);
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(IDLE_CONNECTIONS).build()?;
    let (pace, over) = (Pace::new(), CancellationToken::new());
    let shop = Arc::new(Shop { http, url: site.url.clone(), tokens, event, pace, over: over.clone() });
    let rush = tokio::spawn(shop.clone().rush(order.rate));
    // Customers stop with this run, however it ends.
    let _over = over.drop_guard_ref();

    let mut battle = Battle { site, shop: &shop, rate: order.rate * Kind::confirmed(), letters: Vec::new() };
    let calm = battle.recovered(Duration::ZERO).await?;
    calm.with_context(|| format!("even undisturbed it does not hold {} bookings a second", order.rate))?;
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    for fault in draw(order.seed, order.faults) {
        let outcome =
            battle.endure(fault).await.with_context(|| format!("after {} faults: {fault}", outcomes.len()))?;
        eprintln!("{}", outcome.line());
        let recovered = outcome.full_after.is_some();
        outcomes.push(outcome);
        if !recovered {
            wrong.push(format!("{fault}: not at full speed after {} s", RECOVERY.as_secs()));
            break;
        }
    }
    let Battle { letters, .. } = battle;
    let confirmed = shop.pace.total() as f64 / shop.pace.now().as_secs_f64();
    shop.over.cancel();
    let mut told = timeout(STOP, rush).await.context("customers are still under way")??;
    wrong.extend(verdict::reach(site, &shop, &mut told, letters).await?);
    Ok(Report { seed: order.seed, rate: order.rate, confirmed, outcomes, ends: ends(&told), wrong })
}

struct Battle<'a> {
    site: &'a mut Site,
    shop: &'a Shop,
    /// Bookings that are confirmed a second where nothing fails.
    rate: f64,
    /// Dead letters of streams that are gone.
    letters: Vec<Value>,
}

impl Battle<'_> {
    /// One fault, until the platform is whole and at full speed again.
    async fn endure(&mut self, fault: Fault) -> anyhow::Result<Outcome> {
        if fault.kind.loses_streams() {
            self.letters.extend(verdict::letters_of(self.site).await?);
        }
        let at = self.shop.pace.now();
        let struck = strike(self.site, &fault).await?;
        let from = if fault.kind.lasts() { self.shop.pace.now() } else { at };
        let full_after = self.recovered(from).await?;
        Ok(Outcome { fault, at, struck, full_after })
    }

    /// Waits until bookings are confirmed at full speed and no process is missing; the time from `from` to full speed.
    async fn recovered(&mut self, from: Duration) -> anyhow::Result<Option<Duration>> {
        while self.shop.pace.now() < from + RECOVERY {
            if let Some(since) = self.shop.pace.full_since(from, self.rate)
                && self.site.is_complete()?
            {
                return Ok(Some(since - from));
            }
            sleep(LOOK).await;
        }
        Ok(None)
    }
}

/// Ctrl-C, or what ends a test that takes too long: the platform must end with it.
async fn interrupted() {
    let (Ok(mut one), Ok(mut other)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
