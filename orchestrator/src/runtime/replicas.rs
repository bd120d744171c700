//! The replicas look after one another: heartbeats, the sagas of the dead, and streams that were lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventicket_contracts::SagaId;
use eventicket_contracts::subjects;
use eventicket_nats::{Nats, StreamMark};
use eventicket_saga::Input;
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::intake::Work;
use super::journal::{self, Beat};

/// Time between two beats, each of which also reads the others' counts: what was answered to another replica meanwhile
/// counts as in flight here.
const BEAT: Duration = Duration::from_millis(200);
/// Time between two looks at dead replicas and at the streams.
const LOOK: Duration = Duration::from_millis(500);
/// A replica whose heart has not beaten for so long is dead.
const LAPSE: Duration = Duration::from_secs(2);
/// Sagas that are adopted or sent again in one page.
const PAGE: i64 = 500;
/// Looks between the beginnings of two sweeps for sagas whose dispatcher nobody knows.
const SWEEP_EVERY: u32 = 20;
/// Unfinished sagas that a sweep passes in one look: some milliseconds of the database's time.
const SLICE: i64 = 5_000;

/// Commands in flight by service, over all replicas.
pub type Outstanding = BTreeMap<String, i64>;

/// What all replicas are together.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Commands in flight by the other replicas' counts; its own a replica has fresher itself.
    pub others: Outstanding,
    /// Living replicas.
    pub replicas: usize,
}

/// Orphans that this replica could not take over: they cannot be read, or their definition is not known here. They are
/// tried again at each sweep, and keep no dead replica from being forgotten.
#[derive(Clone, Debug, Default)]
pub struct Stuck(Arc<Mutex<HashSet<SagaId>>>);

impl Stuck {
    /// One more.
    pub fn add(&self, saga: SagaId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(saga);
    }

    /// All; at a sweep they are forgotten, since it tries them again.
    fn known(&self, sweep: bool) -> HashSet<SagaId> {
        let mut stuck = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sweep { std::mem::take(&mut stuck) } else { stuck.clone() }
    }
}

/// Looks after the other replicas until shutdown.
pub struct Watch {
    /// The journal.
    pub pool: PgPool,
    /// For the streams.
    pub nats: Nats,
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
    /// Told by the turns.
    pub stuck: Stuck,
}

impl Watch {
    /// Beats, adopts, and watches the streams. Errors are told to the log and tried again with the next beat.
    pub async fn run(self, shutdown: CancellationToken) {
        let (tell, mut seen) = watch::channel(Arc::new(Vec::new()));
        // The heart beats by itself, whatever the others or the broker keep this one waiting for.
        let heart = Heart {
            pool: self.pool.clone(),
            name: self.name,
            own: self.own.clone(),
            sum: self.sum.clone(),
            inherit: self.inherit.clone(),
            seen: tell,
        };
        let _beating = AbortOnDrop(tokio::spawn(heart.run(shutdown.clone())));
        let (mut streams, mut sweep) = (HashMap::new(), None);
        let mut looks = 0_u32;
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! { _ = tick.tick() => {}, () = shutdown.cancelled() => return }
            let all = seen.borrow_and_update().clone();
            if looks.is_multiple_of(SWEEP_EVERY) && sweep.is_none() {
                sweep = Some(Sweep { stuck: self.stuck.known(true), passed: None });
            }
            if let Err(error) = self.look_after(&all, &mut sweep).await {
                tracing::warn!(%error, "the sagas of other replicas cannot be looked after");
            }
            if looks.is_multiple_of(2) && self.lost_stream(&mut streams).await {
                tracing::warn!("a stream was lost; what its sagas await is sent again");
                if let Err(error) = self.resend_all().await {
                    tracing::warn!(%error, "sagas to send again could not be read");
                    streams.clear();
                }
            }
            looks = looks.wrapping_add(1);
        }
    }

    async fn look_after(&self, all: &[Beat], sweep: &mut Option<Sweep>) -> Result<(), sqlx::Error> {
        if all.is_empty() {
            return Ok(()); // no beat yet, or not for long: nobody is judged
        }
        let (living, dead): (Vec<_>, Vec<_>) = all.iter().partition(|b| b.name == self.name || b.silent < LAPSE);
        let names = |beats: Vec<&Beat>| beats.into_iter().map(|b| b.name).collect::<Vec<Uuid>>();
        let living = names(living);
        if let Some(Sweep { stuck, passed }) = sweep.as_mut().filter(|_| dead.is_empty()) {
            *passed = journal::Slice::next(&self.pool, *passed, SLICE).await?;
            match passed {
                Some(slice) => drop(self.adopt(&living, *slice, stuck, true).await?),
                None => *sweep = None,
            }
        }
        if !dead.is_empty() && self.adopt(&living, journal::Slice::ALL, &self.stuck.known(false), false).await? {
            for counts in journal::bury(&self.pool, &names(dead), LAPSE).await? {
                let _ = self.inherit.send(parse(&counts)).await;
            }
        }
        Ok(())
    }

    /// Adopts the orphans of a slice, page by page as fast as turns take them; true where there was none but those that
    /// are stuck, which only a sweep tries again.
    async fn adopt(
        &self,
        living: &[Uuid],
        mut slice: journal::Slice,
        stuck: &HashSet<SagaId>,
        sweep: bool,
    ) -> Result<bool, sqlx::Error> {
        let mut none = true;
        loop {
            let orphans = journal::orphans(&self.pool, living, slice, PAGE).await?;
            let Some(last) = orphans.last().copied() else { return Ok(none) };
            let others = orphans.iter().filter(|saga| !stuck.contains(*saga)).count();
            if others > 0 {
                none = false;
                tracing::info!(sagas = others, "sagas of a replica that is gone are adopted");
            }
            for saga in orphans.into_iter().filter(|saga| sweep || !stuck.contains(saga)) {
                let _ = self.poke.send(Work::Adopt(saga)).await;
            }
            slice = slice.behind(last);
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
            // Read before its mark, so that a stream that has all of it is never behind.
            let acknowledged = self.nats.acknowledged(&name);
            // One that is missing now shows as another one when it is back.
            let Ok(Some(mark)) = self.nats.stream_mark(&name).await else { continue };
            if seen.get(&name).is_some_and(|old| mark.lost_since(old)) || acknowledged > Some(mark.last) {
                self.nats.forget_acknowledged(&name);
                lost = true;
            }
            seen.insert(name, mark);
        }
        lost
    }
}

/// A look at all unfinished sagas that takes several looks.
struct Sweep {
    stuck: HashSet<SagaId>,
    passed: Option<journal::Slice>,
}

/// The part that beats.
struct Heart {
    pool: PgPool,
    name: Uuid,
    own: watch::Receiver<String>,
    sum: watch::Sender<Sum>,
    inherit: mpsc::Sender<Outstanding>,
    seen: watch::Sender<Arc<Vec<Beat>>>,
}

impl Heart {
    async fn run(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = tokio::time::Instant::now();
        let mut quiet_until = last;
        loop {
            tokio::select! { _ = tick.tick() => {}, () = shutdown.cancelled() => return }
            let own = self.own.borrow().clone();
            match journal::beat(&self.pool, self.name, &own).await {
                Ok((all, registered)) => {
                    if registered {
                        // It was taken for dead, and an heir has its counts.
                        let back = parse(&own).into_iter().map(|(service, n)| (service, -n)).collect();
                        let _ = self.inherit.send(back).await;
                    }
                    // After a gap of its own it does not know who else was kept from beating.
                    let now = tokio::time::Instant::now();
                    if now - last > LAPSE {
                        quiet_until = now + LAPSE;
                    }
                    last = now;
                    self.tell(all, now >= quiet_until);
                }
                Err(error) => tracing::warn!(%error, "the replicas' table cannot be reached"),
            }
        }
    }

    fn tell(&self, all: Vec<Beat>, judge: bool) {
        let mut others = Outstanding::new();
        for (service, n) in all.iter().filter(|b| b.name != self.name).flat_map(|b| parse(&b.outstanding)) {
            *others.entry(service).or_default() += n;
        }
        let replicas = all.iter().filter(|b| b.name == self.name || b.silent < LAPSE).count();
        self.sum.send_replace(Sum { others, replicas });
        self.seen.send_replace(Arc::new(if judge { all } else { Vec::new() }));
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts as they are stored.
pub(super) fn parse(counts: &str) -> Outstanding {
    serde_json::from_str(counts).unwrap_or_default()
}
