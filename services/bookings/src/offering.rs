//! What an offer makes of an event: what is held and confirmed stays, or the offer is refused.

use eventicket_contracts::bookings::{Offer, OfferedType};
use eventicket_contracts::codes;
use eventicket_contracts::envelope::Rejection;
use eventicket_planted::Fault;

use crate::event::{Event, TicketType, no};
use crate::seats::Seats;

/// The event after an offer that is not older than what is known.
pub(crate) fn offered(known: Option<&Event>, offer: &Offer) -> Result<Event, Rejection> {
    let known_types = known.map_or(&[][..], |event| &event.types);
    if known.is_some_and(|event| event.cancelled) && !offer.cancelled {
        return Err(no(codes::EVENT_CANCELLED, "the event was cancelled"));
    }
    let on_sale = offer.on_sale && !offer.cancelled;
    if !on_sale && known_types.iter().any(|kind| kind.used() > 0) {
        return Err(no(codes::HAS_BOOKINGS, "tickets are held or sold"));
    }
    let left_out = |kind: &&TicketType| !offer.ticket_types.iter().any(|new| new.id == kind.id);
    if known_types.iter().filter(left_out).any(|kind| kind.used() > 0) {
        return Err(below("a ticket type that is left out has tickets held or sold"));
    }
    let kind = |new: &OfferedType| offered_type(known_types.iter().find(|kind| kind.id == new.id), new);
    let types = offer.ticket_types.iter().map(kind).collect::<Result<_, _>>()?;
    let seats = planned(known.map(|event| &event.seats), &offer.ticket_types)?;
    Ok(Event {
        id: offer.event,
        version: offer.version,
        title: offer.title.clone(),
        starts_at: offer.starts_at,
        ends_at: offer.ends_at,
        on_sale,
        cancelled: offer.cancelled,
        hold_seconds: offer.hold_seconds,
        max_per_customer: offer.max_per_customer,
        types,
        seats,
    })
}

fn offered_type(known: Option<&TicketType>, new: &OfferedType) -> Result<TicketType, Rejection> {
    let (used, numbered) = (known.map_or(0, TicketType::used), !new.seats.is_empty());
    if used > 0 && known.is_some_and(|kind| kind.numbered != numbered) {
        return Err(below(format!("{used} tickets of type {} are held or sold with or without seats", new.id)));
    }
    let mut available = new.quantity.checked_sub(used);
    if Fault::BelowSold.is_planted() {
        available = available.or(Some(0));
    }
    let available = available.ok_or_else(|| below(format!("{used} tickets of type {} are held or sold", new.id)))?;
    let (name, quantity, max_per_order) = (new.name.clone(), new.quantity, new.max_per_order);
    Ok(TicketType { id: new.id, name, price: new.price, quantity, available, max_per_order, numbered, free_from: 0 })
}

fn planned(known: Option<&Seats>, types: &[OfferedType]) -> Result<Seats, Rejection> {
    let mut seats = known.cloned().unwrap_or_default();
    if let Some(label) = seats.missing_in(types) {
        return Err(below(format!("seat {label} is held or sold")));
    }
    seats.replace(types);
    Ok(seats)
}

fn below(message: impl Into<String>) -> Rejection {
    no(codes::BELOW_SOLD, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seats::Seat;
    use eventicket_contracts::envelope::Key;
    use eventicket_contracts::{Currency, EventId, Money, SagaId, TicketTypeId, Timestamp};

    fn offer(types: &[(TicketTypeId, u32, &str)]) -> Offer {
        let kind = |(id, quantity, seats): &(TicketTypeId, u32, &str)| OfferedType {
            id: *id,
            name: "Seat".into(),
            price: Money { amount: 1, currency: Currency::EUR },
            quantity: *quantity,
            max_per_order: None,
            seats: seats.chars().map(String::from).collect(),
        };
        Offer {
            event: EventId(uuid::Uuid::nil()),
            version: 2,
            title: "Gala".into(),
            starts_at: Timestamp(5),
            ends_at: Timestamp(10),
            on_sale: true,
            cancelled: false,
            hold_seconds: None,
            max_per_customer: None,
            ticket_types: types.iter().map(kind).collect(),
        }
    }

    #[test]
    fn an_offer_keeps_what_is_held_or_is_refused() {
        let (hall, floor) = (TicketTypeId::fresh(), TicketTypeId::fresh());
        // Seats A to C, of which B is held; three places on the floor, of which one is held.
        let mut known = offered(None, &offer(&[(hall, 3, "ABC"), (floor, 3, "")])).unwrap();
        known.types.iter_mut().for_each(|kind| kind.available = 2);
        let mut seats = Seats::default();
        for (position, label) in (0..).zip('A'..='C') {
            let holder = (label == 'B').then(|| Key { saga: SagaId::fresh(), step: "RESERVE".into(), round: 1 });
            seats.add(label.to_string(), Seat { kind: hall, position, holder });
        }
        known.seats = seats;

        let told = |offer: &Offer| match offered(Some(&known), offer) {
            Ok(event) => event.types.iter().map(|kind| format!("{} ", kind.available)).collect(),
            Err(rejection) => rejection.code,
        };
        assert_eq!(told(&offer(&[(floor, 1, ""), (hall, 2, "BD")])), "0 1 ");
        assert_eq!(told(&offer(&[(hall, 3, "ABC"), (floor, 0, "")])), codes::BELOW_SOLD, "fewer");
        assert_eq!(told(&offer(&[(hall, 3, "ABC")])), codes::BELOW_SOLD, "a type less");
        assert_eq!(told(&offer(&[(hall, 2, "AC"), (floor, 3, "")])), codes::BELOW_SOLD, "a seat less");
        assert_eq!(told(&offer(&[(hall, 3, ""), (floor, 3, "")])), codes::BELOW_SOLD, "no seats any more");
        assert_eq!(told(&offer(&[(hall, 3, "ABC"), (floor, 3, "XYZ")])), codes::BELOW_SOLD, "seats of late");
        let off = |offer: Offer| Offer { on_sale: false, ..offer };
        assert_eq!(told(&off(offer(&[(hall, 3, "ABC"), (floor, 3, "")]))), codes::HAS_BOOKINGS);
        let cancelled = |offer: Offer| Offer { cancelled: true, ..offer };
        assert_eq!(told(&cancelled(offer(&[]))), codes::HAS_BOOKINGS);
    }

    #[test]
    fn a_cancellation_is_for_good() {
        let kind = TicketTypeId::fresh();
        let cancelled = Offer { cancelled: true, ..offer(&[(kind, 3, "ABC")]) };
        let event = offered(None, &cancelled).unwrap();
        assert_eq!((event.on_sale, event.cancelled), (false, true));
        assert_eq!(offered(Some(&event), &offer(&[(kind, 3, "ABC")])).unwrap_err().code, codes::EVENT_CANCELLED);
        assert!(offered(Some(&event), &cancelled).is_ok());
        let stopped = offered(None, &Offer { on_sale: false, ..offer(&[(kind, 3, "")]) }).unwrap();
        assert!(offered(Some(&stopped), &offer(&[(kind, 3, "ABC")])).unwrap().on_sale);
    }
}
