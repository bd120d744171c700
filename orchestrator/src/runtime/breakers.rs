//! Breakers by target service: counted in memory, their state stored and shared.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::{SagaId, Timestamp};
use eventicket_saga::breaker::{Breaker, Counts, Policy, State};
use sqlx::PgPool;

use super::journal;
use crate::sagas::Catalogue;

/// This replica's view of all breakers.
#[derive(Default)]
pub struct Breakers {
    policies: BTreeMap<String, Policy>,
    known: BTreeMap<String, Known>,
    closed: BTreeSet<String>,
}

#[derive(Default)]
struct Known {
    breaker: Breaker,
    version: i64,
    counts: Counts,
}

impl Breakers {
    /// Breakers of all services that sagas call. A probe's lease is the longest that an attempt at the service may take.
    pub fn new(catalogue: &Catalogue) -> Self {
        let mut leases: BTreeMap<String, i64> = BTreeMap::new();
        for definition in catalogue.registry.iter() {
            for command in (0..definition.steps.len()).filter_map(|at| definition.command(at)) {
                let timeout = i64::try_from(command.timeout.as_millis()).unwrap_or(i64::MAX);
                for call in std::iter::once(&command.call).chain(&command.undo) {
                    let lease = leases.entry(call.service.clone()).or_default();
                    *lease = timeout.max(*lease);
                }
            }
        }
        let policy = |(service, lease)| (service, Policy { lease, ..Policy::default() });
        Self { policies: leases.into_iter().map(policy).collect(), ..Self::default() }
    }

    /// Services that nothing is sent to now.
    pub fn closed(&self) -> &BTreeSet<String> {
        &self.closed
    }

    /// Where a service's breaker stands, for those who watch.
    pub fn state(&self, service: &str) -> &'static str {
        let known = self.known.get(service).map(|known| known.breaker).unwrap_or_default();
        match known.state {
            State::Closed if known.passes() => "closed",
            State::HalfOpen(_) => "half_open",
            _ => "open",
        }
    }

    /// Takes over what other replicas and operators have stored.
    pub async fn refresh(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        for stored in journal::breakers(pool).await? {
            let known = self.known.entry(stored.service).or_default();
            if stored.version > known.version {
                *known = Known { breaker: stored.breaker, version: stored.version, counts: Counts::default() };
            }
        }
        self.recount();
        Ok(())
    }

    /// Counts a turn's answers and stores each change of state.
    pub async fn record(
        &mut self,
        pool: &PgPool,
        calls: &[(SagaId, String, bool)],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        for (_, service, failed) in calls {
            let policy = self.policies.get(service).cloned().unwrap_or_default();
            let known = self.known.entry(service.clone()).or_default();
            let next = known.breaker.answered(&policy, &mut known.counts, *failed, now.millis());
            if next != known.breaker {
                self.store(pool, service, next, now).await?;
            }
        }
        Ok(())
    }

    /// Claims the probe of an open breaker; true where this replica may send one command to the service.
    pub async fn claim(&mut self, pool: &PgPool, service: &str, now: Timestamp) -> Result<bool, sqlx::Error> {
        let policy = self.policies.get(service).cloned().unwrap_or_default();
        let Some(next) = self.known.get(service).and_then(|k| k.breaker.claim(&policy, now.millis())) else {
            return Ok(false);
        };
        self.store(pool, service, next, now).await
    }

    /// Gives back a probe that sent nothing: another saga may be the probe at once.
    pub async fn give_back(&mut self, pool: &PgPool, service: &str, now: Timestamp) -> Result<(), sqlx::Error> {
        if let Some(breaker) = self.known.get(service).map(|k| k.breaker)
            && breaker.until().is_some()
            && matches!(breaker.state, State::HalfOpen(_))
        {
            self.store(pool, service, Breaker { state: State::Open(now.millis()), ..breaker }, now).await?;
        }
        Ok(())
    }

    async fn store(
        &mut self,
        pool: &PgPool,
        service: &str,
        next: Breaker,
        now: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        let known = self.known.entry(service.to_owned()).or_default();
        let first = journal::set_breaker(pool, service, next, known.version, now).await?;
        if first {
            tracing::warn!(service, from = ?known.breaker.state, to = ?next.state, "breaker");
            known.version += 1;
            known.breaker = next;
        }
        self.recount();
        Ok(first)
    }

    fn recount(&mut self) {
        self.closed = self.known.iter().filter(|(_, k)| !k.breaker.passes()).map(|(s, _)| s.clone()).collect();
    }
}
