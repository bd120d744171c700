//! Customers: they book, ask again where no answer comes, pay, authenticate payments, change their mind.

use std::rc::Rc;

use eventicket_contracts::bookings::ReserveItem;
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{
    Act, ActAnswer, Action, BOOKING, BookingInput, BookingStatus, PAYMENT_METHOD, PaymentMethod, StartAnswer, StartSaga,
};
use eventicket_contracts::{CustomerId, Json, SagaId, Timestamp};
use eventicket_mock_gateway::simulation::Status;
use eventicket_orchestrator::sagas::booking::booking_status;

use crate::executor::{Check, On, Wait};
use crate::network::Answer;
use crate::orchestrator::Input;
use crate::scenario::{Booking, Scenario};
use crate::shop::Shop;
use crate::world::{Sim, World};

/// How long an answer is waited for, and until it is asked again, ms.
const TIMEOUT: i64 = 5_000;
const AGAIN: i64 = 500;
/// How often something is asked for, after which its asker gives up.
const TRIES: u32 = 12;

/// A customer comes to book.
pub(crate) fn come(sim: &Sim, number: usize) {
    sim.mind.knowing(sim.mind.hash(&number), || sim.tasks.spawn(None, "customer", book(Rc::clone(sim), number)));
}

/// One booking of a customer.
async fn book(sim: Sim, number: usize) {
    let Some(booking) = sim.scenario.bookings.get(number).cloned() else { return };
    if !sim.settings.is_fine && number + 1 < sim.scenario.bookings.len() {
        come(&sim, number + 1);
    }
    if booking.at > 0 {
        sim.sleep(booking.at).await;
    }
    let customer = Shop::customer(booking.customer);
    let mut id = SagaId(sim.fresh_id());
    for _ in 0..TRIES {
        let start = start(&sim, &booking, number, customer, id);
        let answer = sim.ask(|to| Input::Start(Box::new(start.clone()), to)).await;
        if let Some(Answer::Start(StartAnswer::Started { id, .. })) = answer {
            sim.tell(None, || format!("customer {} knows of {}", booking.customer, crate::story::saga(id)));
            attend(&sim, booking, number, customer, id);
            return;
        }
        sim.sleep(AGAIN).await;
        // Whoever asks the API again gets another saga for the same request.
        if sim.choose(2) == 1 {
            id = SagaId(sim.fresh_id());
        }
    }
}

fn start(sim: &Sim, booking: &Booking, number: usize, customer: CustomerId, id: SagaId) -> StartSaga {
    let item = ReserveItem { ticket_type: Scenario::ticket_type(), quantity: booking.tickets, seats: Vec::new() };
    let input = BookingInput {
        event: Scenario::event(),
        customer,
        items: vec![item],
        expected_total: None,
        method: booking.method.map(|token| sim.shop.sealed(customer, token)),
    };
    StartSaga {
        id,
        definition: BOOKING.to_owned(),
        owner: Some(customer),
        idempotency: Some(Idempotency { key: format!("request {number}"), fingerprint: "same".to_owned() }),
        event: Some(Scenario::event()),
        input: Json::of(&input).unwrap_or_default(),
        give_up_at: Timestamp(sim.now() + TIMEOUT),
        trace: None,
        blind: false,
    }
}

/// What the customer does behind the start.
fn attend(sim: &Sim, booking: Booking, number: usize, customer: CustomerId, id: SagaId) {
    if let Some(after) = booking.cancelled_after {
        let sim = Rc::clone(sim);
        sim.clone().tasks.spawn_waiting(None, "cancel", async move {
            sim.sleep(after).await;
            sim.act(id, Some(customer), "customer", Action::Cancel, TRIES).await;
        });
    }
    if !booking.later.is_empty() {
        sim.tasks.spawn_waiting(None, "pay", pay(Rc::clone(sim), booking.later, number, customer, id));
    }
    sim.mind.knowing(sim.mind.hash(&id), || {
        sim.tasks.spawn_waiting(None, "authenticate", authenticate(Rc::clone(sim), id))
    });
}

/// Gives a payment method whenever one is awaited, or replaces one that takes time.
async fn pay(sim: Sim, methods: Vec<&'static str>, number: usize, customer: CustomerId, id: SagaId) {
    let mut seen = 0;
    for (at, token) in methods.into_iter().enumerate() {
        let awaited = move |world: &World| {
            world.booking(id).is_none_or(|(status, version)| {
                status != BookingStatus::Pending && (status != BookingStatus::AwaitingPayment || version > seen)
            })
        };
        sim.pause(Wait::on(On::Check(Check(Rc::new(awaited))))).await;
        sim.sleep([10, 3_000, 19_000][sim.choose(3) as usize]).await;
        let method = sim.shop.sealed(customer, token);
        let payload = Json::of(&PaymentMethod { method }).unwrap_or_default();
        let request = Idempotency { key: format!("payment {number}.{at}"), fingerprint: "same".to_owned() };
        let signal = Action::Signal { name: PAYMENT_METHOD.to_owned(), payload, idempotency: Some(request) };
        match sim.act(id, Some(customer), "customer", signal, TRIES).await {
            Some(ActAnswer::Done { .. }) => seen = sim.booking(id).map_or(i64::MAX, |(_, version)| version),
            _ => return,
        }
    }
}

/// Authenticates a payment that wants it, gives it up, or does nothing.
async fn authenticate(sim: Sim, id: SagaId) {
    let wanted = move |world: &World| {
        world.wants_action(id).is_some()
            || world
                .booking(id)
                .is_none_or(|(status, _)| !matches!(status, BookingStatus::Pending | BookingStatus::AwaitingPayment))
    };
    sim.pause(Wait::on(On::Check(Check(Rc::new(wanted))))).await;
    let Some(intent) = sim.wants_action(id) else { return };
    let (succeeds, after) = [(true, 2_000), (false, 2_000), (true, 21_000), (false, 70_000)][sim.choose(4) as usize];
    if sim.choose(4) == 3 {
        return;
    }
    sim.sleep(after).await;
    if sim.wants_action(id).as_ref() == Some(&intent) {
        sim.tell(None, || {
            format!(
                "the customer of {} {}",
                crate::story::saga(id),
                if succeeds { "authenticates" } else { "gives up" }
            )
        });
        let webhooks = sim.gateway.borrow_mut().act(&intent, succeeds, sim.now());
        sim.send_webhooks(webhooks);
        sim.money_moved();
    }
}

impl World {
    /// A booking as its customer sees it.
    fn booking(&self, id: SagaId) -> Option<(BookingStatus, i64)> {
        let store = self.store.borrow();
        store.tables.sagas.get(&id).map(|journaled| (booking_status(&journaled.row.saga), journaled.row.version))
    }

    /// The intent of a booking whose customer has to act.
    fn wants_action(&self, id: SagaId) -> Option<String> {
        let (gateway, of) = (self.gateway.borrow(), id.to_string());
        let mut intents = gateway.intents().filter(|intent| intent.metadata.get("saga") == Some(&of));
        intents.find(|intent| intent.status == Status::RequiresAction).map(|intent| intent.id.clone())
    }

    /// Asks the orchestrator once; `None` where no answer comes in time.
    pub async fn ask(&self, work: impl Fn(String) -> Input) -> Option<Answer> {
        let inbox = self.request(work)?;
        self.pause(Wait { until: self.now() + TIMEOUT, on: On::Flag(inbox.came.here.clone()) }).await;
        inbox.came.answer.borrow_mut().take()
    }

    /// Acts on a saga, and asks again where no answer comes.
    pub async fn act(
        &self,
        saga: SagaId,
        owner: Option<CustomerId>,
        actor: &str,
        action: Action,
        tries: u32,
    ) -> Option<ActAnswer> {
        let act = Act { saga, owner, actor: actor.to_owned(), reason: "simulated".to_owned(), action, trace: None };
        for _ in 0..tries {
            if let Some(Answer::Act(answer)) = self.ask(|to| Input::Act(act.clone(), to)).await {
                self.tell(None, || format!("{actor} is told {}", shown(&answer)));
                return Some(answer);
            }
            self.sleep(AGAIN).await;
        }
        None
    }
}

fn shown(answer: &ActAnswer) -> String {
    match answer {
        ActAnswer::Done { repeated, .. } => format!("done{}", if *repeated { " before" } else { "" }),
        ActAnswer::NotFound => "not found".to_owned(),
        ActAnswer::Conflict { code, message } => format!("{code}: {message}"),
    }
}
