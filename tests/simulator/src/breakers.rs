//! A replica's view of the breakers, as the runtime keeps it, over the simulated table. They trip sooner than the
//! platform's, since worlds are small.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::{SagaId, Timestamp};
use eventicket_orchestrator::sagas::Catalogue;
use eventicket_saga::breaker::{Breaker, Counts, Mode, Policy, State};

use crate::processes::ProcessId;
use crate::store::StoredBreaker;
use crate::world::{Sim, World};

/// Failures that open a breaker here.
pub(crate) const FAILURES: u32 = 2;

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    version: i64,
    counts: Counts,
}

/// A replica's view of all breakers.
#[derive(Debug)]
pub(crate) struct Breakers {
    policies: BTreeMap<String, Policy>,
    known: BTreeMap<String, Known>,
    closed: BTreeSet<String>,
}

impl Breakers {
    pub fn new(catalogue: &Catalogue) -> Self {
        let mut policies: BTreeMap<String, Policy> = BTreeMap::new();
        for definition in catalogue.registry.iter() {
            for command in (0..definition.steps.len()).filter_map(|at| definition.command(at)) {
                let timeout = i64::try_from(command.timeout.as_millis()).unwrap_or(i64::MAX);
                for call in std::iter::once(&command.call).chain(&command.undo) {
                    let fresh = Policy { lease: 0, failures: FAILURES, window: 60_000, ..Policy::default() };
                    let policy = policies.entry(call.service.clone()).or_insert(fresh);
                    policy.lease = policy.lease.max(timeout);
                }
            }
        }
        Self { policies, known: BTreeMap::new(), closed: BTreeSet::new() }
    }

    /// Services that nothing is sent to now.
    pub fn closed(&self) -> &BTreeSet<String> {
        &self.closed
    }

    /// When an open breaker lets a probe through; `None` where it is closed. By the table, which a look reads.
    pub fn opens(&self, sim: &Sim, service: &str) -> Option<i64> {
        let store = sim.store.borrow();
        let stored = store.tables.breakers.get(service)?;
        (!stored.breaker.passes()).then(|| stored.breaker.until().unwrap_or(i64::MAX))
    }

    /// Takes over what other replicas and operators have stored.
    pub fn refresh(&mut self, sim: &Sim) {
        for (service, stored) in &sim.store.borrow().tables.breakers {
            let known = self.known.entry(service.clone()).or_default();
            if stored.version > known.version {
                *known = Known { breaker: stored.breaker, version: stored.version, counts: Counts::default() };
            }
        }
        self.recount();
    }

    /// Counts a turn's answers and stores each change of state.
    pub fn record(&mut self, sim: &Sim, me: ProcessId, calls: &[(SagaId, String, bool)], now: Timestamp) {
        for (_, service, failed) in calls {
            let policy = self.policies.get(service).cloned().unwrap_or_default();
            let known = self.known.entry(service.clone()).or_default();
            let next = known.breaker.answered(&policy, &mut known.counts, *failed, now.millis());
            if next != known.breaker {
                sim.tell(Some(me), || format!("the breaker of {service} is {}", next.shown()));
                sim.breaker_moved(service, known.breaker, next);
                self.store(sim, service, next);
            }
        }
    }

    /// Claims the probe of an open breaker.
    pub fn claim(&mut self, sim: &Sim, service: &str, now: Timestamp) -> bool {
        let policy = self.policies.get(service).cloned().unwrap_or_default();
        let next = self.known.get(service).and_then(|known| known.breaker.claim(&policy, now.millis()));
        next.is_some_and(|next| self.store(sim, service, next))
    }

    /// Gives back a probe that sent nothing.
    pub fn give_back(&mut self, sim: &Sim, service: &str, now: Timestamp) {
        let known = self.known.get(service).map(|known| known.breaker);
        if let Some(breaker) = known.filter(|b| b.until().is_some() && matches!(b.state, State::HalfOpen(_))) {
            self.store(sim, service, Breaker { state: State::Open(now.millis()), ..breaker });
        }
    }

    fn store(&mut self, sim: &Sim, service: &str, next: Breaker) -> bool {
        let known = self.known.entry(service.to_owned()).or_default();
        let mut store = sim.store.borrow_mut();
        let row = store.tables.breakers.entry(service.to_owned());
        let row = row.or_insert(StoredBreaker { breaker: Breaker::default(), version: 0 });
        let first = row.version == known.version;
        if first {
            *row = StoredBreaker { breaker: next, version: known.version + 1 };
            known.version += 1;
            known.breaker = next;
        }
        drop(store);
        self.recount();
        sim.wake_who_holds();
        first
    }

    fn recount(&mut self) {
        let shut = self.known.iter().filter(|(_, known)| !known.breaker.passes());
        self.closed = shut.map(|(service, _)| service.clone()).collect();
    }
}

impl World {
    /// An operator sets a breaker, for all replicas.
    pub fn set_breaker(&self, service: &str, mode: Mode) {
        let mut store = self.store.borrow_mut();
        let version = store.tables.breakers.get(service).map_or(0, |stored| stored.version);
        let row = StoredBreaker { breaker: Breaker::set(mode), version: version + 1 };
        store.tables.breakers.insert(service.to_owned(), row);
        drop(store);
        self.wake_who_holds();
    }
}
