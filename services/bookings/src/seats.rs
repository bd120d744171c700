//! The numbered seats of an event, as far as a batch needs them: who has which, and which are free, in the plan's order.

use std::collections::{BTreeMap, HashMap};

use eventicket_contracts::TicketTypeId;
use eventicket_contracts::bookings::OfferedType;
use eventicket_contracts::envelope::Key;

/// Longest label in bytes, far below what an index of the store can hold.
pub(crate) const LABEL: usize = 256;

/// A seat of a numbered type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seat {
    pub kind: TicketTypeId,
    /// In the plan of its type, from 0.
    pub position: u32,
    /// The hold that has it, held or confirmed.
    pub holder: Option<Key>,
}

/// The seats that were read, and what became of them since.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seats {
    known: HashMap<String, Seat>,
    /// The known ones that nobody has.
    free: BTreeMap<(TicketTypeId, u32), String>,
    /// Of types whose free seats were read from the first one on: where the last one is.
    read_to: HashMap<TicketTypeId, u32>,
    /// Those that changed, as they were read; none for one that is new.
    before: BTreeMap<String, Option<Seat>>,
}

/// What became of one seat.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeatChange {
    /// It is no longer in the plan.
    pub removed: bool,
    /// It is new there, or elsewhere.
    pub placed: Option<(TicketTypeId, u32)>,
    /// The hold that had it no longer has it.
    pub given_back: bool,
    /// This hold has it now.
    pub taken: Option<Key>,
}

/// Whether a text can be a seat's label at all; nothing else is looked for.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= LABEL && !text.contains('\0')
}

impl Seats {
    /// Adds a seat as it was read.
    pub fn add(&mut self, label: String, seat: Seat) {
        if seat.holder.is_none() {
            self.free.insert((seat.kind, seat.position), label.clone());
        }
        self.known.insert(label, seat);
    }

    /// All free seats of a type up to this position are among the known ones.
    pub fn read_to(&mut self, kind: TicketTypeId, position: u32) {
        let to = self.read_to.entry(kind).or_default();
        *to = position.max(*to);
    }

    /// Before which position all seats of a type are taken, where `known` was such a one when they were read.
    pub fn free_from(&self, kind: TicketTypeId, known: u32) -> u32 {
        let first = self.free.range((kind, 0)..=(kind, u32::MAX)).next().map(|((_, position), _)| *position);
        let unread = self.read_to.get(&kind).map_or(known, |to| to.saturating_add(1));
        first.map_or(unread, |first| first.min(unread))
    }

    pub fn find(&self, label: &str) -> Option<&Seat> {
        self.known.get(label)
    }

    /// The first free seats of a type: neighbours in the plan where there are as many, else wherever they are.
    pub fn choose(&self, kind: TicketTypeId, quantity: u32) -> Option<Vec<String>> {
        let wanted = usize::try_from(quantity).ok()?;
        let free = || self.free.range((kind, 0)..=(kind, u32::MAX));
        let mut neighbours: Vec<&String> = Vec::new();
        let mut next = None;
        for ((_, position), label) in free() {
            if next != Some(*position) {
                neighbours.clear();
            }
            neighbours.push(label);
            if neighbours.len() == wanted {
                return Some(neighbours.into_iter().cloned().collect());
            }
            next = position.checked_add(1);
        }
        let scattered: Vec<String> = free().take(wanted).map(|(_, label)| label.clone()).collect();
        (scattered.len() == wanted).then_some(scattered)
    }

    /// Gives a free seat to a hold.
    pub fn take(&mut self, label: &str, holder: &Key) {
        let seat = self.known.get(label).cloned();
        debug_assert!(seat.as_ref().is_some_and(|seat| seat.holder.is_none()), "a seat that is taken is free");
        if let Some(seat) = seat {
            self.set(label, Some(Seat { holder: Some(holder.clone()), ..seat }));
        }
    }

    /// Takes a seat back from its hold.
    pub fn give_back(&mut self, label: &str, holder: &Key) {
        let seat = self.known.get(label).filter(|seat| seat.holder.as_ref() == Some(holder)).cloned();
        debug_assert!(seat.is_some(), "a hold gives back seats that it has");
        if let Some(seat) = seat {
            self.set(label, Some(Seat { holder: None, ..seat }));
        }
    }

    /// A seat that somebody has and that another plan would take away. The whole plan is known.
    pub fn missing_in(&self, types: &[OfferedType]) -> Option<&str> {
        let planned = places(types);
        let stays = |label: &str, seat: &Seat| planned.get(label).is_some_and(|(kind, _)| *kind == seat.kind);
        let mut taken = self.known.iter().filter(|(_, seat)| seat.holder.is_some());
        taken.find(|(label, seat)| !stays(label, seat)).map(|(label, _)| label.as_str())
    }

    /// Puts another plan in place of the one that is known whole; whoever has a seat keeps it.
    pub fn replace(&mut self, types: &[OfferedType]) {
        let planned = places(types);
        let gone: Vec<String> =
            self.known.keys().filter(|label| !planned.contains_key(label.as_str())).cloned().collect();
        gone.iter().for_each(|label| self.set(label, None));
        for (label, (kind, position)) in planned {
            let known = self.known.get(label);
            if known.is_none_or(|seat| (seat.kind, seat.position) != (kind, position)) {
                let holder = known.and_then(|seat| seat.holder.clone());
                self.set(label, Some(Seat { kind, position, holder }));
            }
        }
    }

    fn set(&mut self, label: &str, now: Option<Seat>) {
        let was = self.known.remove(label);
        if let Some(was) = &was {
            let place = (was.kind, was.position);
            // Another seat may have been put there before this one leaves.
            if self.free.get(&place).is_some_and(|there| there == label) {
                self.free.remove(&place);
            }
        }
        self.before.entry(label.to_owned()).or_insert(was);
        if let Some(seat) = now {
            self.add(label.to_owned(), seat);
        }
    }

    /// What has to be written, by label.
    pub fn changes(&self) -> impl Iterator<Item = (&str, SeatChange)> {
        self.before.iter().filter_map(|(label, before)| {
            let now = self.known.get(label);
            let place = |seat: &Seat| (seat.kind, seat.position);
            let holder = |seat: Option<&Seat>| seat.and_then(|seat| seat.holder.clone());
            let (had, has) = (holder(before.as_ref()), holder(now));
            let change = SeatChange {
                removed: before.is_some() && now.is_none(),
                placed: now.map(place).filter(|there| before.as_ref().map(place) != Some(*there)),
                given_back: had.is_some() && had != has,
                taken: has.filter(|has| had.as_ref() != Some(has)),
            };
            (change != SeatChange::default()).then_some((label.as_str(), change))
        })
    }
}

/// Where each seat of a plan is.
fn places(types: &[OfferedType]) -> HashMap<&str, (TicketTypeId, u32)> {
    let mut places = HashMap::new();
    for new in types {
        places.extend((0..).zip(&new.seats).map(|(position, label)| (label.as_str(), (new.id, position))));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::{Currency, Money, SagaId};

    fn plan(kind: TicketTypeId, labels: &[&str]) -> OfferedType {
        let seats: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let quantity = u32::try_from(seats.len()).unwrap();
        let price = Money { amount: 1, currency: Currency::EUR };
        OfferedType { id: kind, name: "Stalls".into(), price, quantity, max_per_order: None, seats }
    }

    fn seats(kind: TicketTypeId, labels: &[&str]) -> Seats {
        let mut seats = Seats::default();
        for (position, label) in (0..).zip(labels) {
            seats.add((*label).to_owned(), Seat { kind, position, holder: None });
        }
        seats
    }

    fn holder(round: u32) -> Key {
        Key { saga: SagaId(uuid::Uuid::nil()), step: "RESERVE".into(), round }
    }

    #[test]
    fn neighbours_are_preferred_to_the_first() {
        let kind = TicketTypeId::fresh();
        let mut seats = seats(kind, &["A", "B", "C", "D", "E", "F"]);
        let chosen = |seats: &Seats, n| seats.choose(kind, n).map(|labels| labels.concat());
        assert_eq!(chosen(&seats, 2).as_deref(), Some("AB"));
        seats.take("B", &holder(1));
        assert_eq!(chosen(&seats, 1).as_deref(), Some("A"));
        assert_eq!(chosen(&seats, 2).as_deref(), Some("CD"));
        assert_eq!(chosen(&seats, 5).as_deref(), Some("ACDEF"));
        assert_eq!(chosen(&seats, 6), None);
        assert_eq!(seats.choose(TicketTypeId::fresh(), 1), None);
        seats.give_back("B", &holder(1));
        assert_eq!(chosen(&seats, 6).as_deref(), Some("ABCDEF"));
    }

    #[test]
    fn the_first_free_position_follows_what_is_taken_as_far_as_it_is_known() {
        let kind = TicketTypeId::fresh();
        let mut seats = seats(kind, &["A", "B"]);
        seats.add("Z".into(), Seat { kind, position: 9, holder: None });
        assert_eq!(seats.free_from(kind, 0), 0);
        seats.take("A", &holder(1));
        assert_eq!(seats.free_from(kind, 0), 0, "what is not read may be free");
        seats.read_to(kind, 1);
        assert_eq!(seats.free_from(kind, 0), 1);
        seats.take("B", &holder(1));
        assert_eq!(seats.free_from(kind, 0), 2, "Z is not the next one");
        seats.give_back("A", &holder(1));
        assert_eq!(seats.free_from(kind, 0), 0);
        assert_eq!(seats.free_from(TicketTypeId::fresh(), 7), 7);
    }

    #[test]
    fn only_what_differs_in_the_end_is_written() {
        let kind = TicketTypeId::fresh();
        let mut seats = seats(kind, &["A", "B"]);
        seats.take("A", &holder(1));
        seats.give_back("A", &holder(1));
        assert_eq!(seats.changes().count(), 0);

        seats.take("A", &holder(2));
        let taken = SeatChange { taken: Some(holder(2)), ..SeatChange::default() };
        assert_eq!(seats.changes().collect::<Vec<_>>(), [("A", taken)]);

        let mut seats = Seats::default();
        seats.add("A".into(), Seat { kind, position: 0, holder: Some(holder(1)) });
        seats.give_back("A", &holder(1));
        seats.take("A", &holder(2));
        let passed_on = SeatChange { given_back: true, taken: Some(holder(2)), ..SeatChange::default() };
        assert_eq!(seats.changes().collect::<Vec<_>>(), [("A", passed_on)]);
    }

    #[test]
    fn another_plan_keeps_who_has_what() {
        let (kind, other) = (TicketTypeId::fresh(), TicketTypeId::fresh());
        let mut seats = seats(kind, &["A", "B", "C"]);
        seats.take("B", &holder(1));
        assert_eq!(seats.missing_in(&[plan(kind, &["C", "A"])]), Some("B"));
        assert_eq!(seats.missing_in(&[plan(kind, &["A"]), plan(other, &["B"])]), Some("B"));

        let new = [plan(kind, &["C", "B", "D"]), plan(other, &["E"])];
        assert_eq!(seats.missing_in(&new), None);
        seats.replace(&new);
        assert_eq!(seats.choose(kind, 2), Some(vec!["C".to_owned(), "D".to_owned()]));
        assert_eq!(seats.find("B").unwrap().holder, Some(holder(1)));
        let changes: HashMap<&str, SeatChange> = seats.changes().collect();
        assert!(changes["A"].removed && changes["B"].placed.is_none());
        assert_eq!(changes["C"].placed, Some((kind, 0)));
        assert_eq!(changes["E"].placed, Some((other, 0)));
        assert_eq!(changes.len(), 5);
    }
}
