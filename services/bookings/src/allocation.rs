//! The pure core: what is on sale, what is recorded, and what a batch makes of both. No IO, no clock.
//!
//! A batch loads [`Books`] under its locks, decides its commands in arrival order, and writes the [`Changes`].

use std::collections::{BTreeSet, HashMap};

use eventicket_contracts::bookings::{Line, Offer, Offered, Reserved};
use eventicket_contracts::envelope::{Answer, Key, Rejection};
use eventicket_contracts::{CustomerId, EventId, TicketTypeId, Timestamp, codes};
use eventicket_planted::Fault;

use crate::event::Event;
use crate::limits::Bought;
use crate::offering::offered;
use crate::seats::{Seat, SeatChange};

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
    /// The event's limit for one customer when it was made.
    pub max_per_customer: Option<u32>,
}

/// A hold leaves `Held` once; the others are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Held,
    Confirmed,
    Released,
    Expired,
}

impl Content {
    pub fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Hold(hold) => Some(hold),
            Self::Refused { .. } | Self::Tombstone => None,
        }
    }
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
    fences: HashMap<(Key, u32), Answer>,
    made_fences: Vec<FenceRecord>,
    offered: BTreeSet<EventId>,
    bought: Bought,
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

/// The record of a fence: its round, its number there, and what it was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FenceRecord {
    pub key: Key,
    pub id: u32,
    pub answer: Answer,
}

/// What is left of a ticket type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Left {
    pub event: EventId,
    pub kind: TicketTypeId,
    pub available: u32,
    pub free_from: u32,
}

/// What a batch has to write, each row once.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub inserted: Vec<(Key, Record)>,
    pub updated: Vec<(Key, Record)>,
    /// Events whose offer changed, whole.
    pub offered: Vec<Event>,
    /// What is left of types, of other events than those.
    pub left: Vec<Left>,
    pub offers: Vec<OfferRecord>,
    pub fences: Vec<FenceRecord>,
    /// By event and label.
    pub seats: Vec<(EventId, String, SeatChange)>,
    pub happened: Vec<Change>,
}

impl Books {
    /// Working set of what was read under the locks of the sagas.
    pub fn new(records: impl IntoIterator<Item = (Key, Record)>) -> Self {
        let kept = |(key, record)| (key, Kept { record, mark: Mark::AsRead });
        Self { records: records.into_iter().map(kept).collect(), ..Self::default() }
    }

    /// Adds what offers were answered.
    pub fn add_offers(&mut self, answers: impl IntoIterator<Item = (Key, Answer)>) {
        self.offers.extend(answers);
    }

    /// Adds what fences were answered.
    pub fn add_fences(&mut self, answers: impl IntoIterator<Item = ((Key, u32), Answer)>) {
        self.fences.extend(answers);
    }

    /// Adds events that were read under their locks.
    pub fn add_events(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events.into_iter().map(|event| (event.id, event)));
    }

    /// Adds a seat of one of these events.
    pub fn add_seat(&mut self, event: EventId, label: String, seat: Seat) {
        if let Some(event) = self.events.get_mut(&event) {
            event.seats.add(label, seat);
        }
    }

    /// All free seats of a type are known up to this position, from where its first free one may be.
    pub fn read_to(&mut self, event: EventId, kind: TicketTypeId, position: u32) {
        if let Some(event) = self.events.get_mut(&event) {
            event.seats.read_to(kind, position);
        }
    }

    /// Adds what a customer of one of these events holds and has bought.
    pub fn add_customer(&mut self, event: EventId, customer: CustomerId, tickets: u32) {
        self.bought.add(event, customer, tickets);
    }

    pub fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key).map(|kept| &kept.record)
    }

    /// A hold that may still change capacity, with its event.
    pub fn held(&self, key: &Key) -> Option<(EventId, &Hold)> {
        let record = self.record(key)?;
        let hold = record.content.hold().filter(|hold| hold.phase == Phase::Held)?;
        Some((record.event, hold))
    }

    pub fn event(&self, id: EventId) -> Option<&Event> {
        self.events.get(&id)
    }

    pub fn offer_answer(&self, key: &Key) -> Option<&Answer> {
        self.offers.get(key)
    }

    pub fn fence_answer(&self, key: &Key, id: u32) -> Option<&Answer> {
        self.fences.get(&(key.clone(), id))
    }

    /// The tickets that a customer has of an event with a limit.
    pub fn bought(&self, event: EventId, customer: CustomerId) -> u32 {
        let bought = self.bought.of(event, customer);
        let limited = self.event(event).is_some_and(|event| event.max_per_customer.is_some());
        debug_assert!(bought.is_some() || !limited, "the customers of an event with a limit are among the books");
        bought.unwrap_or(0)
    }

    /// Records the answer to a reserve that is not recorded, and takes what a hold takes.
    pub fn record_reserve(&mut self, key: &Key, event: EventId, content: Content, trace: Option<String>) {
        let what = match &content {
            Content::Hold(hold) => {
                self.shift(event, hold, |event, line| event.take(line, key));
                let tickets = hold.tickets();
                self.bought.shift(event, hold.customer, |bought| bought.saturating_add(tickets));
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
        if Fault::NoTombstone.is_planted() {
            return;
        }
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
        if let Some(hold) = self.record(key).and_then(|record| record.content.hold()).cloned() {
            self.shift(event, &hold, |event, line| event.give_back(line, key));
            self.bought.shift(event, hold.customer, |bought| bought.saturating_sub(hold.tickets()));
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

    /// Changes what is available by the lines of a hold.
    fn shift(&mut self, id: EventId, hold: &Hold, by: impl Fn(&mut Event, &Line) -> bool) {
        let event = self.events.get_mut(&id);
        debug_assert!(event.is_some(), "the event of a hold that begins or ends is locked");
        let Some(event) = event else { return };
        for line in &hold.reserved.lines {
            if by(event, line) {
                self.touched.insert((id, line.ticket_type_id));
            }
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
        self.record_offer(key, offer.event, offer.version, answer.clone());
        answer
    }

    /// Closes the round of an offer of which nothing is recorded.
    pub fn close_offer(&mut self, key: &Key, event: EventId, version: i64) {
        self.record_offer(key, event, version, Answer::rejected(codes::CLOSED, "a fence closed the round"));
    }

    fn record_offer(&mut self, key: &Key, event: EventId, version: i64, answer: Answer) {
        self.offers.insert(key.clone(), answer.clone());
        self.made_offers.push(OfferRecord { key: key.clone(), event, version, answer });
    }

    /// Records what a fence is told.
    pub fn record_fence(&mut self, key: &Key, id: u32, answer: &Answer) {
        self.fences.insert((key.clone(), id), answer.clone());
        self.made_fences.push(FenceRecord { key: key.clone(), id, answer: answer.clone() });
    }

    /// Ends the batch.
    pub fn finish(self) -> Changes {
        let Self { mut events, records, offered, touched, .. } = self;
        let (mut inserted, mut updated) = (Vec::new(), Vec::new());
        for (key, kept) in records {
            match kept.mark {
                Mark::AsRead => {}
                Mark::New => inserted.push((key, kept.record)),
                Mark::Changed => updated.push((key, kept.record)),
            }
        }
        let seats = events
            .values()
            .flat_map(|event| event.seats.changes().map(|(label, change)| (event.id, label.to_owned(), change)));
        let seats = seats.collect();
        let left = touched.into_iter().filter(|(event, _)| !offered.contains(event)).filter_map(|(id, kind)| {
            let event = events.get(&id)?;
            let known = event.kind(kind)?;
            let free_from = if known.numbered { event.seats.free_from(kind, known.free_from) } else { 0 };
            Some(Left { event: id, kind, available: known.available, free_from })
        });
        let left = left.collect();
        let offered = offered.iter().filter_map(|id| events.remove(id)).collect();
        let (offers, fences, happened) = (self.made_offers, self.made_fences, self.changes);
        Changes { inserted, updated, offered, left, offers, fences, seats, happened }
    }
}
