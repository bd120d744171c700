//! What is sold in a run, who books, and how they pay.

use eventicket_bookings::simulation::Batch;
use eventicket_contracts::bookings::{Offer, OfferedType};
use eventicket_contracts::envelope::{Half, Item, Key};
use eventicket_contracts::{Currency, EventId, Json, Money, SagaId, TicketTypeId, Timestamp, subjects};
use eventicket_nats::Delivered;
use eventicket_orchestrator::runtime::admission::Bound;
use uuid::Uuid;

use crate::choices::Choices;
use crate::processes::ProcessId;
use crate::world::{BEGIN, Sim};

/// How long after its hold's end bookings frees a hold by itself, ms: the grace of the booking saga.
pub(crate) const GRACE: i64 = 73_000;

/// Payment methods; the first one is ordinary.
const TOKENS: [&str; 12] = [
    "pm_card_visa",
    "pm_card_declined",
    "pm_card_processing",
    "pm_card_lost_answer",
    "pm_card_action_required",
    "pm_card_flaky_1",
    "pm_card_flaky_3",
    "pm_card_refund_pending",
    "pm_card_refund_fails_later",
    "pm_card_refund_refused",
    "pm_card_insufficient_funds",
    "pm_card_flaky_5",
];

/// A booking that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Booking {
    pub customer: u32,
    pub tickets: u32,
    /// Given with the booking.
    pub method: Option<&'static str>,
    /// Given later, where one is awaited.
    pub later: Vec<&'static str>,
    /// When it begins, and when its customer cancels it, ms.
    pub at: i64,
    pub cancelled_after: Option<i64>,
}

/// A change of what is sold.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub at: i64,
    pub quantity: u32,
}

/// What a run is about.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub webhooks: bool,
    pub bound: Bound,
    pub quantity: u32,
    pub price: i64,
    pub hold_seconds: Option<u32>,
    pub max_per_customer: Option<u32>,
    pub seats: bool,
    pub bookings: Vec<Booking>,
    pub changes: Vec<Change>,
}

impl Scenario {
    /// Draws one.
    pub fn draw(choices: &mut Choices, webhooks: Option<bool>) -> Self {
        let mut pick = |of: u32| choices.choose(of) as usize;
        let webhooks = webhooks.unwrap_or(pick(2) == 0);
        let count = [1, 1, 2, 2, 3, 4][pick(6)];
        let quantity = [4, 1, 2][pick(3)];
        let price = [4_200, 4_200, 4_200, 0][pick(4)];
        let hold_seconds = [None, Some(20), Some(4), Some(60)][pick(4)];
        let max_per_customer = [None, None, Some(1), Some(2)][pick(4)];
        let seats = pick(4) == 3;
        let bound = if pick(6) == 5 { Bound(8) } else { Bound::default() };
        let bookings = (0..count).map(|number| Booking {
            customer: if pick(3) == 2 { 0 } else { number },
            tickets: [1, 1, 2][pick(3)],
            method: [Some(0), Some(1), None][pick(3)].map(|chosen: usize| TOKENS[chosen * pick(12)]),
            later: (0..pick(3)).map(|_| TOKENS[pick(12)]).collect(),
            at: [0, 5, 900, 9_000][pick(4)],
            cancelled_after: [None, None, None, Some(20), Some(4_000), Some(15_000)][pick(6)],
        });
        let bookings = bookings.collect();
        let changes = match pick(5) {
            3 => vec![Change { at: 800, quantity: 1 }],
            4 => vec![Change { at: 30, quantity: 1 }, Change { at: 6_000, quantity: 3 }],
            _ => Vec::new(),
        };
        Self { webhooks, bound, quantity, price, hold_seconds, max_per_customer, seats, bookings, changes }
    }

    /// A small world: so many bookings of the last ticket.
    pub fn small(bookings: u32, webhooks: bool) -> Self {
        let booking = |customer| Booking {
            customer,
            tickets: 1,
            method: Some(TOKENS[0]),
            later: Vec::new(),
            at: 0,
            cancelled_after: None,
        };
        Self {
            webhooks,
            bound: Bound::default(),
            quantity: 1,
            price: 4_200,
            hold_seconds: None,
            max_per_customer: None,
            seats: false,
            bookings: (0..bookings).map(booking).collect(),
            changes: Vec::new(),
        }
    }

    /// The event that is sold.
    pub fn event() -> EventId {
        EventId(Uuid::from_u64_pair(0xe7e27, 1))
    }

    /// Its type of tickets.
    pub fn ticket_type() -> TicketTypeId {
        TicketTypeId(Uuid::from_u64_pair(0x71c7, 1))
    }

    /// What is sold, in this version.
    pub fn offer(&self, version: i64, quantity: u32) -> Offer {
        let seats = if self.seats { ('A'..).take(quantity as usize).map(String::from).collect() } else { Vec::new() };
        let kind = OfferedType {
            id: Self::ticket_type(),
            name: "Ticket".to_owned(),
            price: Money { amount: self.price, currency: Currency::EUR },
            quantity,
            max_per_order: None,
            seats,
        };
        Offer {
            event: Self::event(),
            version,
            title: "Gala".to_owned(),
            starts_at: Timestamp(BEGIN + 90 * 24 * 3_600_000),
            ends_at: Timestamp(BEGIN + 91 * 24 * 3_600_000),
            on_sale: true,
            cancelled: false,
            hold_seconds: self.hold_seconds,
            max_per_customer: self.max_per_customer,
            ticket_types: vec![kind],
        }
    }
}

/// The command that changes what is sold.
pub(crate) fn offering(sim: &Sim, offer: &Offer) -> Delivered {
    let key = Key { saga: SagaId(sim.fresh_id()), step: "OFFER".to_owned(), round: 1 };
    let body = Json::of(offer).unwrap_or_default();
    let item = Item { key, half: Half::Do, attempt: 1, deadline: None, trace: None, body };
    Delivered { action: "offer".to_owned(), item, reply_to: subjects::reply(0), deliveries: 1 }
}

/// Puts the event on sale, before anything else happens.
pub(crate) fn put_on_sale(sim: &Sim) {
    let mut batch = Batch::of_commands(&[offering(sim, &sim.scenario.offer(1, sim.scenario.quantity))]);
    batch.add_records([]);
    batch.add_events(vec![eventicket_bookings::simulation::EventRow::blank(Scenario::event())]);
    batch.decide(Timestamp(BEGIN));
    let written = batch.finish();
    sim.apply(ProcessId(0), written.offered.into_iter().map(crate::store::Write::Event).collect());
}

/// The organizer changes what is sold, while it is sold.
pub(crate) async fn change(sim: Sim, number: usize) {
    let Some(Change { at, quantity }) = sim.scenario.changes.get(number).cloned() else { return };
    sim.sleep(at).await;
    let version = i64::try_from(number).unwrap_or(0) + 2;
    let offer = offering(&sim, &sim.scenario.offer(version, quantity));
    loop {
        let living = sim.living("bookings");
        let Some(to) = living.first().copied() else {
            sim.sleep(500).await;
            continue;
        };
        sim.tell(None, || format!("the organizer offers {quantity} tickets"));
        if crate::bookings::handle(&sim, to, std::slice::from_ref(&offer)).await.is_ok() {
            return;
        }
        sim.sleep(100).await;
    }
}
