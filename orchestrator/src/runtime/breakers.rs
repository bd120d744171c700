//! Breakers by target service: counted in memory, their state stored and shared.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::Timestamp;
use eventicket_saga::breaker::{Counts, Policy, State};
use sqlx::PgPool;

use super::journal;

/// This replica's view of all breakers.
#[derive(Default)]
pub struct Breakers {
    policy: Policy,
    known: BTreeMap<String, Known>,
    closed: BTreeSet<String>,
}

#[derive(Default)]
struct Known {
    state: State,
    version: i64,
    counts: Counts,
}

impl Breakers {
    /// Services that nothing is sent to now.
    pub fn closed(&self) -> &BTreeSet<String> {
        &self.closed
    }

    /// Takes over what other replicas have stored.
    pub async fn refresh(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        for (service, state, version) in journal::breakers(pool).await? {
            let known = self.known.entry(service).or_default();
            if version > known.version {
                known.version = version;
                known.state = serde_json::from_str(&state).unwrap_or_default();
            }
        }
        self.recount();
        Ok(())
    }

    /// Counts a turn's answers and stores each change of state.
    pub async fn record(&mut self, pool: &PgPool, calls: &[(String, bool)], now: Timestamp) -> Result<(), sqlx::Error> {
        for (service, failed) in calls {
            let policy = self.policy.clone();
            let known = self.known.entry(service.clone()).or_default();
            let next = known.state.answered(&policy, &mut known.counts, *failed, now.millis());
            if next != known.state {
                self.store(pool, service, next, now).await?;
            }
        }
        Ok(())
    }

    /// Claims the probe of an open breaker; true where this replica may send one command to the service.
    pub async fn claim(&mut self, pool: &PgPool, service: &str, now: Timestamp) -> Result<bool, sqlx::Error> {
        let Some(next) = self.known.get(service).and_then(|k| k.state.claim(&self.policy, now.millis())) else {
            return Ok(false);
        };
        self.store(pool, service, next, now).await
    }

    async fn store(&mut self, pool: &PgPool, service: &str, next: State, now: Timestamp) -> Result<bool, sqlx::Error> {
        let known = self.known.entry(service.to_owned()).or_default();
        let text = serde_json::to_string(&next).unwrap_or_default();
        let first = journal::set_breaker(pool, service, &text, known.version, now).await?;
        if first {
            tracing::warn!(service, from = ?known.state, to = ?next, "breaker");
            known.version += 1;
            known.state = next;
        }
        self.recount();
        Ok(first)
    }

    fn recount(&mut self) {
        self.closed = self.known.iter().filter(|(_, k)| !k.state.passes()).map(|(s, _)| s.clone()).collect();
    }
}
