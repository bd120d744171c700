//! What the database would hold, read as the store reads and written by [`Changes`] alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{EventId, SagaId, TicketTypeId, codes};

use super::ops::{NOW, Op};
use crate::allocation::{Books, Changes, Left, Phase, Record};
use crate::commands::{Command, needs};
use crate::event::Event;
use crate::needs::Needs;
use crate::seats::{Seat, Seats};

#[derive(Default)]
pub struct Tables {
    pub records: HashMap<Key, Record>,
    /// Without their seats.
    pub events: HashMap<EventId, Event>,
    pub plan: BTreeMap<(EventId, String), (TicketTypeId, u32)>,
    pub taken: BTreeMap<(EventId, String), Key>,
    offers: HashMap<Key, Answer>,
    fences: HashMap<(Key, u32), Answer>,
}

impl Tables {
    /// One batch, the way the service goes.
    pub fn batch(&mut self, ops: &[Op]) -> Vec<Answer> {
        let commands: Vec<Command> = ops.iter().map(Op::command).collect();
        let mut books = self.books(&commands.iter().map(|command| command.round.key.saga).collect());
        let wanted: BTreeSet<EventId> = commands.iter().filter_map(|command| command.event(&books)).collect();
        books.add_events(wanted.iter().filter_map(|id| self.events.get(id).cloned()));
        let needs = needs(&commands.iter().collect::<Vec<_>>(), &books);
        self.supply(&mut books, &needs);
        let answers = commands.iter().map(|command| command.decide(&mut books, NOW).unwrap()).collect();
        self.write(books.finish());
        answers
    }

    pub fn sweep(&mut self, key: &Key) {
        let mut books = self.books(&BTreeSet::from([key.saga]));
        let event = books.held(key).and_then(|(id, _)| self.events.get(&id).cloned());
        books.add_events(event);
        let mut needs = Needs::default();
        needs.hold(key, &books);
        self.supply(&mut books, &needs);
        books.end(key, Phase::Expired, codes::HOLD_EXPIRED, None);
        self.write(books.finish());
    }

    fn books(&self, sagas: &BTreeSet<SagaId>) -> Books {
        let of = |key: &Key| sagas.contains(&key.saga);
        let records = self.records.iter().filter(|(key, _)| of(key));
        let mut books = Books::new(records.map(|(key, record)| (key.clone(), record.clone())));
        let offers = self.offers.iter().filter(|(key, _)| of(key));
        books.add_offers(offers.map(|(key, answer)| (key.clone(), answer.clone())));
        let fences = self.fences.iter().filter(|((key, _), _)| of(key));
        books.add_fences(fences.map(|(fence, answer)| (fence.clone(), answer.clone())));
        books
    }

    /// Not a seat more than is asked for.
    fn supply(&self, books: &mut Books, needs: &Needs) {
        let seat = |at: &(EventId, String)| {
            let (kind, position) = *self.plan.get(at)?;
            Some(Seat { kind, position, holder: self.taken.get(at).cloned() })
        };
        let whole = self.plan.keys().filter(|(event, _)| needs.plans.contains(event)).cloned();
        let named = needs.seats().map(|(event, label)| (event, label.to_owned()));
        let first = needs.free().flat_map(|free| {
            let is_free = |at: &(EventId, String)| at.0 == free.event && !self.taken.contains_key(at);
            let of_kind = self.plan.iter().filter(|(at, (kind, _))| is_free(at) && *kind == free.kind);
            let mut of_kind: Vec<_> = of_kind.map(|(at, (_, position))| (*position, at.clone())).collect();
            of_kind.sort();
            let first = of_kind.into_iter().filter(|(position, _)| *position >= free.from);
            first.take(free.number as usize).map(|(position, at)| (at, free.kind, position)).collect::<Vec<_>>()
        });
        let first: Vec<_> = first.collect();
        for (at, kind, position) in &first {
            books.read_to(at.0, *kind, *position);
        }
        let first = first.into_iter().map(|(at, ..)| at);
        for at in whole.chain(named).chain(first) {
            let Some(seat) = seat(&at) else { continue };
            books.add_seat(at.0, at.1, seat);
        }
        for (event, customer) in &needs.customers {
            let holds = self.records.values().filter(|record| record.event == *event);
            let holds = holds.filter_map(|record| record.content.hold()).filter(|hold| hold.customer == *customer);
            let live = holds.filter(|hold| matches!(hold.phase, Phase::Held | Phase::Confirmed));
            books.add_customer(*event, *customer, live.map(|hold| hold.tickets()).sum());
        }
    }

    fn write(&mut self, changes: Changes) {
        for (key, record) in changes.inserted {
            assert!(self.records.insert(key, record).is_none(), "a row is inserted once");
        }
        for (key, record) in changes.updated {
            let row = self.records.get_mut(&key).expect("a row that is updated exists");
            assert_eq!(row.changes + 1, record.changes, "a hold leaves held exactly once");
            *row = record;
        }
        for Left { event, kind, available, free_from } in changes.left {
            let types = &mut self.events.get_mut(&event).unwrap().types;
            let row = types.iter_mut().find(|row| row.id == kind).unwrap();
            (row.available, row.free_from) = (available, free_from);
        }
        let bare = |event: Event| Event { seats: Seats::default(), ..event };
        self.events.extend(changes.offered.into_iter().map(|event| (event.id, bare(event))));
        for (event, label, change) in changes.seats {
            let at = (event, label);
            if change.given_back {
                assert!(self.taken.remove(&at).is_some(), "what is given back was taken");
            }
            if let Some(holder) = change.taken {
                assert!(self.taken.insert(at.clone(), holder).is_none(), "a seat is taken once");
            }
            if change.removed {
                assert!(self.plan.remove(&at).is_some(), "what is removed was planned");
            }
            if let Some(place) = change.placed {
                self.plan.insert(at, place);
            }
        }
        for offer in changes.offers {
            assert!(self.offers.insert(offer.key, offer.answer).is_none(), "an offer is recorded once");
        }
        for fence in changes.fences {
            assert!(self.fences.insert((fence.key, fence.id), fence.answer).is_none(), "a fence is recorded once");
        }
    }
}
