//! What bookings sells of an event: the offer.

use eventicket_contracts::EventId;
use eventicket_contracts::bookings::{Offer, OfferedType};
use eventicket_contracts::events::{Event, EventState, TicketType};

use crate::lifecycle::{Next, Stored};

/// What bookings decides on; none where nothing is under way.
pub(crate) fn offer(stored: &Stored) -> Option<Offer> {
    let next = stored.next.as_ref()?;
    Some(offered(stored.event.id, stored.event.version, next))
}

/// Whether bookings would sell the same.
pub(crate) fn is_same(event: &Event, next: &Next) -> bool {
    let now = Next { state: event.state, details: event.details.clone() };
    offered(event.id, event.version, &now) == offered(event.id, event.version, next)
}

fn offered(event: EventId, version: i64, next: &Next) -> Offer {
    let details = &next.details;
    let kind = |kind: &TicketType| OfferedType {
        id: kind.id,
        name: kind.name.clone(),
        price: kind.price,
        quantity: kind.quantity,
        max_per_order: kind.max_per_order,
        seats: kind.seats.clone(),
    };
    Offer {
        event,
        version,
        title: details.title.clone(),
        starts_at: details.starts_at,
        ends_at: details.ends_at,
        on_sale: next.state == EventState::Published,
        cancelled: next.state == EventState::Cancelled,
        hold_seconds: details.hold_seconds,
        max_per_customer: details.max_per_customer,
        ticket_types: details.ticket_types.iter().map(kind).collect(),
    }
}
