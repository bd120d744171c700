//! Small worlds in all ways: every order of steps, with and without each mishap that is allowed. States that were seen
//! before are not gone on from.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::chaos::{Chaos, Kind};
use crate::invariants::Violation;
use crate::run::{Outcome, Simulator};
use crate::scenario::Scenario;
use crate::timeline::Timeline;
use crate::world::{Sim, World};

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

const fn one(name: &'static str, mishaps: &'static [(Kind, u32)], webhooks: bool) -> Small {
    Small { name, bookings: 1, mishaps, webhooks }
}

const fn two(name: &'static str, mishaps: &'static [(Kind, u32)]) -> Small {
    Small { name, bookings: 2, mishaps, webhooks: false }
}

/// The worlds that are explored, the smaller ones first.
pub const WORLDS: [Small; 14] = [
    one("one booking, and nothing happens", &[], true),
    one("one booking, one repeat", &[(Kind::Repeat, 1)], true),
    one("one booking, one late answer", &LATE, true),
    one("one booking, one action of an operator", &[(Kind::Operator, 1)], true),
    two("two bookings of the last ticket", &[]),
    two("two bookings, one late answer", &LATE),
    two("two bookings, one repeat", &[(Kind::Repeat, 1)]),
    one("one booking, one crash", &[(Kind::Crash, 1)], false),
    one("one booking, one repeat, one late answer", &[(Kind::Repeat, 1), LATE[0], LATE[1]], false),
    one("one booking, one repeat, one operator", &[(Kind::Repeat, 1), (Kind::Operator, 1)], false),
    one("one booking, one crash, one repeat", &[(Kind::Crash, 1), (Kind::Repeat, 1)], false),
    two("two bookings, one action of an operator", &[(Kind::Operator, 1)]),
    two("two bookings, one crash", &[(Kind::Crash, 1)]),
    one(
        "one booking, one of each",
        &[(Kind::Repeat, 1), (Kind::Crash, 1), (Kind::Operator, 1), LATE[0], LATE[1]],
        false,
    ),
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

/// Explores a world, beginning at most so many ways.
pub fn explore(simulator: &Simulator, world: &Small, most: u64) -> Explored {
    let seen = RefCell::new(HashSet::new());
    let mut way: Option<Vec<u32>> = Some(Vec::new());
    let mut ways = 0;
    while let Some(given) = way.take().filter(|_| ways < most) {
        ways += 1;
        let outcome = go(simulator, world, given.clone(), false, &seen);
        if let Some(violation) = outcome.violation {
            let values = outcome.made.iter().map(|made| made.value).collect();
            let told = go(simulator, world, values, true, &RefCell::default()).story;
            return Explored { states: seen.borrow().len(), ways, complete: false, broken: Some((violation, told)) };
        }
        let made = outcome.made;
        way = (0..made.len()).rev().find(|at| made[*at].value + 1 < made[*at].of).map(|at| {
            let mut next: Vec<u32> = made[..at].iter().map(|made| made.value).collect();
            next.push(made[at].value + 1);
            next
        });
        if way.is_none() {
            return Explored { states: seen.borrow().len(), ways, complete: true, broken: None };
        }
    }
    Explored { states: seen.into_inner().len(), ways, complete: false, broken: None }
}

fn go(simulator: &Simulator, world: &Small, given: Vec<u32>, tells: bool, seen: &RefCell<HashSet<u64>>) -> Outcome {
    let (scenario, chaos) = (Scenario::small(world.bookings, world.webhooks), Chaos::only(world.mishaps));
    let known = given.len();
    let (tables, messages) = (Cell::new((u64::MAX, 0)), Cell::new((u64::MAX, 0)));
    simulator.small(scenario, chaos, given, tells, |sim: &Sim| {
        let (commits, changes) = (sim.commits.get(), sim.broker.borrow().changes);
        if tables.get().0 != commits {
            tables.set((commits, sim.hash_of_tables()));
        }
        if messages.get().0 != changes {
            messages.set((changes, hash(&sim.broker.borrow().shown())));
        }
        sim.seen.set(tables.get().1);
        // On the way to where this way parts from the others everything is known.
        tells || sim.decisions() < known || seen.borrow_mut().insert(hash(&(sim.fingerprint(), messages.get().1)))
    })
}

impl World {
    /// Of what is committed.
    fn hash_of_tables(&self) -> u64 {
        let store = self.store.borrow();
        let t = &store.tables;
        let mut text = String::new();
        let sagas: Vec<_> = t.sagas.values().map(|j| (&j.row.saga, j.row.version, j.dispatcher)).collect();
        let _ = write!(text, "{sagas:?}{:?}{:?}{:?}{:?}", t.counts, t.breakers, t.holds, t.events);
        let _ = write!(text, "{:?}{:?}{:?}{:?}", t.offers, t.fences, t.seats, t.charges);
        let _ = write!(text, "{:?}{:?}{:?}{:?}{:?}", t.payers, t.starts, t.watches, t.webhooks, t.deliveries);
        hash(&text)
    }

    /// Of all that decides how the world goes on.
    fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        let mut tasks: Vec<_> = self.tasks.shown();
        tasks.sort();
        let gateway = self.gateway.borrow();
        let (intents, refunds): (Vec<_>, Vec<_>) = (gateway.intents().collect(), gateway.refunds().collect());
        let _ = write!(text, "{}{:?}{tasks:?}{}", self.now(), self.seen.get(), self.broker.borrow().down_until);
        let _ = write!(text, "{intents:?}{refunds:?}{:?}{:?}", gateway.next_due(), self.processes.borrow());
        let _ = write!(text, "{:?}{}", self.chaos.borrow().left, self.is_calm());
        hash(&text)
    }
}

fn hash(text: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
