//! The pure core: what is on sale, what is recorded, and what a batch makes of both. No IO, no clock.
//!
//! A batch loads [`Books`] under its locks, decides its commands in arrival order, and writes the [`Changes`].

use std::collections::{BTreeSet, HashMap};

use eventicket_contracts::bookings::{Line, Offer, Offered, Reserve, Reserved};
use eventicket_contracts::envelope::{Answer, Key, Rejection};
use eventicket_contracts::{CustomerId, EventId, Money, TicketTypeId, Timestamp, codes};

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
    pub hold_seconds: Option<u32>,
    pub max_per_customer: Option<u32>,
    /// In the event's own order.
    pub types: Vec<TicketType>,
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
}

/// What is recorded of a round that reserves; reserve, release and confirm are all answered from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub event: EventId,
    /// Number of states so far.
    pub changes: u32,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Hold(Hold),
    /// The reserve was rejected.
    Refused {
        customer: CustomerId,
        rejection: Rejection,
    },
    /// A release or a confirm came first; the late reserve is refused.
    Tombstone,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hold {
    pub phase: Phase,
    pub customer: CustomerId,
    pub reserved: Reserved,
    pub grace_until: Timestamp,
}

/// A hold leaves `Held` once; the others are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Held,
    Confirmed,
    Released,
    Expired,
}

impl Hold {
    pub fn tickets(&self) -> u32 {
        self.reserved.lines.iter().fold(0, |sum, line| sum.saturating_add(line.quantity))
    }
}

/// A change of state, in the order of the batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub key: Key,
    /// The record's number of changes after this one.
    pub changes: u32,
    pub what: What,
    /// W3C `traceparent` of the command.
    pub trace: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Held,
    Refused,
    Confirmed,
    /// The capacity was given back, for this reason.
    Ended(Phase, String),
    Tombstone,
}

/// The working set of a batch: the records of its sagas and the events that it holds the locks of.
#[derive(Debug, Default)]
pub(crate) struct Books {
    events: HashMap<EventId, Event>,
    records: HashMap<Key, Kept>,
    offers: HashMap<Key, Answer>,
    made_offers: Vec<OfferRecord>,
    offered: BTreeSet<EventId>,
    touched: BTreeSet<(EventId, TicketTypeId)>,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    mark: Mark,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    AsRead,
    New,
    Changed,
}

/// The record of an offer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfferRecord {
    pub key: Key,
    pub event: EventId,
    pub version: i64,
    pub answer: Answer,
}

/// What a batch has to write, each row once.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub inserted: Vec<(Key, Record)>,
    pub updated: Vec<(Key, Record)>,
    /// Events whose offer changed, whole.
    pub offered: Vec<Event>,
    /// What is available of types, of other events than those.
    pub available: Vec<(EventId, TicketTypeId, u32)>,
    pub offers: Vec<OfferRecord>,
    pub happened: Vec<Change>,
}

impl Books {
    /// Working set of what was read under the locks of the sagas.
    pub fn new(
        records: impl IntoIterator<Item = (Key, Record)>,
        offers: impl IntoIterator<Item = (Key, Answer)>,
    ) -> Self {
        let kept = |(key, record)| (key, Kept { record, mark: Mark::AsRead });
        Self {
            records: records.into_iter().map(kept).collect(),
            offers: offers.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Adds events that were read under their locks.
    pub fn add_events(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events.into_iter().map(|event| (event.id, event)));
    }

    pub fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key).map(|kept| &kept.record)
    }

    /// The event of a hold that may still change capacity.
    pub fn held_event(&self, key: &Key) -> Option<EventId> {
        let record = self.record(key)?;
        matches!(&record.content, Content::Hold(hold) if hold.phase == Phase::Held).then_some(record.event)
    }

    pub fn event(&self, id: EventId) -> Option<&Event> {
        self.events.get(&id)
    }

    pub fn offer_answer(&self, key: &Key) -> Option<&Answer> {
        self.offers.get(key)
    }

    /// Records the answer to a reserve that is not recorded, and takes what a hold takes.
    pub fn record_reserve(&mut self, key: &Key, event: EventId, content: Content, trace: Option<String>) {
        let what = match &content {
            Content::Hold(hold) => {
                for line in &hold.reserved.lines {
                    self.shift(event, line, |available, quantity| available.saturating_sub(quantity));
                }
                What::Held
            }
            Content::Refused { .. } => What::Refused,
            Content::Tombstone => What::Tombstone,
        };
        let record = Record { event, changes: 1, content };
        self.records.insert(key.clone(), Kept { record, mark: Mark::New });
        self.changes.push(Change { key: key.clone(), changes: 1, what, trace });
    }

    /// Closes a round of which nothing is recorded, so that its reserve comes too late.
    pub fn close(&mut self, key: &Key, event: EventId) {
        self.record_reserve(key, event, Content::Tombstone, None);
    }

    /// Confirms a hold; false where it is not held.
    pub fn confirm(&mut self, key: &Key, trace: Option<String>) -> bool {
        let left = self.leave(key, Phase::Confirmed);
        if let Some((changes, _)) = left {
            self.changes.push(Change { key: key.clone(), changes, what: What::Confirmed, trace });
        }
        left.is_some()
    }

    /// Ends a hold and gives its capacity back; false where it is not held.
    pub fn end(&mut self, key: &Key, phase: Phase, reason: &str, trace: Option<String>) -> bool {
        let Some((changes, event)) = self.leave(key, phase) else { return false };
        let lines = match self.record(key).map(|record| &record.content) {
            Some(Content::Hold(hold)) => hold.reserved.lines.clone(),
            _ => Vec::new(),
        };
        for line in &lines {
            self.shift(event, line, u32::saturating_add);
        }
        let what = What::Ended(phase, reason.to_owned());
        self.changes.push(Change { key: key.clone(), changes, what, trace });
        true
    }

    /// The one way out of `Held`.
    fn leave(&mut self, key: &Key, phase: Phase) -> Option<(u32, EventId)> {
        let kept = self.records.get_mut(key)?;
        let Content::Hold(hold) = &mut kept.record.content else { return None };
        (hold.phase == Phase::Held).then_some(())?;
        hold.phase = phase;
        kept.record.changes += 1;
        if kept.mark == Mark::AsRead {
            kept.mark = Mark::Changed;
        }
        Some((kept.record.changes, kept.record.event))
    }

    fn shift(&mut self, event: EventId, line: &Line, by: impl Fn(u32, u32) -> u32) {
        let types = self.events.get_mut(&event).map(|event| &mut event.types);
        let kind = types.and_then(|types| types.iter_mut().find(|kind| kind.id == line.ticket_type_id));
        // A type with tickets held cannot be left out of an offer, and its event is locked.
        debug_assert!(kind.is_some(), "the capacity of a hold is not among the books");
        if let Some(kind) = kind {
            kind.available = by(kind.available, line.quantity);
            self.touched.insert((event, kind.id));
        }
    }

    /// Decides about an offer and records the answer.
    pub fn offer(&mut self, key: &Key, offer: &Offer) -> Answer {
        let known = self.events.get(&offer.event);
        let answer = match known.filter(|event| event.version > offer.version) {
            Some(newer) => Answer::done(Offered { version: newer.version }),
            None => match offered(known, offer) {
                Ok(event) => {
                    self.offered.insert(event.id);
                    self.events.insert(event.id, event);
                    Answer::done(Offered { version: offer.version })
                }
                Err(rejection) => Answer::Rejected(rejection),
            },
        };
        self.offers.insert(key.clone(), answer.clone());
        let (event, version) = (offer.event, offer.version);
        self.made_offers.push(OfferRecord { key: key.clone(), event, version, answer: answer.clone() });
        answer
    }

    /// Ends the batch.
    pub fn finish(self) -> Changes {
        let Self { events, records, offered, touched, .. } = self;
        let (mut inserted, mut updated) = (Vec::new(), Vec::new());
        for (key, kept) in records {
            match kept.mark {
                Mark::AsRead => {}
                Mark::New => inserted.push((key, kept.record)),
                Mark::Changed => updated.push((key, kept.record)),
            }
        }
        let available = touched.into_iter().filter(|(event, _)| !offered.contains(event)).filter_map(|(event, id)| {
            let kind = events.get(&event)?.types.iter().find(|kind| kind.id == id)?;
            Some((event, id, kind.available))
        });
        let available = available.collect();
        let offered = offered.iter().filter_map(|id| events.get(id).cloned()).collect();
        Changes { inserted, updated, offered, available, offers: self.made_offers, happened: self.changes }
    }
}

impl Event {
    /// The lines of an order with their sum, where the order can be served as it stands.
    pub fn quote(&self, order: &Reserve, now: Timestamp) -> Result<(Vec<Line>, Money), Rejection> {
        let mut lines = Vec::with_capacity(order.items.len());
        let mut kinds = Vec::with_capacity(order.items.len());
        for item in &order.items {
            let kind = self.types.iter().find(|kind| kind.id == item.ticket_type).ok_or_else(unknown)?;
            let (ticket_type_id, name) = (kind.id, kind.name.clone());
            lines.push(Line { ticket_type_id, name, quantity: item.quantity, unit_price: kind.price });
            kinds.push(kind);
        }
        if !self.on_sale {
            return Err(no(codes::NOT_ON_SALE, "the event is not on sale"));
        }
        if now >= self.ends_at {
            return Err(no(codes::EVENT_OVER, "the event is over"));
        }
        let pairs = || lines.iter().zip(&kinds);
        if pairs().any(|(line, kind)| kind.max_per_order.is_some_and(|most| line.quantity > most)) {
            return Err(no(codes::ORDER_LIMIT, "more tickets of a type than one order may hold"));
        }
        let total = total(&lines).ok_or_else(|| no(codes::MIXED_CURRENCIES, "the prices have no common sum"))?;
        if order.expected_total.is_some_and(|expected| expected != total) {
            return Err(no(codes::PRICE_CHANGED, format!("the total is {total}")));
        }
        if pairs().any(|(line, kind)| line.quantity > kind.available) {
            return Err(no(codes::SOLD_OUT, "not enough tickets are left"));
        }
        Ok((lines, total))
    }
}

fn total(lines: &[Line]) -> Option<Money> {
    let mut prices = lines.iter().map(|line| line.unit_price.times(line.quantity));
    let first = prices.next()??;
    prices.try_fold(first, |sum, price| sum.plus(price?))
}

/// The event after an offer, with what is held and confirmed kept.
fn offered(known: Option<&Event>, offer: &Offer) -> Result<Event, Rejection> {
    let known_types = known.map_or(&[][..], |event| &event.types);
    let left_out = |kind: &&TicketType| !offer.ticket_types.iter().any(|t| t.id == kind.id);
    if known_types.iter().filter(left_out).any(|kind| kind.available < kind.quantity) {
        return Err(no(codes::BELOW_SOLD, "a ticket type that is left out has tickets held or sold"));
    }
    let mut types = Vec::with_capacity(offer.ticket_types.len());
    for new in &offer.ticket_types {
        let used = known_types.iter().find(|kind| kind.id == new.id).map_or(0, |kind| kind.quantity - kind.available);
        let available = new
            .quantity
            .checked_sub(used)
            .ok_or_else(|| no(codes::BELOW_SOLD, format!("{used} tickets of type {} are held or sold", new.id)))?;
        types.push(TicketType {
            id: new.id,
            name: new.name.clone(),
            price: new.price,
            quantity: new.quantity,
            available,
            max_per_order: new.max_per_order,
        });
    }
    Ok(Event {
        id: offer.event,
        version: offer.version,
        title: offer.title.clone(),
        starts_at: offer.starts_at,
        ends_at: offer.ends_at,
        on_sale: offer.on_sale,
        hold_seconds: offer.hold_seconds,
        max_per_customer: offer.max_per_customer,
        types,
    })
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
    use eventicket_contracts::Currency;
    use eventicket_contracts::bookings::ReserveItem;

    fn event(prices: &[(i64, &str)]) -> Event {
        let kind = |(amount, currency): &(i64, &str)| {
            let price = Money { amount: *amount, currency: Currency::parse(currency).unwrap() };
            let (id, name) = (TicketTypeId::fresh(), "Seat".to_owned());
            TicketType { id, name, price, quantity: 9, available: 9, max_per_order: None }
        };
        let (id, title, ends_at) = (EventId::fresh(), "Gala".to_owned(), Timestamp(10));
        let types = prices.iter().map(kind).collect();
        let (starts_at, on_sale) = (Timestamp(5), true);
        Event { id, version: 1, title, starts_at, ends_at, on_sale, hold_seconds: None, max_per_customer: None, types }
    }

    fn quoted(prices: &[(i64, &str)]) -> Result<Money, String> {
        let event = event(prices);
        let items = event.types.iter().map(|kind| ReserveItem { ticket_type: kind.id, quantity: 2 }).collect();
        let customer = CustomerId::fresh();
        let order =
            Reserve { event: event.id, customer, items, expected_total: None, hold_seconds: 1, grace_seconds: 1 };
        event.quote(&order, Timestamp(9)).map(|(_, total)| total).map_err(|rejection| rejection.code)
    }

    #[test]
    fn an_order_has_one_sum_or_is_refused() {
        assert_eq!(quoted(&[(300, "EUR"), (45, "EUR")]), Ok(Money { amount: 690, currency: Currency::EUR }));
        assert_eq!(quoted(&[(0, "EUR")]), Ok(Money { amount: 0, currency: Currency::EUR }));
        assert_eq!(quoted(&[(300, "EUR"), (45, "USD")]), Err(codes::MIXED_CURRENCIES.to_owned()));
        assert_eq!(quoted(&[(i64::MAX, "EUR")]), Err(codes::MIXED_CURRENCIES.to_owned()));
    }
}
