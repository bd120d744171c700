//! Property tests: random commands in random batches, against a model that counts naively and knows no batches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use eventicket_contracts::bookings::{Confirm, Offer, OfferedType, Release, Reserve, ReserveItem};
use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{Currency, CustomerId, EventId, Money, SagaId, TicketTypeId, Timestamp, codes};
use proptest::prelude::*;
use uuid::Uuid;

use crate::allocation::{Books, Changes, Content, Event, Phase, Record};
use crate::commands::{Body, Command, Round};

const NOW: Timestamp = Timestamp(1_795_514_400_000);
const EVENTS: u8 = 2;
const TYPES: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    Reserve { saga: u8, round: u32, event: u8, quantities: [u32; TYPES] },
    Release { saga: u8, round: u32, event: u8, expired: bool },
    Confirm { saga: u8, round: u32, event: u8 },
    Offer { saga: u8, event: u8, version: i64, quantities: [Option<u32>; TYPES] },
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Op>),
    Sweep { saga: u8, round: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => proptest::collection::vec(op(), 1..12).prop_map(Step::Batch),
        1 => (0..8_u8, 1..3_u32).prop_map(|(saga, round)| Step::Sweep { saga, round }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let (saga, round, event) = (0..8_u8, 1..3_u32, 0..EVENTS);
    let who = (saga, round, event);
    let some = proptest::option::weighted(0.8, 0..6_u32);
    prop_oneof![
        6 => (who.clone(), [0..3_u32, 0..3_u32]).prop_filter_map("nothing", |((saga, round, event), quantities)| {
            (quantities != [0, 0]).then_some(Op::Reserve { saga, round, event, quantities })
        }),
        3 => (who.clone(), any::<bool>()).prop_map(|((saga, round, event), expired)| Op::Release { saga, round, event, expired }),
        3 => who.clone().prop_map(|(saga, round, event)| Op::Confirm { saga, round, event }),
        3 => (who, 1..5_i64, [some.clone(), some]).prop_map(|((saga, _, event), version, quantities)| {
            Op::Offer { saga, event, version, quantities }
        }),
    ]
}

// Ids that carry a time which is not too old, and a number.
fn saga(n: u8) -> SagaId {
    SagaId(uuid::Builder::from_unix_timestamp_millis(NOW.millis().unsigned_abs(), &[n; 10]).into_uuid())
}

fn event(n: u8) -> EventId {
    EventId(Uuid::from_u128(u128::from(n)))
}

fn kind(n: usize) -> TicketTypeId {
    TicketTypeId(Uuid::from_u128(n as u128 + 100))
}

fn key(n: u8, step: &str, round: u32) -> Key {
    Key { saga: saga(n), step: step.to_owned(), round }
}

impl Op {
    fn command(&self) -> Command {
        let customer = CustomerId(Uuid::nil());
        let (key, body) = match self {
            Op::Reserve { saga, round, event: e, quantities } => {
                let items = quantities.iter().enumerate().filter(|(_, quantity)| **quantity > 0);
                let items =
                    items.map(|(at, quantity)| ReserveItem { ticket_type: kind(at), quantity: *quantity }).collect();
                let event = event(*e);
                let order =
                    Reserve { event, customer, items, expected_total: None, hold_seconds: 60, grace_seconds: 30 };
                (key(*saga, "RESERVE", *round), Body::Reserve(order))
            }
            Op::Release { saga, round, event: e, expired } => {
                let reason = if *expired { codes::HOLD_EXPIRED } else { codes::CANCELLED }.to_owned();
                (key(*saga, "RESERVE", *round), Body::Release(Release { event: event(*e), reason }))
            }
            Op::Confirm { saga, round, event: e } => {
                let confirm = Confirm { event: event(*e), hold_step: "RESERVE".into(), hold_round: *round };
                (key(*saga, "CONFIRM", *round), Body::Confirm(confirm))
            }
            Op::Offer { saga, event: e, version, quantities } => {
                (key(*saga, &format!("OFFER{e}V{version}"), 1), Body::Offer(offer(*e, *version, quantities)))
            }
        };
        Command { round: Round { key, deadline: None, trace: None }, body }
    }
}

impl Op {
    /// The action, where a repeat must get the same answer whatever happened in between.
    fn recorded(&self) -> Option<&'static str> {
        match self {
            Self::Reserve { .. } => Some("reserve"),
            Self::Offer { .. } => Some("offer"),
            Self::Release { .. } | Self::Confirm { .. } => None,
        }
    }
}

fn offer(e: u8, version: i64, quantities: &[Option<u32>; TYPES]) -> Offer {
    let price = Money { amount: 100, currency: Currency::EUR };
    let ticket_types = quantities.iter().enumerate().filter_map(|(at, quantity)| {
        Some(OfferedType { id: kind(at), name: "Seat".into(), price, quantity: (*quantity)?, max_per_order: None })
    });
    Offer {
        event: event(e),
        version,
        title: "Gala".into(),
        starts_at: NOW,
        ends_at: Timestamp(NOW.millis() + 1_000),
        on_sale: true,
        hold_seconds: None,
        max_per_customer: None,
        ticket_types: ticket_types.collect(),
    }
}

/// What the database would hold, written by [`Changes`] alone.
#[derive(Default)]
struct Tables {
    records: HashMap<Key, Record>,
    events: HashMap<EventId, Event>,
    offers: HashMap<Key, Answer>,
}

impl Tables {
    fn books(&self, sagas: &BTreeSet<SagaId>) -> Books {
        let of = |key: &Key| sagas.contains(&key.saga);
        let records = self.records.iter().filter(|(key, _)| of(key)).map(|(key, record)| (key.clone(), record.clone()));
        let offers = self.offers.iter().filter(|(key, _)| of(key)).map(|(key, answer)| (key.clone(), answer.clone()));
        Books::new(records, offers)
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
        for (event, id, available) in changes.available {
            let types = &mut self.events.get_mut(&event).unwrap().types;
            types.iter_mut().find(|kind| kind.id == id).unwrap().available = available;
        }
        self.events.extend(changes.offered.into_iter().map(|event| (event.id, event)));
        for offer in changes.offers {
            assert!(self.offers.insert(offer.key, offer.answer).is_none(), "an offer is recorded once");
        }
    }

    /// One batch, the way the service goes.
    fn batch(&mut self, ops: &[Op]) -> Vec<Answer> {
        let commands: Vec<Command> = ops.iter().map(Op::command).collect();
        let mut books = self.books(&commands.iter().map(|command| command.round.key.saga).collect());
        let wanted: BTreeSet<EventId> = commands.iter().filter_map(|command| command.event(&books)).collect();
        books.add_events(wanted.iter().filter_map(|id| self.events.get(id).cloned()));
        let answers = commands.iter().map(|command| command.decide(&mut books, NOW).unwrap()).collect();
        self.write(books.finish());
        answers
    }

    fn sweep(&mut self, key: &Key) {
        let mut books = self.books(&BTreeSet::from([key.saga]));
        let event = books.held_event(key).and_then(|id| self.events.get(&id).cloned());
        books.add_events(event);
        books.end(key, Phase::Expired, codes::HOLD_EXPIRED, None);
        self.write(books.finish());
    }
}

/// The naive model: nothing but a list of holds, counted anew for each question.
#[derive(Default)]
struct Model {
    quantities: BTreeMap<u8, (i64, [Option<u32>; TYPES])>,
    holds: BTreeMap<(u8, u32), (State, u8, [u32; TYPES])>,
    offers: BTreeMap<(u8, u8, i64), &'static str>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Held,
    Confirmed,
    Gone,
    Refused(&'static str),
    Tombstone,
}

const DONE: &str = "done";

impl Model {
    fn used(&self, event: u8, at: usize) -> u32 {
        let counts = |state: &State| matches!(state, State::Held | State::Confirmed);
        self.holds
            .values()
            .filter(|(state, e, _)| *e == event && counts(state))
            .map(|(.., quantities)| quantities[at])
            .sum()
    }

    fn sweep(&mut self, saga: u8, round: u32) {
        let held = self.holds.get_mut(&(saga, round)).filter(|hold| hold.0 == State::Held);
        held.into_iter().for_each(|hold| hold.0 = State::Gone);
    }

    /// `done` or the code of the rejection.
    fn answer(&mut self, op: &Op) -> &'static str {
        match op {
            Op::Reserve { saga, round, event, quantities } => match self.holds.get(&(*saga, *round)) {
                Some((State::Refused(code), ..)) => code,
                Some((State::Tombstone, ..)) => codes::UNDONE,
                Some(_) => DONE,
                None => {
                    let refusal = self.refusal(*event, quantities);
                    let state = refusal.map_or(State::Held, State::Refused);
                    self.holds.insert((*saga, *round), (state, *event, *quantities));
                    refusal.unwrap_or(DONE)
                }
            },
            Op::Release { saga, round, event, .. } => {
                let hold = self.holds.entry((*saga, *round)).or_insert((State::Tombstone, *event, [0; TYPES]));
                match hold.0 {
                    State::Confirmed => return codes::CONFIRMED,
                    State::Held => hold.0 = State::Gone,
                    State::Gone | State::Refused(_) | State::Tombstone => {}
                }
                DONE
            }
            Op::Confirm { saga, round, event } => {
                let hold = self.holds.entry((*saga, *round)).or_insert((State::Tombstone, *event, [0; TYPES]));
                match hold.0 {
                    State::Held | State::Confirmed => hold.0 = State::Confirmed,
                    State::Gone | State::Refused(_) | State::Tombstone => return codes::HOLD_GONE,
                }
                DONE
            }
            Op::Offer { saga, event, version, quantities } => {
                if let Some(answer) = self.offers.get(&(*saga, *event, *version)) {
                    return answer;
                }
                let known = self.quantities.get(event).map_or(0, |(version, _)| *version);
                let below = (0..TYPES).any(|at| quantities[at].unwrap_or(0) < self.used(*event, at));
                let answer = if known <= *version && below { codes::BELOW_SOLD } else { DONE };
                if known <= *version && !below {
                    self.quantities.insert(*event, (*version, *quantities));
                }
                self.offers.insert((*saga, *event, *version), answer);
                answer
            }
        }
    }

    fn refusal(&self, event: u8, wanted: &[u32; TYPES]) -> Option<&'static str> {
        let quantities = self.quantities.get(&event).map_or([None; TYPES], |(_, quantities)| *quantities);
        let orders = || (0..TYPES).filter(|at| wanted[*at] > 0);
        if orders().any(|at| quantities[at].is_none()) {
            return Some(codes::UNKNOWN_TICKET_TYPE);
        }
        let left = |at: usize| quantities[at].unwrap_or(0) - self.used(event, at);
        orders().any(|at| wanted[at] > left(at)).then_some(codes::SOLD_OUT)
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Done(_) => DONE.to_owned(),
        Answer::Rejected(rejection) => rejection.code.clone(),
        other => format!("{other:?}"),
    }
}

fn check(tables: &Tables, model: &Model) {
    for (e, (version, quantities)) in &model.quantities {
        let event = &tables.events[&event(*e)];
        assert_eq!(event.version, *version);
        assert_eq!(event.types.len(), quantities.iter().flatten().count());
        for (at, quantity) in quantities.iter().enumerate() {
            let Some(quantity) = quantity else { continue };
            let kind = event.types.iter().find(|t| t.id == kind(at)).unwrap();
            assert_eq!((kind.quantity, kind.available), (*quantity, quantity - model.used(*e, at)));
        }
    }
    for ((n, round), (state, ..)) in &model.holds {
        let state = match &tables.records[&key(*n, "RESERVE", *round)].content {
            Content::Hold(hold) => {
                let state = *state;
                match hold.phase {
                    Phase::Held => state == State::Held,
                    Phase::Confirmed => state == State::Confirmed,
                    Phase::Released | Phase::Expired => state == State::Gone,
                }
            }
            Content::Refused { .. } => matches!(state, State::Refused(_)),
            Content::Tombstone => *state == State::Tombstone,
        };
        assert!(state);
    }
    assert_eq!(tables.records.len(), model.holds.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rule_04_batches_decide_as_a_naive_count_would(steps in proptest::collection::vec(step(), 1..14)) {
        let (mut tables, mut model) = (Tables::default(), Model::default());
        let mut first: HashMap<(Key, &str), Answer> = HashMap::new();
        for step in &steps {
            match step {
                Step::Sweep { saga, round } => {
                    tables.sweep(&key(*saga, "RESERVE", *round));
                    model.sweep(*saga, *round);
                }
                Step::Batch(ops) => {
                    let answers = tables.batch(ops);
                    for (op, answer) in ops.iter().zip(answers) {
                        prop_assert_eq!(told(&answer), model.answer(op), "{:?}", op);
                        let Some(recorded) = op.recorded() else { continue };
                        let known = first.entry((op.command().round.key, recorded)).or_insert(answer.clone());
                        prop_assert_eq!(&*known, &answer, "a repeat gets the first answer again");
                    }
                }
            }
            check(&tables, &model);
        }
    }
}
