//! Small worlds in all ways: every order of steps, with and without each mishap that is allowed. States that were seen
//! before are not gone on from.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::chaos::{Chaos, Kind};
use crate::faults::Planted;
use crate::invariants::Violation;
use crate::mind::hash;
use crate::run::{Outcome, Simulator};
use crate::scenario::Scenario;
use crate::store::Tables;
use crate::timeline::Timeline;
use crate::world::{Settings, Sim, World};

/// A small world.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    /// What is in it.
    pub name: &'static str,
    /// Bookings of the last ticket.
    pub bookings: u32,
    /// Mishaps, and how many of each.
    pub mishaps: &'static [(Kind, u32)],
    /// Whether the gateway sends webhooks.
    pub webhooks: bool,
}

/// A late answer of the payment gateway, while time passes for others.
const LATE: [(Kind, u32); 2] = [(Kind::LateAnswer, 1), (Kind::Pass, 1)];
const REPEAT: (Kind, u32) = (Kind::Repeat, 1);
const CRASH: (Kind, u32) = (Kind::Crash, 1);
const OPERATOR: (Kind, u32) = (Kind::Operator, 1);

const fn one(name: &'static str, mishaps: &'static [(Kind, u32)], webhooks: bool) -> Small {
    Small { name, bookings: 1, mishaps, webhooks }
}

const fn two(name: &'static str, mishaps: &'static [(Kind, u32)]) -> Small {
    Small { name, bookings: 2, mishaps, webhooks: false }
}

/// The worlds that are explored, the smaller ones first: with each mishap, one booking with each two of them, and one with all.
pub const WORLDS: [Small; 17] = [
    one("one booking, and nothing happens", &[], true),
    one("one booking, one repeat", &[REPEAT], true),
    one("one booking, one late answer", &LATE, true),
    one("one booking, one crash", &[CRASH], true),
    two("two bookings of the last ticket", &[]),
    two("two bookings, one late answer", &LATE),
    one("one booking, one repeat, one late answer", &[REPEAT, LATE[0], LATE[1]], false),
    two("two bookings, one repeat", &[REPEAT]),
    one("one booking, one crash, one late answer", &[CRASH, LATE[0], LATE[1]], false),
    one("one booking, one operator", &[OPERATOR], true),
    one("one booking, one crash, one repeat", &[CRASH, REPEAT], false),
    one("one booking, one late answer, one operator", &[LATE[0], LATE[1], OPERATOR], false),
    two("two bookings, one crash", &[CRASH]),
    one("one booking, one repeat, one operator", &[REPEAT, OPERATOR], false),
    two("two bookings, one operator", &[OPERATOR]),
    one("one booking, one crash, one operator", &[CRASH, OPERATOR], false),
    one("one booking, one of each", &[REPEAT, CRASH, OPERATOR, LATE[0], LATE[1]], false),
];

/// What an exploration has seen.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Ways that were begun.
    pub ways: u64,
    /// Whether all ways were gone.
    pub complete: bool,
    /// The first broken invariant, with its story.
    pub broken: Option<(Violation, Timeline)>,
}

/// Explores a world on all processors, beginning at most so many ways; with a fault that is to be found, where there is one.
pub fn explore(simulator: &Simulator, world: &Small, fault: Option<Planted>, most: u64) -> Explored {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let search = Search {
        simulator,
        world,
        fault,
        most,
        seen: Mutex::default(),
        front: Mutex::new(Front::default()),
        news: Condvar::new(),
    };
    let work = || Planted::during(fault, || search.work());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (states, front) = (owned(search.seen).len(), owned(search.front));
    let complete = front.broken.is_none() && front.branches.is_empty();
    let broken = front.broken.map(|(violation, decisions)| {
        let told = Planted::during(fault, || world.go(simulator, fault, decisions, true, |_, _| true).story);
        (violation, told)
    });
    Explored { states, ways: front.ways, complete, broken }
}

/// A search that several threads make.
struct Search<'a> {
    /// The same one for all: what it seals tells its states apart.
    simulator: &'a Simulator,
    world: &'a Small,
    fault: Option<Planted>,
    most: u64,
    /// Hashes of the states.
    seen: Mutex<HashSet<u64>>,
    front: Mutex<Front>,
    /// There are new branches, or there will be none.
    news: Condvar,
}

/// Where the search stands.
struct Front {
    branches: Vec<Branch>,
    ways: u64,
    /// Ways that are being gone, which may leave branches.
    under_way: u32,
    /// The first broken invariant, with its decisions.
    broken: Option<(Violation, Vec<u32>)>,
}

impl Default for Front {
    /// Before the first way.
    fn default() -> Self {
        Self { branches: vec![Branch::default()], ways: 0, under_way: 0, broken: None }
    }
}

/// A way that is to be gone: its decisions up to where it parts from one that was gone.
#[derive(Default)]
struct Branch {
    decisions: Vec<u32>,
    /// The hash of the tables on that way after so many changes: up to the parting it is the same here.
    tables: Arc<Vec<u64>>,
}

impl Search<'_> {
    fn work(&self) {
        while let Some(branch) = self.next() {
            let _under_way = UnderWay(self);
            let parting = branch.decisions.len();
            let (outcome, tables) = self.follow(branch);
            let (mut front, tables) = (locked(&self.front), Arc::new(tables));
            if let Some(violation) = outcome.violation {
                let decisions = outcome.made.iter().map(|made| made.value).collect();
                front.broken.get_or_insert((violation, decisions));
            }
            for (at, made) in outcome.made.iter().enumerate().skip(parting) {
                for other in made.value + 1..made.of {
                    let decisions = outcome.made[..at].iter().map(|made| made.value).chain([other]).collect();
                    front.branches.push(Branch { decisions, tables: Arc::clone(&tables) });
                }
            }
        }
    }

    /// The next branch; none where all ways were gone, as many as there may be were begun, or something is broken.
    fn next(&self) -> Option<Branch> {
        let mut front = locked(&self.front);
        loop {
            if front.broken.is_some() || front.ways == self.most {
                return None;
            }
            if let Some(branch) = front.branches.pop() {
                (front.ways, front.under_way) = (front.ways + 1, front.under_way + 1);
                return Some(branch);
            }
            if front.under_way == 0 {
                return None;
            }
            front = self.news.wait(front).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Goes a way up to its end, or to a state behind its parting that was seen before. Tells the hashes of its tables, as
    /// [`Branch`] keeps them.
    fn follow(&self, Branch { decisions, tables: known }: Branch) -> (Outcome, Vec<u64>) {
        let (parting, mut tables) = (decisions.len(), Vec::new());
        let mut messages = (u64::MAX, 0);
        let outcome = self.world.go(self.simulator, self.fault, decisions, false, |sim, made| {
            let now = sim.store.borrow().tables.changes();
            if now >= tables.len() {
                let same = known.get(now).filter(|_| made < parting);
                tables.resize(now + 1, same.copied().unwrap_or_else(|| sim.hash_of_tables()));
            }
            sim.mind.set_tables(tables[now]);
            // On the way to where this way parts from the others everything is known.
            if made < parting {
                return true;
            }
            let changes = sim.broker.borrow().changes;
            if messages.0 != changes {
                messages = (changes, hash(format_args!("{:?}", sim.broker.borrow().shown())));
            }
            let state = sim.fingerprint(messages.1);
            locked(&self.seen).insert(state)
        });
        (outcome, tables)
    }
}

/// A way that is being gone, and has left its branches when this is dropped.
struct UnderWay<'a>(&'a Search<'a>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut front = locked(&self.0.front);
        front.under_way -= 1;
        if std::thread::panicking() {
            front.branches.clear(); // nobody waits for what this thread owes
        }
        self.0.news.notify_all();
    }
}

impl Small {
    /// Goes a way; `look` sees the world and the number of decisions before each step, and may end it.
    fn go(
        &self,
        simulator: &Simulator,
        fault: Option<Planted>,
        decisions: Vec<u32>,
        tells: bool,
        mut look: impl FnMut(&Sim, usize) -> bool,
    ) -> Outcome {
        let (scenario, chaos) = (Scenario::small(self.bookings, self.webhooks), Chaos::only(self.mishaps));
        let settings = Settings { is_fine: false, tells, flaw: fault.and_then(Planted::flaw) };
        simulator.small(scenario, chaos, settings, decisions, |sim: &Sim| look(sim, sim.decisions()))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn owned<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Of what is committed.
    fn hash_of_tables(&self) -> u64 {
        let store = self.store.borrow();
        let Tables {
            sagas,
            requests,
            counts,
            breakers,
            holds,
            events,
            offers,
            fences,
            seats,
            charges,
            payers,
            starts,
            watches,
            webhooks,
            deliveries,
        } = &*store.tables;
        let journal: Vec<_> = sagas.values().map(|j| (&j.row.saga, j.row.version, j.dispatcher, &j.history)).collect();
        let of_sagas = (journal, requests, counts, breakers);
        let of_bookings = (holds, events, offers, fences, seats);
        let of_payments = (charges, payers, starts, watches, webhooks);
        hash(format_args!("{of_sagas:?}{of_bookings:?}{of_payments:?}{deliveries:?}"))
    }

    /// Of all that decides how the world goes on, and of what the invariants know of its past; `messages` is of those that
    /// are stored.
    fn fingerprint(&self, messages: u64) -> u64 {
        let mut tasks = self.tasks.shown();
        tasks.sort();
        let (store, gateway) = (self.store.borrow(), self.gateway.borrow());
        let stored = (self.mind.tables(), &store.locks, messages);
        let (intents, refunds): (Vec<_>, Vec<_>) = (gateway.intents().collect(), gateway.refunds().collect());
        let money = (intents, refunds, gateway.next_due(), gateway.keys());
        let memory = (self.processes.borrow(), self.replicas.borrow(), self.driven.borrow(), self.victim.get());
        let rest = (self.now(), self.chaos.borrow().left, self.is_calm(), self.knowledge.borrow());
        hash(format_args!("{tasks:?}{stored:?}{money:?}{memory:?}{rest:?}"))
    }
}
