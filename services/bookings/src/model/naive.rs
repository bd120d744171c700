//! The naive model: nothing but lists of holds and offers, counted anew for each question.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::bookings::Reserved;
use eventicket_contracts::codes;
use eventicket_contracts::envelope::Answer;

use super::ops::{Item, Of, Offered, Op, Sale, TYPES, kind};

pub const DONE: &str = "done";

#[derive(Default)]
pub struct Model {
    /// By event, with the version.
    pub sales: BTreeMap<u8, (i64, Sale)>,
    /// By saga and round.
    pub holds: BTreeMap<(u8, u32), Hold>,
    offers: BTreeMap<(u8, u8, i64), &'static str>,
    fences: BTreeMap<(u8, u32, u8, Of, u32), String>,
}

#[derive(Clone, Debug, Default)]
pub struct Hold {
    pub state: State,
    pub event: u8,
    customer: u8,
    quantities: [u32; TYPES],
    pub seats: [Vec<u8>; TYPES],
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum State {
    Held,
    Confirmed,
    Gone,
    Refused(&'static str),
    #[default]
    Tombstone,
}

impl State {
    pub fn counts(self) -> bool {
        matches!(self, Self::Held | Self::Confirmed)
    }
}

impl Model {
    fn live(&self, event: u8) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter(move |hold| hold.event == event && hold.state.counts())
    }

    pub fn used(&self, event: u8, at: usize) -> u32 {
        self.live(event).map(|hold| hold.quantities[at]).sum()
    }

    fn is_taken(&self, event: u8, seat: u8) -> bool {
        self.live(event).any(|hold| hold.seats.iter().flatten().any(|taken| *taken == seat))
    }

    pub fn sweep(&mut self, saga: u8, round: u32) {
        let held = self.holds.get_mut(&(saga, round)).filter(|hold| hold.state == State::Held);
        held.into_iter().for_each(|hold| hold.state = State::Gone);
    }

    /// `done` or the code of the rejection, of both ends for a fence. Which seats were chosen is taken from the answer.
    pub fn answer(&mut self, op: &Op, answer: &Answer) -> String {
        match op {
            Op::Reserve { saga, round, event, customer, items } => {
                let known = self.holds.get(&(*saga, *round)).map(|hold| hold.state);
                let state = known.unwrap_or_else(|| self.reserve((*saga, *round), *event, *customer, items, answer));
                match state {
                    State::Refused(code) => code,
                    State::Tombstone => codes::UNDONE,
                    State::Held | State::Confirmed | State::Gone => DONE,
                }
                .to_owned()
            }
            Op::Release { saga, round, event, .. } => {
                let hold = self.hold(*saga, *round, *event);
                match hold.state {
                    State::Confirmed => return codes::CONFIRMED.to_owned(),
                    State::Held => hold.state = State::Gone,
                    State::Gone | State::Refused(_) | State::Tombstone => {}
                }
                DONE.to_owned()
            }
            Op::Confirm { saga, round, event } => {
                let hold = self.hold(*saga, *round, *event);
                match hold.state {
                    State::Held | State::Confirmed => hold.state = State::Confirmed,
                    State::Gone | State::Refused(_) | State::Tombstone => return codes::HOLD_GONE.to_owned(),
                }
                DONE.to_owned()
            }
            Op::Offer { saga, event, version, sale } => {
                let round = (*saga, *event, *version);
                if let Some(answer) = self.offers.get(&round) {
                    return (*answer).to_owned();
                }
                let answer = self.offer(*event, *version, sale);
                self.offers.insert(round, answer);
                answer.to_owned()
            }
            Op::Fence { saga, round, event, of, id, undo } => {
                // An offer's round has a number of its own.
                let round = if let Of::Offer(_) = of { 1 } else { *round };
                let event_of_key = if let Of::Offer(_) = of { *event } else { 0 };
                let number = (*saga, round, event_of_key, *of, *id);
                if let Some(told) = self.fences.get(&number) {
                    return told.clone();
                }
                let (effect, ended) = self.fence(*saga, round, *event, *of);
                let told = if *undo { format!("{effect} {ended}") } else { effect.to_owned() };
                self.fences.insert(number, told.clone());
                told
            }
        }
    }

    /// What is recorded, or a tombstone.
    fn hold(&mut self, saga: u8, round: u32, event: u8) -> &mut Hold {
        self.holds.entry((saga, round)).or_insert(Hold { event, ..Hold::default() })
    }

    fn reserve(&mut self, round: (u8, u32), event: u8, customer: u8, items: &[Item; TYPES], answer: &Answer) -> State {
        let refusal = self.refusal(event, customer, items);
        let mut seats: [Vec<u8>; TYPES] = Default::default();
        if refusal.is_none() {
            for (at, item) in items.iter().enumerate().filter(|(_, item)| item.quantity > 0) {
                seats[at] = chosen(answer, at);
                self.check_choice(event, at, item, &seats[at]);
            }
        }
        let state = refusal.map_or(State::Held, State::Refused);
        let quantities = std::array::from_fn(|at| items[at].quantity);
        self.holds.insert(round, Hold { state, event, customer, quantities, seats });
        state
    }

    /// Those that were named, or free ones of the type: one alone is the first.
    fn check_choice(&self, event: u8, at: usize, item: &Item, chosen: &[u8]) {
        let plan = &self.offered(event, at).unwrap().seats;
        if plan.is_empty() {
            return assert!(chosen.is_empty());
        }
        assert_eq!(chosen.len(), item.quantity as usize);
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
        if !item.seats.is_empty() {
            return assert_eq!(chosen, item.seats);
        }
        let mut free = plan.iter().filter(|seat| !self.is_taken(event, **seat));
        assert!(chosen.iter().all(|seat| plan.contains(seat) && !self.is_taken(event, *seat)));
        assert!(chosen.len() > 1 || chosen.first() == free.next());
    }

    fn offered(&self, event: u8, at: usize) -> Option<&Offered> {
        self.sales.get(&event)?.1.types[at].as_ref()
    }

    fn refusal(&self, event: u8, customer: u8, items: &[Item; TYPES]) -> Option<&'static str> {
        let orders = || items.iter().enumerate().filter(|(_, item)| item.quantity > 0);
        let Some((_, sale)) = self.sales.get(&event) else { return Some(codes::UNKNOWN_TICKET_TYPE) };
        if sale.cancelled {
            return Some(codes::EVENT_CANCELLED);
        }
        if orders().any(|(at, _)| sale.types[at].is_none()) {
            return Some(codes::UNKNOWN_TICKET_TYPE);
        }
        if !sale.on_sale {
            return Some(codes::NOT_ON_SALE);
        }
        let bought = self.live(event).filter(|hold| hold.customer == customer).flat_map(|hold| hold.quantities);
        let all = bought.sum::<u32>() + orders().map(|(_, item)| item.quantity).sum::<u32>();
        if sale.limit.is_some_and(|limit| all > limit) {
            return Some(codes::CUSTOMER_LIMIT);
        }
        if orders().any(|(at, item)| !item.seats.is_empty() && !are_seats(item, sale.types[at].as_ref())) {
            return Some(codes::UNKNOWN_SEAT);
        }
        orders().find_map(|(at, item)| {
            let left = self.offered(event, at)?.quantity - self.used(event, at);
            if item.seats.iter().any(|seat| self.is_taken(event, *seat)) {
                return Some(codes::SEAT_TAKEN);
            }
            (item.quantity > left).then_some(codes::SOLD_OUT)
        })
    }

    fn offer(&mut self, event: u8, version: i64, sale: &Sale) -> &'static str {
        let known = self.sales.get(&event);
        if known.is_some_and(|(known, _)| *known > version) {
            return DONE;
        }
        if known.is_some_and(|(_, known)| known.cancelled) && !sale.cancelled {
            return codes::EVENT_CANCELLED;
        }
        if (!sale.on_sale || sale.cancelled) && self.live(event).count() > 0 {
            return codes::HAS_BOOKINGS;
        }
        for (at, new) in sale.types.iter().enumerate() {
            let (used, new) = (self.used(event, at), new.clone().unwrap_or_default());
            let was_numbered = self.offered(event, at).is_some_and(|known| !known.seats.is_empty());
            let switched = used > 0 && was_numbered == new.seats.is_empty();
            let mut taken = self.live(event).flat_map(|hold| &hold.seats[at]);
            if new.quantity < used || switched || taken.any(|seat| !new.seats.contains(seat)) {
                return codes::BELOW_SOLD;
            }
        }
        self.sales.insert(event, (version, sale.clone()));
        DONE
    }

    /// What became of the do, and of its undo.
    fn fence(&mut self, saga: u8, round: u32, event: u8, of: Of) -> (&'static str, &'static str) {
        match of {
            Of::Reserve => match self.hold(saga, round, event).state {
                State::Tombstone => (codes::CLOSED, codes::CLOSED),
                State::Held => (DONE, codes::CLOSED),
                State::Confirmed => (DONE, codes::CONFIRMED),
                State::Gone => (DONE, DONE),
                State::Refused(code) => (code, DONE),
            },
            Of::Confirm => {
                let hold = self.hold(saga, round, event);
                if hold.state == State::Held {
                    hold.state = State::Gone;
                }
                (if hold.state == State::Confirmed { DONE } else { codes::CLOSED }, codes::CLOSED)
            }
            Of::Offer(version) => (self.offers.entry((saga, event, version)).or_insert(codes::CLOSED), codes::CLOSED),
        }
    }
}

fn are_seats(item: &Item, offered: Option<&Offered>) -> bool {
    let different: BTreeSet<&u8> = item.seats.iter().collect();
    let planned = |seat: &u8| offered.is_some_and(|offered| offered.seats.contains(seat));
    different.len() == item.quantity as usize && item.seats.len() == different.len() && item.seats.iter().all(planned)
}

/// The seats of a type in the answer to a reserve.
fn chosen(answer: &Answer, at: usize) -> Vec<u8> {
    let Answer::Done(output) = answer else { panic!("{answer:?}") };
    let reserved: Reserved = output.read().unwrap();
    let line = reserved.lines.iter().find(|line| line.ticket_type_id == kind(at)).unwrap();
    line.seats.iter().map(|label| label[1..].parse().unwrap()).collect()
}
