//! The replicas look after one another: heartbeats, the sagas of the dead, and streams that were lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use eventicket_contracts::subjects;
use eventicket_contracts::{Clock, SagaId};
use eventicket_nats::{Nats, StreamMark};
use eventicket_saga::Input;
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::intake::Work;
use super::journal;

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(500);
/// A replica whose heart has not beaten for so long is dead.
const LAPSE: Duration = Duration::from_secs(2);
/// Sagas that are adopted or sent again in one page.
const PAGE: i64 = 500;
/// Beats between two looks for sagas whose dispatcher nobody knows.
const SWEEP_EVERY: u32 = 20;

/// Commands in flight by service, over all replicas.
pub type Outstanding = BTreeMap<String, i64>;

/// What all replicas are together.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Commands in flight.
    pub outstanding: Outstanding,
    /// Living replicas.
    pub replicas: usize,
}

/// Looks after the other replicas until shutdown.
pub struct Watch {
    /// The journal.
    pub pool: PgPool,
    /// For the streams.
    pub nats: Nats,
    /// The time.
    pub clock: Clock,
    /// This replica.
    pub name: Uuid,
    /// Its own counts as JSON, as it last stored them.
    pub own: watch::Receiver<String>,
    /// Where the sum over all replicas goes.
    pub sum: watch::Sender<Sum>,
    /// Counts of the dead that this replica inherits.
    pub inherit: mpsc::Sender<Outstanding>,
    /// The services that sagas call.
    pub services: BTreeSet<String>,
    /// Where sagas to look at go.
    pub poke: mpsc::Sender<Work>,
}

impl Watch {
    /// Beats, adopts, and watches the streams. Errors are told to the log and tried again with the next beat.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut streams = HashMap::new();
        let mut beats = 0_u32;
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! { _ = tick.tick() => {}, () = shutdown.cancelled() => return }
            if let Err(error) = self.beat(beats.is_multiple_of(SWEEP_EVERY)).await {
                tracing::warn!(%error, "the replicas' table cannot be reached");
            }
            if beats.is_multiple_of(2) && self.lost_stream(&mut streams).await {
                tracing::warn!("a stream was lost; what its sagas await is sent again");
                if let Err(error) = self.resend_all().await {
                    tracing::warn!(%error, "sagas to send again could not be read");
                    streams.clear();
                }
            }
            beats = beats.wrapping_add(1);
        }
    }

    async fn beat(&self, sweep: bool) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let own = self.own.borrow().clone();
        let all = journal::beat(&self.pool, self.name, now, &own).await?;
        let mut sum = Outstanding::new();
        for (_, _, counts) in &all {
            add(&mut sum, counts);
        }
        let lapsed = now.millis() - LAPSE.as_millis() as i64;
        let (living, dead): (Vec<_>, Vec<_>) = all.iter().partition(|(n, at, _)| *n == self.name || *at >= lapsed);
        self.sum.send_replace(Sum { outstanding: sum, replicas: living.len() });
        if dead.is_empty() && !sweep {
            return Ok(());
        }
        let living: Vec<Uuid> = living.iter().map(|(n, _, _)| *n).collect();
        if self.adopt(&living).await? {
            let dead: Vec<Uuid> = dead.iter().map(|(n, _, _)| *n).collect();
            for counts in journal::bury(&self.pool, &dead).await? {
                let mut heritage = Outstanding::new();
                add(&mut heritage, &counts);
                let _ = self.inherit.send(heritage).await;
            }
        }
        Ok(())
    }

    /// Adopts all orphans, page by page as fast as turns take them; true where there was none.
    async fn adopt(&self, living: &[Uuid]) -> Result<bool, sqlx::Error> {
        let mut after: Option<SagaId> = None;
        loop {
            let orphans = journal::orphans(&self.pool, living, after, PAGE).await?;
            let Some(last) = orphans.last().copied() else { return Ok(after.is_none()) };
            tracing::info!(sagas = orphans.len(), "sagas of a replica that is gone are adopted");
            for saga in orphans {
                let _ = self.poke.send(Work::Adopt(saga)).await;
            }
            after = Some(last);
        }
    }

    async fn resend_all(&self) -> Result<(), sqlx::Error> {
        let mut after: Option<SagaId> = None;
        loop {
            let page = journal::own(&self.pool, self.name, after, PAGE).await?;
            let Some(last) = page.last().copied() else { return Ok(()) };
            for saga in page {
                let _ = self.poke.send(Work::Poke(saga, Input::Resend)).await;
            }
            after = Some(last);
        }
    }

    /// Whether a stream that carries commands or replies is another one than it was, or has gone back.
    async fn lost_stream(&self, seen: &mut HashMap<String, StreamMark>) -> bool {
        let commands = self.services.iter().map(|s| subjects::command_stream(s));
        let names = commands.chain([subjects::REPLIES_STREAM.to_owned()]);
        let mut lost = false;
        for name in names {
            // One that is missing now shows as another one when it is back.
            let Ok(Some(mark)) = self.nats.stream_mark(&name).await else { continue };
            if let Some(old) = seen.get(&name) {
                lost |= mark.lost_since(old);
            }
            seen.insert(name, mark);
        }
        lost
    }
}

fn add(sum: &mut Outstanding, counts: &str) {
    let counts: Outstanding = serde_json::from_str(counts).unwrap_or_default();
    for (service, n) in counts {
        *sum.entry(service).or_default() += n;
    }
}
