//! The runtime around the pure core: it feeds inputs to sagas in batches, stores them, and then carries out the effects.
//!
//! One loop a replica takes turns. A turn collects what is ready (replies first, new sagas last), loads the sagas, runs
//! the transitions ([`turn`]), stores rows and history in one transaction guarded by each row's version ([`journal`]),
//! and only then publishes commands ([`dispatch`]), answers askers and acknowledges replies.

pub mod breakers;
pub mod dispatch;
pub mod held;
pub mod intake;
pub mod journal;
pub mod replicas;
pub mod row;
pub mod timers;
pub mod turn;

mod commit;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use eventicket_contracts::sagas::{ActAnswer, StartAnswer};
use eventicket_contracts::{Clock, SagaId};
use eventicket_nats::{Nats, StreamLimits, dead_letter};
use eventicket_saga::Input;
use rand::Rng;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::sagas::Catalogue;
use breakers::Breakers;
use held::Held;
use intake::{Intake, Work, respond};
use replicas::{Outstanding, Sum, Watch};
use row::Row;
use timers::Timers;
use turn::{Changes, Fate, World, feed};
use work::{addressed, conflict_code, input_of, not_yours, rank, saga_of};

/// Most inputs of one kind in a turn.
const BATCH: usize = 512;
/// Most sagas that a replica keeps in memory; others are read again.
const CACHE: usize = 20_000;
/// Publishing stages that may be under way beside the turns.
const PUBLISHERS: usize = 4;
/// Commands in flight at the first service of a saga beyond which new sagas are told to come back.
pub const MAX_OUTSTANDING: i64 = 8_192;
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
}

/// Runs one replica until shutdown: stops taking, finishes the turn that it is in, and leaves the rest to the others.
///
/// # Errors
/// The journal or NATS cannot be reached at the start.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let name = Uuid::now_v7();
    // Registered before the first dispatch, so that its sagas are never taken for orphans.
    journal::beat(&config.pool, name, "{}").await?;
    let intake = intake::open(&config.nats, &config.limits, &shutdown).await?;
    let (own_tx, own) = watch::channel("{}".to_owned());
    let (sum_tx, sum) = watch::channel(Sum::default());
    let (inherit_tx, inherit) = mpsc::channel(64);
    let watch = Watch {
        pool: config.pool.clone(),
        nats: config.nats.clone(),
        name,
        own,
        sum: sum_tx,
        inherit: inherit_tx,
        services: config.catalogue.services(),
        poke: intake.poke.clone(),
    };
    let watching = tokio::spawn(watch.run(shutdown.clone()));
    let mut replica = Replica {
        name,
        config,
        intake,
        own: own_tx,
        sum,
        inherit,
        rows: HashMap::new(),
        fresh: HashSet::new(),
        timers: Timers::default(),
        held: Held::default(),
        counts: BTreeMap::new(),
        breakers: Breakers::default(),
        publishers: Arc::new(Semaphore::new(PUBLISHERS)),
        again: Vec::new(),
    };
    replica.run(&shutdown).await;
    watching.abort();
    let _ = watching.await;
    // What it dispatched is somebody else's at once, not only when its heart is missed; its counts go to an heir.
    let _ = journal::retire(&replica.config.pool, name).await;
    Ok(())
}

/// One replica's state in memory; all of it can be lost.
struct Replica {
    name: Uuid,
    config: Config,
    intake: Intake,
    own: watch::Sender<String>,
    sum: watch::Receiver<Sum>,
    inherit: mpsc::Receiver<Outstanding>,
    rows: HashMap<SagaId, Row>,
    /// Read in this turn, whether they were there or not.
    fresh: HashSet<SagaId>,
    timers: Timers,
    held: Held,
    counts: Outstanding,
    breakers: Breakers,
    publishers: Arc<Semaphore>,
    again: Vec<Work>,
}

impl Replica {
    async fn run(&mut self, shutdown: &CancellationToken) {
        let mut looked = self.config.clock.now();
        while let Some(work) = self.collect(shutdown).await {
            if self.config.clock.now().since(looked) >= LOOK {
                looked = self.config.clock.now();
                self.look().await;
            }
            if work.is_empty() {
                continue;
            }
            let started = std::time::Instant::now();
            let inputs = work.len();
            self.turn(work).await;
            metrics::histogram!("eventicket_orchestrator_turn_seconds").record(started.elapsed().as_secs_f64());
            metrics::histogram!("eventicket_orchestrator_turn_inputs").record(inputs as f64);
        }
    }

    /// Waits until something is there, then takes whatever is ready, in-flight work before new work.
    async fn collect(&mut self, shutdown: &CancellationToken) -> Option<Vec<Work>> {
        let mut work = std::mem::take(&mut self.again);
        if shutdown.is_cancelled() {
            return None;
        }
        if work.is_empty() {
            let now = self.config.clock.now();
            let due = self.timers.next().map_or(LOOK, |t| t.since(now).min(LOOK));
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
        let due = self.timers.take_due(self.config.clock.now(), BATCH);
        work.extend(due.into_iter().map(|saga| Work::Poke(saga, Input::Timer)));
        drain(&mut self.intake.starts, &mut work, BATCH);
        work.sort_by_key(rank);
        Some(work)
    }

    /// Looks at breakers and at the sagas that they hold.
    async fn look(&mut self) {
        while let Ok(heritage) = self.inherit.try_recv() {
            for (service, n) in heritage {
                *self.counts.entry(service).or_default() += n;
            }
        }
        let pool = self.config.pool.clone();
        if self.breakers.refresh(&pool).await.is_err() {
            return;
        }
        metrics::gauge!("eventicket_orchestrator_timers").set(self.timers.len() as f64);
        metrics::gauge!("eventicket_orchestrator_held").set(self.held.len() as f64);
        for service in self.config.catalogue.services() {
            if !self.breakers.closed().contains(&service) {
                for saga in self.held.take(&service, RELEASE) {
                    self.again.push(Work::Poke(saga, Input::Released { service: service.clone() }));
                }
            } else if let Some(saga) = self.held.first(&service) {
                let now = self.config.clock.now();
                if matches!(self.breakers.claim(&pool, &service, now).await, Ok(true)) {
                    self.again.push(Work::Probe(saga, service));
                }
            }
        }
    }

    /// One turn. What the database did not take is kept for the next one.
    async fn turn(&mut self, work: Vec<Work>) {
        let mut delay = DATABASE_DELAY.0;
        if let Err(error) = self.load(&work).await {
            tracing::warn!(%error, "sagas cannot be read; the turn is tried again");
            tokio::time::sleep(delay).await;
            self.again.extend(work);
            return;
        }
        let mut turn = Turn::default();
        for item in work {
            self.take(item, &mut turn);
        }
        if let Err(error) = self.commit(&mut turn).await {
            tracing::warn!(%error, "a turn was not stored, or its answer was lost");
            // Never the same commit again: it may have been stored. What it was computed on is read anew.
            while !self.reread(&turn).await {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(DATABASE_DELAY.1);
            }
            self.forget(&turn);
            self.again.extend(turn.into_work());
            return;
        }
        self.follow_up(turn).await;
    }

    async fn load(&mut self, work: &[Work]) -> Result<(), sqlx::Error> {
        // Beside other replicas, which get half of the replies, what is cached is mostly stale.
        if self.rows.len() > CACHE || self.sum.borrow().replicas > 1 {
            self.rows.clear();
        }
        self.fresh.clear();
        let wanted: BTreeSet<SagaId> = work.iter().filter_map(saga_of).filter(|s| !self.rows.contains_key(s)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<SagaId> = wanted.into_iter().collect();
        for row in journal::load(&self.config.pool, &wanted).await? {
            self.rows.insert(row.id, row);
        }
        self.fresh.extend(wanted);
        Ok(())
    }

    /// Feeds one input; notes what must happen after the commit.
    fn take(&mut self, work: Work, turn: &mut Turn) {
        if let Work::Start(..) = work {
            return self.start(work, turn);
        }
        let Some((saga, input)) = input_of(&work) else { return };
        if let Some(refusal) = not_yours(&work, self.rows.get(&saga)) {
            turn.answers.push((work, refusal));
            return;
        }
        let probe = if let Work::Probe(saga, service) = &work { Some((*saga, service.clone())) } else { None };
        let world = World {
            catalogue: &self.config.catalogue,
            now: self.config.clock.now(),
            noise: rand::rng().next_u64(),
            closed: self.breakers.closed(),
            probe,
        };
        let fate = feed(&world, &mut self.rows, saga, input, &mut turn.changes);
        match fate {
            Fate::Applied => turn.applied.entry(saga).or_default().push(work),
            // An adopted saga changes hands even where nothing is sent again.
            Fate::Repeated if matches!(work, Work::Adopt(_)) => {
                turn.changes.changed.insert(saga);
                turn.applied.entry(saga).or_default().push(work);
            }
            Fate::Repeated => {
                self.look_after(saga, &work);
                turn.settled.push(work);
            }
            // Another replica may have changed the row since it was read: only a fresh look refuses for good (6.10).
            Fate::Illegal(_) | Fate::Unknown if !self.fresh.contains(&saga) => {
                if !turn.changes.changed.contains(&saga) {
                    self.rows.remove(&saga);
                }
                self.again.push(work);
            }
            fate => turn.refused(work, fate),
        }
    }

    fn start(&mut self, work: Work, turn: &mut Turn) {
        let Work::Start(start, _) = &work else { return };
        let now = self.config.clock.now();
        if start.give_up_at < now {
            return; // nobody listens any more
        }
        let refuse = |code: &str, message: String| StartAnswer::Refused { code: code.into(), message };
        let Some(kind) = self.config.catalogue.kind(&start.definition) else {
            return turn.starts.push((work, refuse("unknown_definition", "no saga has this name".into())));
        };
        let Some(definition) = self.config.catalogue.registry.newest(&start.definition).cloned() else {
            return turn.starts.push((work, refuse("unknown_definition", "no saga has this name".into())));
        };
        if let Err(message) = (kind.check)(&start.input) {
            return turn.starts.push((work, refuse("invalid_input", message)));
        }
        let first = definition.services().next().unwrap_or_default();
        if self.sum.borrow().outstanding.get(first).copied().unwrap_or(0) > MAX_OUTSTANDING {
            let retry_after_ms = intake::RETRY_AFTER.as_millis() as u64;
            return turn.starts.push((work, StartAnswer::Busy { retry_after_ms }));
        }
        if self.rows.contains_key(&start.id) || !turn.claim(start) {
            // Started before, or twice in this turn: the first one decides.
            return turn.existing.push(work);
        }
        let saga = eventicket_saga::Saga::new(start.id.0, &definition, start.input.clone(), now.millis());
        let row = Row {
            id: start.id,
            saga,
            owner: start.owner,
            event: start.event,
            idempotency: start.idempotency.clone(),
            trace: start.trace.clone(),
            version: 0,
            updated_at: now,
            news: Vec::new(),
        };
        let id = start.id;
        self.rows.insert(id, row);
        let world = World {
            catalogue: &self.config.catalogue,
            now,
            noise: rand::rng().next_u64(),
            closed: self.breakers.closed(),
            probe: None,
        };
        feed(&world, &mut self.rows, id, Input::Start, &mut turn.changes);
        turn.applied.entry(id).or_default().push(work);
    }

    /// After the commit: effects leave, askers are answered, replies are acknowledged.
    async fn follow_up(&mut self, turn: Turn) {
        let Turn { stored, answers, existing, settled, starts, dead, sends, changes, ended, .. } = turn;
        if let Err(error) = self.breakers.record(&self.config.pool, &changes.calls, self.config.clock.now()).await {
            tracing::warn!(%error, "a breaker was not stored");
        }
        let nats = self.config.nats.clone();
        let mut told: Vec<(Subject, Bytes)> = stored.iter().filter_map(|work| self.answer_to(work)).collect();
        told.extend(answers.iter().filter_map(|(work, answer)| addressed(work, answer)));
        told.extend(starts.iter().filter_map(|(work, answer)| addressed(work, answer)));
        let unacked = |work: Work| if let Work::Reply(_, unacked) = work { Some(unacked) } else { None };
        let handled: Vec<Arc<intake::Unacked>> = stored.into_iter().chain(settled).filter_map(unacked).collect();
        if !(told.is_empty() && sends.is_empty() && handled.is_empty()) {
            let permit = self.publishers.clone().acquire_owned().await;
            let (nats, feedback) = (nats.clone(), self.intake.poke.clone());
            tokio::spawn(async move {
                for (to, payload) in told {
                    if let Err(error) = nats.publisher().publish(to, payload).await {
                        tracing::debug!(%error, "an answer was lost");
                    }
                }
                let again = if sends.is_empty() { Vec::new() } else { dispatch::publish(&nats, sends).await };
                for unacked in handled {
                    unacked.handled().await;
                }
                // Before it waits for room among the inputs: the loop that makes room waits for this permit.
                drop(permit);
                for work in again {
                    if feedback.send(work).await.is_err() {
                        return;
                    }
                }
            });
        }
        for id in ended {
            self.rows.remove(&id);
        }
        for work in existing {
            self.answer_existing(work).await;
        }
        for (reply, unacked, reason) in dead {
            tracing::error!(key = %reply.key, reason, "a reply was dead-lettered");
            match dead_letter(&nats, "orchestrator", "reply", unacked.message(), &reason).await {
                Ok(()) => {
                    unacked.handled().await;
                    // A saga that still runs is marked for an operator; one that is unknown or has ended is not.
                    self.again.push(Work::Poke(reply.key.saga, Input::Mark { step: reply.key.step, reason }));
                }
                Err(error) => tracing::warn!(%error, "a dead letter was not stored; the message comes again"),
            }
        }
    }

    /// The answer to an input that was stored, with its address.
    fn answer_to(&self, work: &Work) -> Option<(Subject, Bytes)> {
        let row = self.rows.get(&saga_of(work)?)?;
        let view =
            || self.config.catalogue.kind(&row.saga.definition).map(|k| (k.view)(&row.view())).unwrap_or_default();
        match work {
            Work::Start(..) => addressed(work, &StartAnswer::Started { id: row.id, created: true, view: view() }),
            Work::Act(..) => addressed(work, &ActAnswer::Done { view: view() }),
            _ => None,
        }
    }

    /// An input that was meant to wake a saga found nothing to do: what is kept of the saga in memory is set anew.
    fn look_after(&mut self, saga: SagaId, work: &Work) {
        if !matches!(work, Work::Probe(..) | Work::Poke(_, Input::Released { .. } | Input::Timer)) {
            return;
        }
        let row = self.rows.get(&saga);
        let known =
            row.and_then(|r| self.config.catalogue.registry.get(&r.saga.definition, r.saga.version).map(|d| (r, d)));
        let (held, due) = known.map_or_else(Default::default, |(r, d)| (row::held(&r.saga, d), r.saga.next_due(d)));
        self.held.set(saga, held);
        self.timers.set(saga, due.map(eventicket_contracts::Timestamp));
    }

    /// A start whose id or key is known gets the first one's answer.
    async fn answer_existing(&mut self, work: Work) {
        let Work::Start(start, to) = &work else { return };
        let found = match (&start.owner, &start.idempotency) {
            (Some(owner), Some(i)) => journal::by_key(&self.config.pool, *owner, &i.key).await,
            _ => journal::load(&self.config.pool, &[start.id]).await.map(|mut rows| rows.pop()),
        };
        let found = match found {
            Ok(Some(row)) => Ok(Some(row)),
            Ok(None) => journal::load(&self.config.pool, &[start.id]).await.map(|mut rows| rows.pop()),
            Err(error) => Err(error),
        };
        let answer = match found {
            Ok(Some(row)) => {
                let other = |i: &eventicket_contracts::identity::Idempotency| {
                    start.idempotency.as_ref().is_some_and(|s| s.key == i.key && s.fingerprint != i.fingerprint)
                };
                if row.idempotency.as_ref().is_some_and(other) {
                    StartAnswer::KeyReused
                } else {
                    let view = self
                        .config
                        .catalogue
                        .kind(&row.saga.definition)
                        .map(|k| (k.view)(&row.view()))
                        .unwrap_or_default();
                    StartAnswer::Started { id: row.id, created: false, view }
                }
            }
            // The first one was not stored after all, or cannot be read: this one is looked at again.
            Ok(None) | Err(_) => return self.again.push(work),
        };
        respond(&self.config.nats, to.clone(), &answer).await;
    }
}

/// One turn's results, until they are stored.
#[derive(Default)]
struct Turn {
    changes: Changes,
    /// Inputs that changed a saga, by saga.
    applied: HashMap<SagaId, Vec<Work>>,
    /// Inputs that had been taken before.
    settled: Vec<Work>,
    /// Actions with their refusals.
    answers: Vec<(Work, ActAnswer)>,
    /// Starts with their refusals.
    starts: Vec<(Work, StartAnswer)>,
    /// Starts of what exists.
    existing: Vec<Work>,
    /// Replies that nobody awaits.
    dead: Vec<(eventicket_contracts::envelope::Reply, Arc<intake::Unacked>, String)>,
    /// Inputs whose saga was stored.
    stored: Vec<Work>,
    /// Commands of the sagas that were stored.
    sends: Vec<turn::Outgoing>,
    /// Sagas that ended, no longer kept in memory.
    ended: Vec<SagaId>,
    keys: HashSet<(Option<eventicket_contracts::CustomerId>, String)>,
}

impl Turn {
    /// Whether no other start of this turn has the same owner and key.
    fn claim(&mut self, start: &eventicket_contracts::sagas::StartSaga) -> bool {
        start.idempotency.as_ref().is_none_or(|i| self.keys.insert((start.owner, i.key.clone())))
    }

    fn refused(&mut self, work: Work, fate: Fate) {
        let reason = match &fate {
            Fate::Illegal(illegal) => illegal.to_string(),
            Fate::Unknown => "no such saga".to_owned(),
            _ => "this replica does not know the saga's definition".to_owned(),
        };
        match (work, fate) {
            (Work::Act(act, to), Fate::Unknown) => self.answers.push((Work::Act(act, to), ActAnswer::NotFound)),
            (Work::Act(act, to), Fate::Illegal(illegal)) => {
                let code = conflict_code(&illegal).to_owned();
                self.answers.push((Work::Act(act, to), ActAnswer::Conflict { code, message: reason }));
            }
            // Asked again, another replica may get it.
            (Work::Act(act, to), Fate::Foreign) => {
                self.answers
                    .push((Work::Act(act, to), ActAnswer::Conflict { code: "try_again".into(), message: reason }));
            }
            (Work::Reply(reply, unacked), Fate::Illegal(_) | Fate::Unknown) => self.dead.push((reply, unacked, reason)),
            // Left unacknowledged for a replica that knows the definition.
            (Work::Reply(..), Fate::Foreign) => tracing::error!(reason, "a reply is left to another replica"),
            (work, _) => self.settled.push(work),
        }
    }

    fn into_work(self) -> impl Iterator<Item = Work> {
        let answers = self.answers.into_iter().map(|(w, _)| w);
        let starts = self.starts.into_iter().map(|(w, _)| w);
        let dead = self.dead.into_iter().map(|(r, u, _)| Work::Reply(r, u));
        let applied = self.applied.into_values().flatten();
        applied.chain(self.settled).chain(answers).chain(starts).chain(self.existing).chain(dead)
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
