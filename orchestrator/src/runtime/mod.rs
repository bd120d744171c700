//! The runtime around the pure core: it feeds inputs to sagas in batches, stores them, and then carries out the effects.
//!
//! One loop a replica takes turns. A turn collects what is ready (replies first, new sagas last), loads the sagas, runs
//! the transitions ([`turn`]), stores rows and history in one transaction guarded by each row's version ([`journal`]),
//! and only then publishes commands ([`dispatch`]), answers askers and acknowledges replies.
//!
//! * [`memory`]: what a replica knows; [`take`], `starts`: what each input does to its saga; [`results`] keeps what must
//!   follow. All of it is without IO.
//! * `commit`, `follow_up`: the end of a turn, before and after the transaction.
//! * [`admission`], `door`, [`breakers`], [`held`]: when nothing is sent, and when again.
//! * [`intake`], [`timers`], [`replicas`]: where inputs come from.
//! * `spans`, `figures`: what is told of sagas to those who watch.

pub mod admission;
pub mod breakers;
pub mod dispatch;
pub mod held;
pub mod intake;
pub mod journal;
pub mod memory;
pub mod replicas;
pub mod results;
pub mod row;
pub mod take;
pub mod timers;
pub mod turn;
pub mod work;

mod commit;
mod door;
mod figures;
mod follow_up;
mod spans;
mod starts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::sagas::InFlight;
use eventicket_contracts::{Clock, SagaId, subjects};
use eventicket_nats::pace::Pace;
use eventicket_nats::{Fault, Nats, StreamLimits};
use eventicket_saga::Input;
use rand::Rng as _;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::sagas::Catalogue;
use admission::{Bound, Shut};
use breakers::Breakers;
use door::Door;
use figures::Figures;
use intake::{Intake, Work};
use memory::Memory;
use replicas::{Outstanding, Sum, Watch};
use results::Turn;
use spans::Spans;
use take::Moment;
use work::{rank, saga_of};

/// Most inputs of one kind in a turn.
const BATCH: usize = 512;
/// Most sagas that a replica keeps in memory; others are read again.
const CACHE: usize = 20_000;
/// Publishing stages that may be under way beside the turns.
const PUBLISHERS: usize = 4;
/// Held sagas that are released in one turn once their breaker has closed.
const RELEASE: usize = 200;
/// Longest time between two looks at what is held.
const LOOK: Duration = Duration::from_millis(200);
/// Delay after a turn that the database refused, doubled up to the longest.
const DATABASE_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the runtime needs.
#[derive(Clone)]
pub struct Config {
    /// The journal.
    pub pool: PgPool,
    /// The broker.
    pub nats: Nats,
    /// Sizes of the streams.
    pub limits: StreamLimits,
    /// The time.
    pub clock: Clock,
    /// The sagas.
    pub catalogue: Arc<Catalogue>,
    /// Most commands in flight at a service.
    pub bound: Bound,
}

/// Runs one replica until shutdown: stops taking, finishes the turn that it is in, and leaves the rest to the others.
///
/// # Errors
/// The journal or NATS cannot be reached at the start.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let name = Uuid::now_v7();
    // Registered before the first dispatch, so that its sagas are never taken for orphans.
    journal::beat(&config.pool, name, "{}").await?;
    let door = Arc::new(Door::new(config.nats.clone(), config.pool.clone(), config.catalogue.clone()));
    let intake = intake::open(&config.nats, &config.limits, door.clone(), &shutdown).await?;
    let (own_tx, own) = watch::channel("{}".to_owned());
    let (sum_tx, sum) = watch::channel(Sum::default());
    let (inherit_tx, inherit) = mpsc::channel(64);
    let memory = Memory::new(config.catalogue.clone(), config.bound);
    let watch = Watch {
        pool: config.pool.clone(),
        nats: config.nats.clone(),
        name,
        own,
        sum: sum_tx,
        inherit: inherit_tx,
        services: config.catalogue.services(),
        poke: intake.poke.clone(),
        stuck: memory.stuck.clone(),
    };
    let watching = tokio::spawn(watch.run(shutdown.clone()));
    let (services, breakers) = (config.catalogue.services(), Breakers::new(&config.catalogue));
    let (spans, figures) = (Spans::new(config.pool.clone()), Figures::new(&config.pool, &shutdown));
    let mut replica = Replica {
        name,
        config,
        intake,
        door,
        own: own_tx,
        sum,
        inherit,
        memory,
        services,
        is_much: false,
        breakers,
        publishers: Arc::new(Semaphore::new(PUBLISHERS)),
        pace: Pace::default(),
        spans,
        figures,
        session: None,
        shutdown,
    };
    replica.run().await;
    watching.abort();
    let _ = watching.await;
    // What it dispatched is somebody else's at once, not only when its heart is missed; its counts go to an heir.
    let _ = journal::retire(&replica.config.pool, name).await;
    Ok(())
}

/// One replica.
struct Replica {
    name: Uuid,
    config: Config,
    intake: Intake,
    door: Arc<Door>,
    own: watch::Sender<String>,
    sum: watch::Receiver<Sum>,
    inherit: mpsc::Receiver<Outstanding>,
    memory: Memory,
    /// All services that its sagas call.
    services: BTreeSet<String>,
    /// Much was in flight when it was last told.
    is_much: bool,
    breakers: Breakers,
    publishers: Arc<Semaphore>,
    pace: Pace,
    spans: Spans,
    figures: Figures,
    /// The turns' own: the pool would test it before each turn and after it.
    session: Option<PoolConnection<Postgres>>,
    shutdown: CancellationToken,
}

impl Replica {
    async fn run(&mut self) {
        let shutdown = self.shutdown.clone();
        let mut looked = self.config.clock.now();
        while let Some(work) = self.collect(&shutdown).await {
            if self.config.clock.now().since(looked) >= LOOK {
                looked = self.config.clock.now();
                self.look().await;
                self.tell_in_flight().await;
            }
            if work.is_empty() {
                continue;
            }
            let started = std::time::Instant::now();
            let inputs = work.len();
            self.pace.took(inputs);
            self.turn(work).await;
            self.figures.turn_seconds.record(started.elapsed().as_secs_f64());
            self.figures.turn_inputs.record(inputs as f64);
            shutdown.run_until_cancelled(self.pace.begin()).await;
        }
    }

    /// Waits until something is there, then takes whatever is ready, in-flight work before new work.
    async fn collect(&mut self, shutdown: &CancellationToken) -> Option<Vec<Work>> {
        let mut work = std::mem::take(&mut self.memory.again);
        if shutdown.is_cancelled() {
            return None;
        }
        if work.is_empty() {
            let now = self.config.clock.now();
            let due = self.memory.timers.next().map_or(LOOK, |t| t.since(now).min(LOOK));
            let first = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                first = self.intake.replies.recv() => Some(first),
                first = self.intake.others.recv() => Some(first),
                first = self.intake.starts.recv() => Some(first),
                () = tokio::time::sleep(due) => None,
            };
            match first {
                Some(Some(first)) => work.push(first),
                Some(None) => return None, // a queue is closed: the intake has ended
                None => {}
            }
        }
        drain(&mut self.intake.replies, &mut work, BATCH);
        drain(&mut self.intake.others, &mut work, BATCH);
        let fullest = self.memory.in_flight().commands.into_values().max().unwrap_or(0);
        let most = self.config.bound.timers(fullest, BATCH);
        let due = self.memory.timers.take_due(self.config.clock.now(), most);
        work.extend(due.into_iter().map(|saga| Work::Poke(saga, Input::Timer)));
        drain(&mut self.intake.starts, &mut work, BATCH);
        work.sort_by_key(rank);
        Some(work)
    }

    /// Tells the door what is in flight, and who starts sagas while it is much, and once more when it is not. By the loop
    /// itself, so that what was told last is what is.
    async fn tell_in_flight(&mut self) {
        let in_flight = InFlight { askers: self.door.number_of_askers(), ..self.memory.in_flight() };
        let was_much = std::mem::replace(&mut self.is_much, in_flight.is_much());
        let payload = (was_much || self.is_much).then(|| serde_json::to_vec(&in_flight).unwrap_or_default());
        self.door.set(in_flight, i64::try_from(self.intake.starts.len()).unwrap_or(i64::MAX));
        if let Some(payload) = payload
            && let Err(error) = self.config.nats.publisher().publish(subjects::IN_FLIGHT, payload.into()).await
        {
            tracing::debug!(%error, "what is in flight was not told; it is a hint only");
        }
    }

    /// Looks at breakers and at the sagas that they hold.
    async fn look(&mut self) {
        while let Ok(heritage) = self.inherit.try_recv() {
            for (service, n) in heritage {
                *self.memory.counts.entry(service).or_default() += n;
            }
        }
        let pool = self.config.pool.clone();
        if self.breakers.refresh(&pool).await.is_err() {
            return;
        }
        self.figures.timers.set(self.memory.timers.len() as f64);
        self.figures.held.set(self.memory.held.len() as f64);
        self.memory.others = self.sum.borrow().others.clone();
        for service in self.services.clone() {
            self.figures.in_flight(&service, self.memory.outstanding(&service));
            self.figures.breaker(&service, self.breakers.state(&service));
            if !self.breakers.closed().contains(&service) {
                let room = self.config.bound.room(self.memory.outstanding(&service), RELEASE);
                for saga in self.memory.held.take(&service, room) {
                    self.memory.again.push(Work::Poke(saga, Input::Released { service: service.clone() }));
                }
            } else if let Some(saga) = self.memory.held.first(&service) {
                let now = self.config.clock.now();
                if matches!(self.breakers.claim(&pool, &service, now).await, Ok(true)) {
                    self.memory.again.push(Work::Probe(saga, service));
                }
            }
        }
    }

    /// One turn; where its data are to blame for a failure, its halves, down to the input that is (6.9).
    async fn turn(&mut self, work: Vec<Work>) {
        let mut parts = vec![work];
        while let Some(part) = parts.pop() {
            let Err((mut broken, reason)) = self.attempt(part).await else { continue };
            if let [_] = broken[..] {
                let mut turn = Turn::default();
                let now = self.config.clock.now();
                broken.into_iter().for_each(|work| self.memory.poison(work, &reason, now, &mut turn));
                self.follow_up(turn).await;
                continue;
            }
            tracing::warn!(reason, inputs = broken.len(), "a turn is split");
            broken.sort_by_key(rank);
            let second = broken.split_off(broken.len() / 2);
            parts.extend([second, broken]);
        }
    }

    /// What the database did not take is kept for the next turn, unless it breaks the batch: then it comes back with the
    /// reason.
    async fn attempt(&mut self, work: Vec<Work>) -> Result<(), (Vec<Work>, String)> {
        let mut delay = DATABASE_DELAY.0;
        if let Err(error) = self.load(&work).await {
            tracing::warn!(%error, "sagas cannot be read; the turn is tried again");
            tokio::time::sleep(delay).await;
            self.memory.again.extend(work);
            return Ok(());
        }
        self.memory.others = self.sum.borrow().others.clone();
        let outstanding = |service: &str| self.memory.outstanding(service);
        self.memory.shut = Shut::new(&self.services, self.breakers.closed(), self.config.bound, outstanding);
        let mut turn = Turn::default();
        for item in work {
            let moment = Moment { now: self.config.clock.now(), noise: rand::rng().next_u64() };
            self.memory.take(item, moment, &mut turn);
        }
        let Err(error) = self.commit(&mut turn).await else {
            self.tell_in_flight().await;
            self.follow_up(turn).await;
            return Ok(());
        };
        match Fault::from(error) {
            // It was certainly not stored.
            Fault::Broken(reason) => {
                turn.changes.changed.iter().for_each(|id| drop(self.memory.rows.remove(id)));
                return Err((turn.into_work().collect(), reason));
            }
            Fault::Transient(error) => tracing::warn!(error, "a turn was not stored, or its answer was lost"),
        }
        // Never the same commit again: it may have been stored. What it was computed on is read anew.
        let shutdown = self.shutdown.clone();
        while !shutdown.run_until_cancelled(self.reread(&mut turn)).await.unwrap_or(false) {
            if shutdown.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return Ok(()); // whoever asked asks again, and the replies come again
            }
            delay = (delay * 2).min(DATABASE_DELAY.1);
        }
        self.memory.forget(&turn);
        self.answer_stored(&mut turn).await;
        self.memory.again.extend(turn.into_work());
        Ok(())
    }

    /// Takes the turns' session, or opens one.
    async fn session(&mut self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let mut session = self.config.pool.acquire().await?;
        session.close_on_drop();
        Ok(session)
    }

    async fn load(&mut self, work: &[Work]) -> Result<(), sqlx::Error> {
        // Beside other replicas, which get half of the replies, what is cached is mostly stale.
        if self.memory.rows.len() > CACHE || self.sum.borrow().replicas > 1 {
            self.memory.rows.clear();
        }
        self.memory.fresh.clear();
        // A new saga is not looked for: where it is there, it cannot be stored anew, and the first one answers.
        let begun = work.iter().filter(|work| !matches!(work, Work::Start(..)));
        let wanted: BTreeSet<SagaId> =
            begun.filter_map(saga_of).filter(|s| !self.memory.rows.contains_key(s)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<SagaId> = wanted.into_iter().collect();
        let mut session = self.session().await?;
        for row in journal::load(&mut *session, &wanted).await? {
            self.memory.rows.insert(row.id, row);
        }
        // After an error it is not used again.
        self.session = Some(session);
        self.memory.fresh.extend(wanted);
        Ok(())
    }
}

fn drain(from: &mut mpsc::Receiver<Work>, into: &mut Vec<Work>, most: usize) {
    for _ in 0..most {
        match from.try_recv() {
            Ok(work) => into.push(work),
            Err(_) => return,
        }
    }
}
