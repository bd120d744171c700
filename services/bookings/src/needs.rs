//! What a batch has to read beside its records and events: single seats and customers, so that whole plans stay where
//! they are. Nothing where no event has seats or a limit.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::bookings::{Offer, Reserve};
use eventicket_contracts::envelope::Key;
use eventicket_contracts::{CustomerId, EventId, TicketTypeId};

use crate::allocation::Books;
use crate::seats::is_label;

/// The first free seats of a type that a batch can come to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Free {
    pub event: EventId,
    pub kind: TicketTypeId,
    /// The position to begin with.
    pub from: u32,
    pub number: u32,
}

/// Numbers of seats.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    from: u32,
    any: u32,
    named: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Events whose offer compares whole plans.
    pub plans: BTreeSet<EventId>,
    /// Seats that are asked for or given back.
    seats: BTreeSet<(EventId, String)>,
    /// What is taken of numbered types.
    taken: BTreeMap<(EventId, TicketTypeId), Taken>,
    /// Customers of events with a limit.
    pub customers: BTreeSet<(EventId, CustomerId)>,
    /// Events that an offer of the batch may limit.
    pub limited: BTreeSet<EventId>,
}

impl Needs {
    /// Of an offer. Offers are looked at first.
    pub fn offer(&mut self, offer: &Offer, books: &Books) {
        let numbered = books.event(offer.event).is_some_and(|event| event.types.iter().any(|kind| kind.numbered));
        if numbered || offer.ticket_types.iter().any(|new| !new.seats.is_empty()) {
            self.plans.insert(offer.event);
        }
        if offer.max_per_customer.is_some() {
            self.limited.insert(offer.event);
        }
    }

    /// Of an order that is not recorded.
    pub fn order(&mut self, order: &Reserve, books: &Books) {
        let event = books.event(order.event);
        if event.is_some_and(|event| event.max_per_customer.is_some()) || self.limited.contains(&order.event) {
            self.customers.insert((order.event, order.customer));
        }
        let Some(event) = event else { return };
        for item in &order.items {
            let Some(kind) = event.kind(item.ticket_type).filter(|kind| kind.numbered) else { continue };
            let labels = item.seats.iter().filter(|label| is_label(label));
            self.seats.extend(labels.map(|label| (event.id, label.clone())));
            let taken = self.taken.entry((event.id, kind.id)).or_default();
            taken.from = kind.free_from;
            let sum = if item.seats.is_empty() { &mut taken.any } else { &mut taken.named };
            *sum = sum.saturating_add(item.quantity);
        }
    }

    /// Of a hold that may end.
    pub fn hold(&mut self, key: &Key, books: &Books) {
        let Some((event, hold)) = books.held(key) else { return };
        let labels = hold.reserved.lines.iter().flat_map(|line| &line.seats);
        self.seats.extend(labels.map(|label| (event, label.clone())));
    }

    /// Seats by label, of events whose plan is not read whole.
    pub fn seats(&self) -> impl Iterator<Item = (EventId, &str)> {
        let apart = self.seats.iter().filter(|(event, _)| !self.plans.contains(event));
        apart.map(|(event, label)| (*event, label.as_str()))
    }

    /// The first free seats of types: as many as the batch takes, since each that is taken by name may be among them.
    pub fn free(&self) -> impl Iterator<Item = Free> {
        let asked = self.taken.iter().filter(|((event, _), taken)| taken.any > 0 && !self.plans.contains(event));
        asked.map(|(&(event, kind), taken)| {
            let number = taken.any.saturating_add(taken.named);
            Free { event, kind, from: taken.from, number }
        })
    }
}
