//! An event as it is sold, and what an order of it comes to.

use std::collections::HashSet;

use eventicket_contracts::bookings::{Line, Reserve, ReserveItem};
use eventicket_contracts::envelope::{Key, Rejection};
use eventicket_contracts::{EventId, Money, TicketTypeId, Timestamp, codes};

use crate::seats::Seats;

/// An event as it is sold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub id: EventId,
    /// Zero before the first offer.
    pub version: i64,
    pub title: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub on_sale: bool,
    pub cancelled: bool,
    pub hold_seconds: Option<u32>,
    pub max_per_customer: Option<u32>,
    /// In the event's own order.
    pub types: Vec<TicketType>,
    /// Those that the batch needs.
    pub seats: Seats,
}

/// A ticket type with its capacity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TicketType {
    pub id: TicketTypeId,
    pub name: String,
    pub price: Money,
    pub quantity: u32,
    /// Neither held nor confirmed.
    pub available: u32,
    pub max_per_order: Option<u32>,
    /// It has a plan of seats.
    pub numbered: bool,
    /// All seats before this position of the plan are taken: where the look for free ones begins.
    pub free_from: u32,
}

impl TicketType {
    /// Held or confirmed.
    pub fn used(&self) -> u32 {
        self.quantity.saturating_sub(self.available)
    }
}

impl Event {
    pub fn kind(&self, id: TicketTypeId) -> Option<&TicketType> {
        self.types.iter().find(|kind| kind.id == id)
    }

    /// The lines of an order with their sum, where the order can be served as it stands; `bought` is what its customer
    /// has already.
    pub fn quote(&self, order: &Reserve, bought: u32, now: Timestamp) -> Result<(Vec<Line>, Money), Rejection> {
        if self.cancelled {
            return Err(no(codes::EVENT_CANCELLED, "the event was cancelled"));
        }
        let kind = |item: &ReserveItem| self.kind(item.ticket_type).ok_or_else(unknown);
        let kinds = order.items.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
        let pairs = || order.items.iter().zip(&kinds);
        self.is_open(now)?;
        if pairs().any(|(item, kind)| kind.max_per_order.is_some_and(|most| item.quantity > most)) {
            return Err(no(codes::ORDER_LIMIT, "more tickets of a type than one order may hold"));
        }
        let all = order.items.iter().fold(bought, |sum, item| sum.saturating_add(item.quantity));
        if self.max_per_customer.is_some_and(|most| all > most) {
            return Err(no(codes::CUSTOMER_LIMIT, format!("a customer of {bought} tickets would have {all}")));
        }
        if pairs().any(|(item, kind)| !self.has_seats(item, kind)) {
            return Err(no(codes::UNKNOWN_SEAT, "not as many seats of the ticket type as tickets"));
        }
        let prices = pairs().map(|(item, kind)| kind.price.times(item.quantity));
        let total = total(prices).ok_or_else(|| no(codes::MIXED_CURRENCIES, "the prices have no common sum"))?;
        if order.expected_total.is_some_and(|expected| expected != total) {
            return Err(no(codes::PRICE_CHANGED, format!("the total is {total}")));
        }
        let lines = pairs().map(|(item, kind)| self.line(item, kind)).collect::<Result<_, _>>()?;
        Ok((lines, total))
    }

    fn is_open(&self, now: Timestamp) -> Result<(), Rejection> {
        if !self.on_sale {
            return Err(no(codes::NOT_ON_SALE, "the event is not on sale"));
        }
        if now >= self.ends_at {
            return Err(no(codes::EVENT_OVER, "the event is over"));
        }
        Ok(())
    }

    /// Whether the seats that an item names exist, one for each ticket; it may name none.
    fn has_seats(&self, item: &ReserveItem, kind: &TicketType) -> bool {
        let different: HashSet<&String> = item.seats.iter().collect();
        let is_of_type = |label: &String| self.seats.find(label).is_some_and(|seat| seat.kind == kind.id);
        item.seats.is_empty()
            || kind.numbered
                && item.seats.len() == item.quantity as usize
                && different.len() == item.seats.len()
                && item.seats.iter().all(is_of_type)
    }

    fn line(&self, item: &ReserveItem, kind: &TicketType) -> Result<Line, Rejection> {
        let sold_out = || no(codes::SOLD_OUT, "not enough tickets are left");
        let is_taken = |label: &&String| self.seats.find(label).is_none_or(|seat| seat.holder.is_some());
        let seats = if let Some(label) = item.seats.iter().find(is_taken) {
            return Err(no(codes::SEAT_TAKEN, format!("seat {label} is held or sold")));
        } else if item.quantity > kind.available {
            return Err(sold_out());
        } else if kind.numbered && item.seats.is_empty() {
            self.seats.choose(kind.id, item.quantity).ok_or_else(sold_out)?
        } else {
            item.seats.clone()
        };
        let (ticket_type_id, name) = (kind.id, kind.name.clone());
        Ok(Line { ticket_type_id, name, quantity: item.quantity, unit_price: kind.price, seats })
    }

    /// Takes the tickets and seats of a line for a hold; false where there is no such type.
    pub fn take(&mut self, line: &Line, holder: &Key) -> bool {
        line.seats.iter().for_each(|label| self.seats.take(label, holder));
        self.shift(line, u32::saturating_sub)
    }

    /// Gives them back.
    pub fn give_back(&mut self, line: &Line, holder: &Key) -> bool {
        line.seats.iter().for_each(|label| self.seats.give_back(label, holder));
        self.shift(line, u32::saturating_add)
    }

    fn shift(&mut self, line: &Line, by: fn(u32, u32) -> u32) -> bool {
        let kind = self.types.iter_mut().find(|kind| kind.id == line.ticket_type_id);
        // A type with tickets held cannot be left out of an offer.
        debug_assert!(kind.is_some(), "the capacity of a hold is not among the books");
        kind.map(|kind| kind.available = by(kind.available, line.quantity)).is_some()
    }
}

fn total(mut prices: impl Iterator<Item = Option<Money>>) -> Option<Money> {
    let first = prices.next()??;
    prices.try_fold(first, |sum, price| sum.plus(price?))
}

pub(crate) fn unknown() -> Rejection {
    no(codes::UNKNOWN_TICKET_TYPE, "no such event or ticket type")
}

pub(crate) fn no(code: &str, message: impl Into<String>) -> Rejection {
    Rejection { code: code.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seats::Seat;
    use eventicket_contracts::{Currency, CustomerId, SagaId};

    /// Nine tickets of each price; the first type has seats A to I, of which B is taken.
    fn event(prices: &[(i64, &str)]) -> Event {
        let kind = |(at, (amount, currency)): (usize, &(i64, &str))| {
            let price = Money { amount: *amount, currency: Currency::parse(currency).unwrap() };
            let (id, name, available) = (TicketTypeId::fresh(), "Seat".to_owned(), 9 - u32::from(at == 0));
            TicketType {
                id,
                name,
                price,
                quantity: 9,
                available,
                max_per_order: Some(5),
                numbered: at == 0,
                free_from: 0,
            }
        };
        let types: Vec<TicketType> = prices.iter().enumerate().map(kind).collect();
        let mut seats = Seats::default();
        for (position, label) in (0..).zip('A'..='I') {
            let holder = (label == 'B').then(|| Key { saga: SagaId::fresh(), step: "RESERVE".into(), round: 1 });
            seats.add(label.to_string(), Seat { kind: types[0].id, position, holder });
        }
        Event {
            id: EventId::fresh(),
            version: 1,
            title: "Gala".into(),
            starts_at: Timestamp(5),
            ends_at: Timestamp(10),
            on_sale: true,
            cancelled: false,
            hold_seconds: None,
            max_per_customer: Some(8),
            types,
            seats,
        }
    }

    fn order(event: &Event, items: Vec<ReserveItem>) -> Reserve {
        let (event, customer) = (event.id, CustomerId::fresh());
        Reserve { event, customer, items, expected_total: None, hold_seconds: 1, grace_seconds: 1 }
    }

    fn quoted(prices: &[(i64, &str)]) -> Result<Money, String> {
        let event = event(prices);
        let item = |kind: &TicketType| ReserveItem { ticket_type: kind.id, quantity: 2, seats: vec![] };
        let order = order(&event, event.types.iter().map(item).collect());
        event.quote(&order, 0, Timestamp(9)).map(|(_, total)| total).map_err(|rejection| rejection.code)
    }

    #[test]
    fn an_order_has_one_sum_or_is_refused() {
        assert_eq!(quoted(&[(300, "EUR"), (45, "EUR")]), Ok(Money { amount: 690, currency: Currency::EUR }));
        assert_eq!(quoted(&[(0, "EUR")]), Ok(Money { amount: 0, currency: Currency::EUR }));
        assert_eq!(quoted(&[(300, "EUR"), (45, "USD")]), Err(codes::MIXED_CURRENCIES.to_owned()));
        assert_eq!(quoted(&[(i64::MAX, "EUR")]), Err(codes::MIXED_CURRENCIES.to_owned()));
    }

    #[test]
    fn seats_are_those_that_are_named_or_the_first_free_ones() {
        let event = event(&[(300, "EUR"), (45, "EUR")]);
        // The type's index, the quantity and the seats named; then the seats of the line, or why not.
        let cases: [(usize, u32, &str, Result<&str, &str>); 11] = [
            (0, 1, "", Ok("A")),
            (0, 2, "", Ok("CD")),
            (0, 2, "DA", Ok("DA")),
            (1, 2, "", Ok("")),
            (0, 1, "B", Err(codes::SEAT_TAKEN)),
            (0, 2, "AB", Err(codes::SEAT_TAKEN)),
            (0, 1, "X", Err(codes::UNKNOWN_SEAT)),
            (0, 2, "A", Err(codes::UNKNOWN_SEAT)),
            (0, 1, "AC", Err(codes::UNKNOWN_SEAT)),
            (0, 2, "AA", Err(codes::UNKNOWN_SEAT)),
            (1, 1, "A", Err(codes::UNKNOWN_SEAT)),
        ];
        for (at, quantity, named, expected) in cases {
            let seats = named.chars().map(String::from).collect();
            let order = order(&event, vec![ReserveItem { ticket_type: event.types[at].id, quantity, seats }]);
            let quote = event.quote(&order, 0, Timestamp(9));
            let seats = quote.map(|(lines, _)| lines[0].seats.concat()).map_err(|rejection| rejection.code);
            assert_eq!(seats, expected.map(str::to_owned).map_err(str::to_owned), "{at} {quantity} {named}");
        }
    }

    #[test]
    fn the_first_reason_that_holds_is_told() {
        let sound = event(&[(300, "EUR"), (45, "EUR")]);
        let refused = |change: fn(&mut Event, &mut Reserve), bought| {
            let mut event = sound.clone();
            let item = ReserveItem { ticket_type: event.types[1].id, quantity: 2, seats: vec![] };
            let mut order = order(&event, vec![item]);
            change(&mut event, &mut order);
            event.quote(&order, bought, Timestamp(9)).err().map(|rejection| rejection.code)
        };
        assert_eq!(refused(|_, _| {}, 6), None);
        assert_eq!(refused(|_, _| {}, 7).as_deref(), Some(codes::CUSTOMER_LIMIT));
        assert_eq!(refused(|event, _| event.max_per_customer = None, 7), None);
        assert_eq!(refused(|_, order| order.items[0].quantity = 6, 7).as_deref(), Some(codes::ORDER_LIMIT));
        assert_eq!(refused(|event, _| event.types[1].available = 1, 0).as_deref(), Some(codes::SOLD_OUT));
        assert_eq!(refused(|event, _| event.ends_at = Timestamp(9), 7).as_deref(), Some(codes::EVENT_OVER));
        assert_eq!(refused(|event, _| event.on_sale = false, 7).as_deref(), Some(codes::NOT_ON_SALE));
        let cancelled = |event: &mut Event, _: &mut Reserve| (event.on_sale, event.cancelled) = (false, true);
        assert_eq!(refused(cancelled, 7).as_deref(), Some(codes::EVENT_CANCELLED));
    }
}
