//! What may come, and the commands that it is.

use eventicket_contracts::bookings::{Confirm, Offer, OfferedType, Release, Reserve, ReserveItem};
use eventicket_contracts::envelope::{Fence, Key};
use eventicket_contracts::{Currency, CustomerId, EventId, Money, SagaId, TicketTypeId, Timestamp, codes};
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use crate::commands::{Body, Command, Round, fence, offer, reserve};

pub const NOW: Timestamp = Timestamp(1_795_514_400_000);
pub const TYPES: usize = 2;
const SAGAS: u8 = 16;
const SEATS: u8 = 6;

#[derive(Clone, Debug)]
pub enum Op {
    Reserve { saga: u8, round: u32, event: u8, customer: u8, items: [Item; TYPES] },
    Release { saga: u8, round: u32, event: u8, expired: bool },
    Confirm { saga: u8, round: u32, event: u8 },
    Offer { saga: u8, event: u8, version: i64, sale: Sale },
    Fence { saga: u8, round: u32, event: u8, of: Of, id: u32, undo: bool },
}

/// A quantity of a type, with seats where some are named.
#[derive(Clone, Debug, Default)]
pub struct Item {
    pub quantity: u32,
    pub seats: Vec<u8>,
}

/// What an offer says.
#[derive(Clone, Debug)]
pub struct Sale {
    pub on_sale: bool,
    pub cancelled: bool,
    pub limit: Option<u32>,
    pub types: [Option<Offered>; TYPES],
}

#[derive(Clone, Debug, Default)]
pub struct Offered {
    pub quantity: u32,
    pub seats: Vec<u8>,
}

/// The round that is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    Reserve,
    Confirm,
    Offer(i64),
}

#[derive(Clone, Debug)]
pub enum Step {
    Batch(Vec<Op>),
    Sweep { saga: u8, round: u32 },
}

/// Mostly both events are offered before anything else comes.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let opening = proptest::option::weighted(0.9, [sale(), sale()]);
    (opening, proptest::collection::vec(step(), 1..14)).prop_map(|(opening, steps)| {
        let offers = opening
            .into_iter()
            .flat_map(|sales| (0..).zip(sales).map(|(event, sale)| Op::Offer { saga: SAGAS, event, version: 1, sale }));
        std::iter::once(Step::Batch(offers.collect())).chain(steps).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => proptest::collection::vec(op(), 1..12).prop_map(Step::Batch),
        1 => (0..SAGAS, 1..3_u32).prop_map(|(saga, round)| Step::Sweep { saga, round }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let who = (0..SAGAS, 1..3_u32, 0..2_u8);
    let of = prop_oneof![2 => Just(Of::Reserve), 2 => Just(Of::Confirm), 1 => (1..6_i64).prop_map(Of::Offer)];
    prop_oneof![
        7 => (who.clone(), 0..3_u8, [item(), item()]).prop_filter_map("nothing", |((saga, round, event), customer, items)| {
            let some = items.iter().any(|item| item.quantity > 0);
            some.then_some(Op::Reserve { saga, round, event, customer, items })
        }),
        3 => (who.clone(), any::<bool>()).prop_map(|((saga, round, event), expired)| Op::Release { saga, round, event, expired }),
        3 => who.clone().prop_map(|(saga, round, event)| Op::Confirm { saga, round, event }),
        3 => (who.clone(), 1..6_i64, sale()).prop_map(|((saga, _, event), version, sale)| {
            Op::Offer { saga, event, version, sale }
        }),
        1 => (who, of, 1..3_u32, any::<bool>()).prop_map(|((saga, round, event), of, id, undo)| {
            Op::Fence { saga, round, event, of, id, undo }
        }),
    ]
}

/// Seats are mostly as many as tickets, and mostly different ones of the first labels.
fn item() -> impl Strategy<Value = Item> {
    let seats = proptest::collection::vec(0..SEATS, 3);
    (0..3_u32, any::<bool>(), seats, 0..10_u8).prop_map(|(quantity, named, mut seats, odd)| {
        seats.truncate(if odd == 0 { 3 } else { quantity as usize });
        Item { quantity, seats: if named && quantity > 0 { seats } else { Vec::new() } }
    })
}

fn sale() -> impl Strategy<Value = Sale> {
    let offered = || {
        let seats = Just((0..SEATS).collect::<Vec<u8>>()).prop_shuffle();
        prop_oneof![
            1 => Just(None),
            3 => (0..6_u32).prop_map(|quantity| Some(Offered { quantity, seats: Vec::new() })),
            4 => (seats, 1..=usize::from(SEATS)).prop_map(|(mut seats, most)| {
                seats.truncate(most);
                Some(Offered { quantity: 0, seats })
            }),
        ]
    };
    let limit = proptest::option::weighted(0.4, 1..5_u32);
    (0..8_u8, limit, [offered(), offered()]).prop_map(|(state, limit, [first, mut second])| {
        // Each seat once: the first type has it.
        let of_first = first.iter().flat_map(|offered| &offered.seats).copied().collect::<Vec<_>>();
        second.iter_mut().for_each(|offered| offered.seats.retain(|seat| !of_first.contains(seat)));
        let mut types = [first, second];
        for offered in types.iter_mut().flatten().filter(|offered| !offered.seats.is_empty()) {
            offered.quantity = u32::try_from(offered.seats.len()).unwrap();
        }
        Sale { on_sale: state > 1, cancelled: state == 0, limit, types }
    })
}

// Ids that carry a time which is not too old, and a number.
fn saga(n: u8) -> SagaId {
    SagaId(uuid::Builder::from_unix_timestamp_millis(NOW.millis().unsigned_abs(), &[n; 10]).into_uuid())
}

pub fn event(n: u8) -> EventId {
    EventId(Uuid::from_u128(u128::from(n)))
}

fn customer(n: u8) -> CustomerId {
    CustomerId(Uuid::from_u128(u128::from(n) + 200))
}

pub fn kind(n: usize) -> TicketTypeId {
    TicketTypeId(Uuid::from_u128(n as u128 + 100))
}

pub fn key(n: u8, step: &str, round: u32) -> Key {
    Key { saga: saga(n), step: step.to_owned(), round }
}

pub fn label(seat: u8) -> String {
    format!("S{seat}")
}

fn labels(seats: &[u8]) -> Vec<String> {
    seats.iter().map(|seat| label(*seat)).collect()
}

impl Op {
    pub fn command(&self) -> Command {
        let (key, body) = match self {
            Self::Reserve { saga, round, event, customer, items } => {
                let order = reserve::check(order(*event, *customer, items)).unwrap();
                (key(*saga, "RESERVE", *round), Body::Reserve(order))
            }
            Self::Release { saga, round, event: e, expired } => {
                let reason = if *expired { codes::HOLD_EXPIRED } else { codes::CANCELLED }.to_owned();
                (key(*saga, "RESERVE", *round), Body::Release(Release { event: event(*e), reason }))
            }
            Self::Confirm { saga, round, event } => {
                (key(*saga, "CONFIRM", *round), Body::Confirm(confirm(*event, *round)))
            }
            Self::Offer { saga, event, version, sale } => {
                let offer = offer::check(self::offer(*event, *version, sale)).unwrap();
                (offer_key(*saga, *event, *version), Body::Offer(offer))
            }
            Self::Fence { saga, round, event, of, id, undo } => {
                let (key, action, body) = match of {
                    Of::Reserve => (key(*saga, "RESERVE", *round), "reserve", Value::Null),
                    Of::Confirm => {
                        let body = serde_json::to_value(confirm(*event, *round)).unwrap();
                        (key(*saga, "CONFIRM", *round), "confirm", body)
                    }
                    Of::Offer(version) => (offer_key(*saga, *event, *version), "offer", Value::Null),
                };
                let fence = Fence { id: *id, action: action.to_owned(), undo: *undo, body: body.into() };
                (key, Body::Fence(fence::check(fence).unwrap()))
            }
        };
        Command { round: Round { key, deadline: None, trace: None }, body }
    }

    /// What its answer is recorded as, where a repeat must get it again whatever happened in between.
    pub fn recorded(&self) -> Option<String> {
        match self {
            Self::Reserve { .. } => Some("reserve".into()),
            Self::Offer { .. } => Some("offer".into()),
            Self::Fence { id, .. } => Some(format!("fence {id}")),
            Self::Release { .. } | Self::Confirm { .. } => None,
        }
    }
}

fn offer_key(saga: u8, event: u8, version: i64) -> Key {
    key(saga, &format!("OFFER{event}V{version}"), 1)
}

fn order(e: u8, c: u8, items: &[Item; TYPES]) -> Reserve {
    let items = items.iter().enumerate().filter(|(_, item)| item.quantity > 0);
    let item = |(at, item): (usize, &Item)| ReserveItem {
        ticket_type: kind(at),
        quantity: item.quantity,
        seats: labels(&item.seats),
    };
    let (event, customer, items) = (event(e), customer(c), items.map(item).collect());
    Reserve { event, customer, items, expected_total: None, hold_seconds: 60, grace_seconds: 30 }
}

fn confirm(e: u8, round: u32) -> Confirm {
    Confirm { event: event(e), hold_step: "RESERVE".into(), hold_round: round }
}

fn offer(e: u8, version: i64, sale: &Sale) -> Offer {
    let price = Money { amount: 100, currency: Currency::EUR };
    let ticket_types = sale.types.iter().enumerate().filter_map(|(at, offered)| {
        let Offered { quantity, seats } = offered.clone()?;
        let (id, name, seats) = (kind(at), "Seat".to_owned(), labels(&seats));
        Some(OfferedType { id, name, price, quantity, max_per_order: None, seats })
    });
    Offer {
        event: event(e),
        version,
        title: "Gala".into(),
        starts_at: NOW,
        ends_at: Timestamp(NOW.millis() + 1_000),
        on_sale: sale.on_sale,
        cancelled: sale.cancelled,
        hold_seconds: None,
        max_per_customer: sale.limit,
        ticket_types: ticket_types.collect(),
    }
}
