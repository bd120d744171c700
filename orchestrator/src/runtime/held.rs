//! Sagas whose commands wait: for a breaker, or for room at their service.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::SagaId;

use super::admission::Room;

/// What of a saga waits for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    /// A step.
    Effect,
    /// An undo or a fence, which go first.
    Undo,
}

/// Held sagas in memory; after a crash they are found again by a scan of the unfinished ones.
#[derive(Debug, Default)]
pub struct Held {
    by_service: BTreeMap<String, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    undos: BTreeSet<SagaId>,
    effects: BTreeSet<SagaId>,
}

impl Held {
    /// Sets the services that a saga waits for.
    pub fn set(&mut self, saga: SagaId, services: BTreeMap<String, Waits>) {
        self.by_service.retain(|_, queue| {
            queue.undos.remove(&saga);
            queue.effects.remove(&saga);
            !(queue.undos.is_empty() && queue.effects.is_empty())
        });
        for (service, waits) in services {
            let queue = self.by_service.entry(service).or_default();
            match waits {
                Waits::Undo => queue.undos.insert(saga),
                Waits::Effect => queue.effects.insert(saga),
            };
        }
    }

    /// The saga that is next for a service.
    pub fn first(&self, service: &str) -> Option<SagaId> {
        let queue = self.by_service.get(service)?;
        queue.undos.first().or_else(|| queue.effects.first()).copied()
    }

    /// Takes as many sagas that wait for a service as there is room, undos first, oldest first.
    pub fn take(&mut self, service: &str, room: Room) -> Vec<SagaId> {
        let Some(queue) = self.by_service.get_mut(service) else { return Vec::new() };
        let mut taken = split_first(&mut queue.undos, room.undos);
        taken.extend(split_first(&mut queue.effects, room.effects.saturating_sub(taken.len())));
        taken
    }

    /// Number of waits.
    pub fn len(&self) -> usize {
        self.by_service.values().map(|queue| queue.undos.len() + queue.effects.len()).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn split_first(sagas: &mut BTreeSet<SagaId>, most: usize) -> Vec<SagaId> {
    let mut taken = Vec::new();
    while taken.len() < most
        && let Some(saga) = sagas.pop_first()
    {
        taken.push(saga);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(names: &[(&str, Waits)]) -> BTreeMap<String, Waits> {
        names.iter().map(|(name, waits)| ((*name).to_owned(), *waits)).collect()
    }

    const EFFECT: Waits = Waits::Effect;

    #[test]
    fn a_saga_waits_for_each_of_its_services_until_it_is_set_otherwise() {
        let (a, b) = (SagaId::fresh(), SagaId::fresh());
        let mut held = Held::default();
        held.set(a, waits(&[("bookings", EFFECT), ("payments", EFFECT)]));
        held.set(b, waits(&[("payments", EFFECT)]));
        assert_eq!((held.first("bookings"), held.len()), (Some(a), 3));
        held.set(a, waits(&[("bookings", EFFECT)]));
        assert_eq!(held.take("payments", Room { undos: 10, effects: 10 }), [b]);
        held.set(a, waits(&[]));
        assert!(held.is_empty());
    }

    #[test]
    fn undos_go_first_and_count_against_the_room_of_effects() {
        let ids: Vec<SagaId> = (0..5).map(|_| SagaId::fresh()).collect();
        let mut held = Held::default();
        for (n, id) in ids.iter().enumerate() {
            held.set(*id, waits(&[("payments", if n >= 3 { Waits::Undo } else { EFFECT })]));
        }
        assert_eq!(held.first("payments"), Some(ids[3]));
        assert_eq!(held.take("payments", Room { undos: 1, effects: 0 }), [ids[3]]);
        assert_eq!(held.take("payments", Room { undos: 3, effects: 2 }), [ids[4], ids[0]]);
        assert_eq!(held.take("payments", Room { undos: 3, effects: 3 }), [ids[1], ids[2]]);
    }
}
