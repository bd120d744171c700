//! Sagas that wait for a breaker, by the service whose commands are held.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::SagaId;

/// Held sagas in memory; after a crash they are found again by a scan of the unfinished ones.
#[derive(Debug, Default)]
pub struct Held {
    by_service: BTreeMap<String, BTreeSet<SagaId>>,
}

impl Held {
    /// Sets the services that a saga waits for.
    pub fn set(&mut self, saga: SagaId, services: BTreeSet<String>) {
        self.by_service.retain(|service, sagas| {
            if !services.contains(service) {
                sagas.remove(&saga);
            }
            !sagas.is_empty()
        });
        for service in services {
            self.by_service.entry(service).or_default().insert(saga);
        }
    }

    /// The oldest saga that waits for a service.
    pub fn first(&self, service: &str) -> Option<SagaId> {
        self.by_service.get(service)?.first().copied()
    }

    /// Takes at most `most` sagas that wait for a service, oldest first.
    pub fn take(&mut self, service: &str, most: usize) -> Vec<SagaId> {
        let Some(sagas) = self.by_service.get_mut(service) else { return Vec::new() };
        let taken: Vec<SagaId> = sagas.iter().take(most).copied().collect();
        for saga in &taken {
            sagas.remove(saga);
        }
        taken
    }

    /// Number of waits.
    pub fn len(&self) -> usize {
        self.by_service.values().map(BTreeSet::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_waits_for_each_of_its_services_until_it_is_set_otherwise() {
        let (a, b) = (SagaId::fresh(), SagaId::fresh());
        let services = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let mut held = Held::default();
        held.set(a, services(&["bookings", "payments"]));
        held.set(b, services(&["payments"]));
        assert_eq!((held.first("bookings"), held.len()), (Some(a), 3));
        held.set(a, services(&["bookings"]));
        assert_eq!(held.take("payments", 10), [b]);
        held.set(a, services(&[]));
        assert!(held.is_empty());
    }
}
