//! What a replica tells of itself and of its sagas. Metrics are looked up once, not for each saga.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use eventicket_contracts::metrics as names;
use eventicket_saga::{Entry, State, What};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::journal;
use super::row::Row;

/// How often the unfinished sagas are counted.
const EVERY: Duration = Duration::from_secs(15);
/// How many of them are counted at once.
const SLICE: i64 = 2_000;
/// How many times as long as it took to count them nothing is counted then.
const REST: u32 = 9;
/// The states of a breaker.
const BREAKERS: [&str; 3] = ["closed", "open", "half_open"];

/// A replica's metrics.
pub(super) struct Figures {
    pub turn_seconds: Histogram,
    pub turn_inputs: Histogram,
    pub timers: Gauge,
    pub held: Gauge,
    in_flight: HashMap<String, Gauge>,
    breakers: HashMap<String, [Gauge; 3]>,
    definitions: HashMap<String, OfDefinition>,
}

/// Of the sagas of one definition.
struct OfDefinition {
    started: Counter,
    ended: Vec<(State, Counter)>,
    steps: HashMap<String, OfStep>,
}

#[derive(Default)]
struct OfStep {
    outcomes: Vec<(What, Counter)>,
    seconds: Option<Histogram>,
}

impl Figures {
    /// Counts unfinished sagas until shutdown.
    pub fn new(pool: &PgPool, shutdown: &CancellationToken) -> Self {
        tokio::spawn(count_sagas(pool.clone(), shutdown.clone()));
        Self {
            turn_seconds: histogram!(names::TURN_SECONDS),
            turn_inputs: histogram!(names::TURN_INPUTS),
            timers: gauge!(names::TIMERS),
            held: gauge!(names::HELD),
            in_flight: HashMap::new(),
            breakers: HashMap::new(),
            definitions: HashMap::new(),
        }
    }

    /// Commands in flight at a service.
    pub fn in_flight(&mut self, service: &str, number: i64) {
        let gauge = cached(&mut self.in_flight, service, || gauge!(names::IN_FLIGHT, "service" => service.to_owned()));
        gauge.set(number as f64);
    }

    /// Where a service's breaker stands.
    pub fn breaker(&mut self, service: &str, state: &str) {
        let of = |state: &'static str| gauge!(names::BREAKERS, "service" => service.to_owned(), "state" => state);
        let gauges = cached(&mut self.breakers, service, || BREAKERS.map(of));
        for (name, gauge) in BREAKERS.iter().zip(gauges) {
            gauge.set(f64::from(u8::from(*name == state)));
        }
    }

    /// Counts the news of a saga, which are stored.
    pub fn tell(&mut self, row: &Row) {
        let definition = &row.saga.definition;
        let figures = cached(&mut self.definitions, definition, || OfDefinition::new(definition));
        for entry in &row.news {
            figures.count(definition, entry);
        }
        if row.saga.ended() && !row.news.is_empty() {
            let state = row.saga.state();
            let at = figures.ended.iter().position(|(known, _)| *known == state).unwrap_or_else(|| {
                let (definition, name) = (definition.clone(), state.name());
                let ended = counter!(names::SAGAS_ENDED, "definition" => definition, "state" => name);
                figures.ended.push((state, ended));
                figures.ended.len() - 1
            });
            figures.ended[at].1.increment(1);
        }
    }
}

impl OfDefinition {
    fn new(definition: &str) -> Self {
        let started = counter!(names::SAGAS_STARTED, "definition" => definition.to_owned());
        Self { started, ended: Vec::new(), steps: HashMap::new() }
    }

    fn count(&mut self, definition: &str, entry: &Entry) {
        if entry.what == What::Started {
            self.started.increment(1);
        }
        let (Some(step), Some(outcome)) = (entry.step.as_deref(), outcome(entry.what)) else { return };
        let figures = cached(&mut self.steps, step, OfStep::default);
        let labels = || [("definition", definition.to_owned()), ("step", step.to_owned())];
        let at = figures.outcomes.iter().position(|(known, _)| *known == entry.what).unwrap_or_else(|| {
            let [(_, definition), (_, step)] = labels();
            let counter = counter!(names::STEPS, "definition" => definition, "step" => step, "outcome" => outcome);
            figures.outcomes.push((entry.what, counter));
            figures.outcomes.len() - 1
        });
        figures.outcomes[at].1.increment(1);
        if let (What::Done | What::Rejected, Some(took)) = (entry.what, entry.duration) {
            let seconds = figures.seconds.get_or_insert_with(|| histogram!(names::STEP_SECONDS, &labels()));
            seconds.record(took as f64 / 1_000.0);
        }
    }
}

/// As a label, of what tells how steps go.
fn outcome(what: What) -> Option<&'static str> {
    Some(match what {
        What::Done => "done",
        What::Rejected => "rejected",
        What::Unknown => "unknown",
        What::Dead => "dead",
        What::Skipped => "skipped",
        What::TimedOut => "timed_out",
        What::Retrying => "retrying",
        What::Held => "held",
        What::Resent => "resent",
        What::Refused => "refused",
        What::Undone => "undone",
        What::UndoTimedOut => "undo_timed_out",
        What::UndoRetrying => "undo_retrying",
        What::UndoHeld => "undo_held",
        What::UndoGaveUp => "undo_gave_up",
        _ => return None,
    })
}

/// The value of a key, made where it is not there.
fn cached<'a, T>(map: &'a mut HashMap<String, T>, key: &str, make: impl FnOnce() -> T) -> &'a mut T {
    // Looked for first, since an entry would need a key of its own each time.
    if map.contains_key(key) {
        return map.get_mut(key).expect("it is there");
    }
    map.entry(key.to_owned()).or_insert_with(make)
}

/// Where all unfinished sagas stand, and the number of those that are marked. Looked at in slices, since a database that
/// counts a hundred thousand rows at once keeps a core from everybody else for a while.
async fn counted(pool: &PgPool) -> Result<(BTreeMap<journal::Standing, i64>, i64), sqlx::Error> {
    let (mut standings, mut slice) = (BTreeMap::new(), journal::Slice::next(pool, None, SLICE).await?);
    while let Some(part) = slice {
        let begun = Instant::now();
        for (standing, number) in journal::standings(pool, part).await? {
            *standings.entry(standing).or_default() += number;
        }
        slice = journal::Slice::next(pool, slice, SLICE).await?;
        if slice.is_some() {
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
    }
    Ok((standings, journal::marked(pool).await?))
}

async fn count_sagas(pool: PgPool, shutdown: CancellationToken) {
    let (mut told, marked) = (BTreeMap::<journal::Standing, Gauge>::new(), gauge!(names::SAGAS_ATTENTION));
    loop {
        match counted(&pool).await {
            Ok((standings, attention)) => {
                marked.set(attention as f64);
                for (standing, number) in &standings {
                    let [definition, state, step] = standing.clone();
                    let make = || gauge!(names::SAGAS, "definition" => definition, "state" => state, "step" => step);
                    told.entry(standing.clone()).or_insert_with(make).set(*number as f64);
                }
                let gone = told.iter().filter(|(standing, _)| !standings.contains_key(*standing));
                gone.for_each(|(_, gauge)| gauge.set(0.0));
            }
            Err(error) => tracing::debug!(%error, "sagas cannot be counted"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}
