//! The service without its store, for the simulator: a batch as [`crate::commands`] and the sweep decide it, over rows that
//! somebody else keeps. Rows are opaque; what an invariant has to know of them can be asked.

use std::collections::BTreeSet;

use eventicket_contracts::bookings::Line;
use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{CustomerId, EventId, SagaId, TicketTypeId, Timestamp, codes};
use eventicket_nats::{Delivered, Handled};

use crate::allocation::{Books, Content, Hold, Phase, Record};
use crate::commands::{self, Command};
use crate::event::Event;
use crate::seats::{Seat, Seats};

/// A row of `holds`.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldRow(Record);

impl HoldRow {
    fn hold(&self) -> Option<&Hold> {
        self.0.content.hold()
    }

    /// The event it is of.
    pub fn event(&self) -> EventId {
        self.0.event
    }

    /// Who holds or has bought; none where nothing was ever held.
    pub fn customer(&self) -> Option<CustomerId> {
        Some(self.hold()?.customer)
    }

    /// Whether its tickets are held and not sold.
    pub fn is_held(&self) -> bool {
        self.hold().is_some_and(|hold| hold.phase == Phase::Held)
    }

    /// Whether its tickets are sold.
    pub fn is_confirmed(&self) -> bool {
        self.hold().is_some_and(|hold| hold.phase == Phase::Confirmed)
    }

    /// Whether the hold has run out.
    pub fn is_expired(&self) -> bool {
        self.hold().is_some_and(|hold| hold.phase == Phase::Expired)
    }

    /// What is taken by it now, held or sold.
    pub fn takes(&self) -> &[Line] {
        let takes = self.is_held() || self.is_confirmed();
        self.hold().filter(|_| takes).map_or(&[], |hold| &hold.reserved.lines)
    }

    /// When the service frees it by itself, where it was held once.
    pub fn grace_until(&self) -> Option<Timestamp> {
        Some(self.hold()?.grace_until)
    }

    /// A word for the timeline.
    pub fn word(&self) -> &'static str {
        match &self.0.content {
            Content::Refused { .. } => "refused",
            Content::Tombstone => "closed",
            Content::Hold(hold) => match hold.phase {
                Phase::Held => "held",
                Phase::Confirmed => "confirmed",
                Phase::Released => "released",
                Phase::Expired => "expired",
            },
        }
    }
}

/// A row of `events` with its ticket types and its plan of seats.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    event: Event,
    plan: Vec<(String, TicketTypeId, u32)>,
}

impl EventRow {
    /// One that was never offered, as it is made to be locked.
    pub fn blank(id: EventId) -> Self {
        let (none, seats) = (Timestamp(0), Seats::default());
        let event = Event {
            id,
            version: 0,
            title: String::new(),
            starts_at: none,
            ends_at: none,
            on_sale: false,
            cancelled: false,
            hold_seconds: None,
            max_per_customer: None,
            types: Vec::new(),
            seats,
        };
        Self { event, plan: Vec::new() }
    }

    /// Its id.
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// Most tickets of a customer.
    pub fn max_per_customer(&self) -> Option<u32> {
        self.event.max_per_customer
    }

    /// Its ticket types: how many there are, and how many are left.
    pub fn types(&self) -> impl Iterator<Item = (TicketTypeId, u32, u32)> {
        self.event.types.iter().map(|kind| (kind.id, kind.quantity, kind.available))
    }

    /// Whether seats are to be read for its decisions.
    pub fn has_seats(&self) -> bool {
        !self.plan.is_empty()
    }

    /// The same with what is left of a type.
    pub fn set_left(&mut self, left: &Left) {
        for kind in self.event.types.iter_mut().filter(|kind| kind.id == left.kind) {
            (kind.available, kind.free_from) = (left.available, left.free_from);
        }
    }
}

/// What is left of a ticket type.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// Of this event.
    pub event: EventId,
    kind: TicketTypeId,
    available: u32,
    free_from: u32,
}

/// What a batch writes, each row once.
#[derive(Debug, Default)]
pub struct Written {
    /// New holds.
    pub inserted: Vec<(Key, HoldRow)>,
    /// Holds that changed.
    pub updated: Vec<(Key, HoldRow)>,
    /// Events whose offer changed.
    pub offered: Vec<EventRow>,
    /// What is left of types.
    pub left: Vec<Left>,
    /// Answers to offers.
    pub offers: Vec<(Key, Answer)>,
    /// Answers to fences.
    pub fences: Vec<((Key, u32), Answer)>,
    /// Seats with who has them from now on.
    pub seats: Vec<(EventId, String, Option<Key>)>,
}

/// A batch of commands, or of holds to sweep, in the order of its statements.
pub struct Batch {
    commands: Vec<Result<Command, Handled>>,
    sweep: Vec<Key>,
    books: Books,
    plans: Vec<EventRow>,
}

impl Batch {
    /// A batch of commands.
    pub fn of_commands(batch: &[Delivered]) -> Self {
        let commands = batch.iter().map(Command::parse).collect();
        Self { commands, sweep: Vec::new(), books: Books::default(), plans: Vec::new() }
    }

    /// A batch of holds whose grace has run out.
    pub fn of_sweep(keys: Vec<Key>) -> Self {
        Self { commands: Vec::new(), sweep: keys, books: Books::default(), plans: Vec::new() }
    }

    fn parsed(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter_map(|command| command.as_ref().ok())
    }

    /// The sagas to lock and to read.
    pub fn sagas(&self) -> BTreeSet<SagaId> {
        let sagas = self.parsed().map(|command| command.round.key.saga);
        sagas.chain(self.sweep.iter().map(|key| key.saga)).collect()
    }

    /// Whether answers to offers, and to fences, are to be read.
    pub fn wants_answers(&self) -> (bool, bool) {
        let fences = self.parsed().any(Command::is_fence);
        (fences || self.parsed().any(Command::is_offer), fences)
    }

    /// Takes in what is recorded of the sagas.
    pub fn add_records(&mut self, records: impl IntoIterator<Item = (Key, HoldRow)>) {
        self.books = Books::new(records.into_iter().map(|(key, row)| (key, row.0)));
    }

    /// Takes in answers to offers.
    pub fn add_offers(&mut self, answers: impl IntoIterator<Item = (Key, Answer)>) {
        self.books.add_offers(answers);
    }

    /// Takes in answers to fences.
    pub fn add_fences(&mut self, answers: impl IntoIterator<Item = ((Key, u32), Answer)>) {
        self.books.add_fences(answers);
    }

    /// Events that may be offered for the first time.
    pub fn new_events(&self) -> BTreeSet<EventId> {
        self.parsed().filter(|command| command.is_offer()).filter_map(|command| command.event(&self.books)).collect()
    }

    /// Events to lock.
    pub fn events(&self) -> BTreeSet<EventId> {
        let swept = self.sweep.iter().filter_map(|key| Some(self.books.held(key)?.0));
        self.parsed().filter_map(|command| command.event(&self.books)).chain(swept).collect()
    }

    /// Takes in events that were read under their locks.
    pub fn add_events(&mut self, events: Vec<EventRow>) {
        self.books.add_events(events.iter().map(|row| row.event.clone()));
        self.plans = events;
    }

    /// Takes in the seats of an event: its whole plan, and who has which.
    pub fn add_seats(&mut self, event: EventId, taken: impl Fn(&str) -> Option<Key>) {
        let Some(row) = self.plans.iter().find(|row| row.id() == event) else { return };
        for (label, kind, position) in &row.plan {
            let seat = Seat { kind: *kind, position: *position, holder: taken(label) };
            self.books.add_seat(event, label.clone(), seat);
            self.books.read_to(event, *kind, *position);
        }
    }

    /// Customers of events with a limit, whose tickets are to be counted.
    pub fn customers(&self) -> BTreeSet<(EventId, CustomerId)> {
        let commands: Vec<&Command> = self.parsed().collect();
        let mut needs = commands::needs(&commands, &self.books);
        self.sweep.iter().for_each(|key| needs.hold(key, &self.books));
        needs.customers
    }

    /// Takes in what a customer holds and has bought.
    pub fn add_customer(&mut self, event: EventId, customer: CustomerId, tickets: u32) {
        self.books.add_customer(event, customer, tickets);
    }

    /// Decides the commands in their order, and frees the holds.
    pub fn decide(&mut self, now: Timestamp) -> Vec<Handled> {
        for key in &self.sweep {
            self.books.end(key, Phase::Expired, codes::HOLD_EXPIRED, None);
        }
        let books = &mut self.books;
        let decide = |command: &Result<Command, Handled>| match command {
            Err(dead) => dead.clone(),
            Ok(command) => command.decide(books, now).map_or_else(Handled::Dead, Handled::Answer),
        };
        self.commands.iter().map(decide).collect()
    }

    /// What is to be written, in an order that does not depend on chance.
    pub fn finish(self) -> Written {
        let changes = self.books.finish();
        let rows = |rows: Vec<(Key, Record)>| {
            let mut rows: Vec<_> = rows.into_iter().map(|(key, record)| (key, HoldRow(record))).collect();
            rows.sort_by(|(a, _), (b, _)| a.cmp(b));
            rows
        };
        let mut plans = self.plans;
        let mut seats = Vec::new();
        for (event, label, change) in changes.seats {
            if let Some(row) = plans.iter_mut().find(|row| row.id() == event) {
                let moved = change.placed.is_some();
                row.plan.retain(|(known, ..)| !(change.removed || moved) || *known != label);
                row.plan.extend(change.placed.map(|(kind, position)| (label.clone(), kind, position)));
            }
            if change.given_back || change.taken.is_some() {
                seats.push((event, label, change.taken));
            }
        }
        seats.sort();
        let offered = changes.offered.into_iter().map(|event| {
            let plan = plans.iter().find(|row| row.id() == event.id).map(|row| row.plan.clone()).unwrap_or_default();
            EventRow { event: Event { seats: Seats::default(), ..event }, plan }
        });
        let left = |left: crate::allocation::Left| {
            let crate::allocation::Left { event, kind, available, free_from } = left;
            Left { event, kind, available, free_from }
        };
        Written {
            offered: offered.collect(),
            inserted: rows(changes.inserted),
            updated: rows(changes.updated),
            left: changes.left.into_iter().map(left).collect(),
            offers: changes.offers.into_iter().map(|offer| (offer.key, offer.answer)).collect(),
            fences: changes.fences.into_iter().map(|fence| ((fence.key, fence.id), fence.answer)).collect(),
            seats,
        }
    }
}
