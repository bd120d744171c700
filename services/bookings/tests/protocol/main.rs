//! The rules of the protocol, on real servers; each test is named after the rule that it tests.

mod batches;
mod faults;
mod fences;
mod limits;
mod offers;
mod seats;
mod shop;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use eventicket_bookings::audit;
use eventicket_contracts::bookings::{Confirmed, Reserve, Reserved};
use eventicket_contracts::envelope::{Answer, DomainEvent, Half};
use eventicket_contracts::{Currency, CustomerId, EventId, Money, SagaId, Timestamp, codes};
use eventicket_kit::batch::lock_sagas;
use serde_json::Value;

use crate::shop::{Sent, Shop, count, key, saga_of_age, sagas, told};

const RESERVE: &str = "RESERVE";
const CONFIRM: &str = "CONFIRM";

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_two_replicas_never_sell_a_ticket_twice() {
    let shop = Shop::open(2, 100).await;
    let orders: Vec<Sent> = sagas(1_000).iter().map(|saga| shop.reserve(*saga, 1)).collect();
    let answers = shop.ask_all(&orders, 10).await;
    let counts = count(answers.values().flatten());
    assert_eq!(counts, HashMap::from([("done".to_owned(), 100), (codes::SOLD_OUT.to_owned(), 900)]));
    assert_eq!(shop.available().await, 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_a_repeat_gets_the_first_answer_again() {
    let shop = Shop::open(2, 100).await;
    let sagas = sagas(60);
    let thrice = |of: &dyn Fn(SagaId) -> Sent| -> Vec<Sent> {
        (0..3).flat_map(|_| sagas.iter().map(|saga| of(*saga))).collect()
    };
    // The orders differ in nothing but the customer, whom the answer does not name.
    let reserved = shop.ask_all(&thrice(&|saga| shop.reserve(saga, 2)), 7).await;
    let confirmed = shop.ask_all(&thrice(&|saga| shop.confirm(saga)), 7).await;
    for answers in reserved.values().chain(confirmed.values()) {
        assert!(answers.len() == 3 && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
    let counts = count(reserved.values().map(|answers| &answers[0]));
    assert_eq!(counts, HashMap::from([("done".to_owned(), 50), (codes::SOLD_OUT.to_owned(), 10)]));
    let tickets = audit::tickets(&shop.pool, None, 1_000).await.unwrap();
    assert_eq!(tickets.len(), 50);
    assert!(tickets.iter().all(|count| count.tickets == 2));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_an_undo_that_comes_first_refuses_the_late_do() {
    let shop = Shop::open(1, 10).await;
    let (saga, unmade) = (SagaId::fresh(), SagaId::fresh());
    assert_eq!(told(&shop.ask(shop.release(saga, codes::CANCELLED)).await), "done");
    assert_eq!(told(&shop.ask(shop.reserve(saga, 1)).await), codes::UNDONE);
    assert_eq!(told(&shop.ask(shop.confirm(unmade)).await), codes::HOLD_GONE);
    assert_eq!(told(&shop.ask(shop.reserve(unmade, 1)).await), codes::UNDONE);
    assert_eq!(told(&shop.ask(shop.confirm(unmade)).await), codes::HOLD_GONE);
    assert_eq!(shop.available().await, 10);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_reserve_and_release_in_any_order_leave_nothing_taken() {
    let shop = Shop::open(2, 500).await;
    let mut commands = Vec::new();
    for (at, saga) in sagas(300).into_iter().enumerate() {
        let mut pair = [shop.reserve(saga, 1), shop.release(saga, codes::CANCELLED)];
        if at % 2 == 0 {
            pair.swap(0, 1);
        }
        commands.extend(pair);
    }
    let answers = shop.ask_all(&commands, 3).await;
    assert!(answers.iter().all(|((_, half), answers)| *half == Half::Do || told(&answers[0]) == "done"));
    assert_eq!(shop.available().await, 500);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_records_are_read_under_the_locks_of_their_sagas() {
    let shop = Shop::open(1, 10).await;
    let saga = SagaId::fresh();
    shop.ask(shop.reserve(saga, 1)).await;
    // A sweep that has the lock frees the hold while a confirm waits for it.
    let mut sweep = shop.pool.begin().await.unwrap();
    lock_sagas(&mut sweep, &[saga]).await.unwrap();
    shop.send(&[shop.confirm(saga)], 1).await;
    shop.waiting(1).await;
    sqlx::query("UPDATE holds SET state = 'expired', changes = 2").execute(&mut *sweep).await.unwrap();
    sqlx::query("UPDATE ticket_types SET available = 10").execute(&mut *sweep).await.unwrap();
    sweep.commit().await.unwrap();
    assert_eq!(told(&shop.replies(1).await[0].answer), codes::HOLD_GONE);
    assert_eq!(shop.tickets(saga, None).await, []);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_02_a_recorded_answer_comes_before_the_deadline() {
    let shop = Shop::open(1, 10).await;
    let mut command = shop.reserve(SagaId::fresh(), 1);
    command.item.deadline = Some(Timestamp(shop.clock.now().millis() - 1));
    assert_eq!(shop.ask(command.clone()).await, Answer::Expired);
    assert_eq!(shop.available().await, 10);
    command.item.deadline = Some(shop.clock.now());
    let first = shop.ask(command.clone()).await;
    assert_eq!(told(&first), "done");
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!(shop.ask(command).await, first);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_03_what_is_confirmed_is_not_undone() {
    let shop = Shop::open(1, 10).await;
    let order = shop.order(3);
    let saga = SagaId::fresh();
    let answer = shop.ask(shop.reserve_order(saga, &order)).await;
    let Answer::Done(output) = answer else { panic!("{answer:?}") };
    let reserved: Reserved = output.read().unwrap();
    assert_eq!(reserved.total, Money { amount: 12_600, currency: Currency::EUR });
    assert_eq!(reserved.hold_until, shop.clock.now().plus(Duration::from_secs(600)));
    assert_eq!(shop.ask(shop.confirm(saga)).await, Answer::done(Confirmed { tickets: 3 }));
    assert_eq!(told(&shop.ask(shop.release(saga, codes::CANCELLED)).await), codes::CONFIRMED);
    assert_eq!(shop.available().await, 7);

    let tickets = shop.tickets(saga, Some(order.customer)).await;
    assert_eq!(tickets.iter().map(|ticket| &ticket.code).collect::<HashSet<_>>().len(), 3);
    assert!(tickets.iter().all(|ticket| ticket.code.len() == 26 && ticket.name == "Standing"));
    assert_eq!(shop.tickets(saga, None).await, tickets);
    assert_eq!(shop.tickets(saga, Some(CustomerId::fresh())).await, []);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_of_confirm_and_release_one_wins() {
    let shop = Shop::open(2, 1_000).await;
    let mut confirmed = 0;
    for round in 0..5 {
        let sagas = sagas(100);
        let orders: Vec<Sent> = sagas.iter().map(|saga| shop.reserve(*saga, 1)).collect();
        shop.ask_all(&orders, 50).await;
        let confirms: Vec<Sent> = sagas.iter().map(|saga| shop.confirm(*saga)).collect();
        let releases: Vec<Sent> = sagas.iter().rev().map(|saga| shop.release(*saga, codes::CANCELLED)).collect();
        let pairs = confirms.into_iter().zip(releases).flat_map(|(a, b)| if round % 2 == 0 { [a, b] } else { [b, a] });
        let answers = shop.ask_all(&pairs.collect::<Vec<_>>(), 1).await;
        for saga in &sagas {
            let confirm = told(&answers[&(key(*saga, CONFIRM), Half::Do)][0]);
            let release = told(&answers[&(key(*saga, RESERVE), Half::Undo)][0]);
            let fair = [("done", codes::CONFIRMED), (codes::HOLD_GONE, "done")];
            assert!(fair.contains(&(confirm, release)), "{confirm} and {release}");
            confirmed += u32::from(confirm == "done");
        }
        assert_eq!(shop.available().await, 1_000 - confirmed);
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_a_confirm_within_the_grace_is_accepted_and_beyond_it_the_hold_is_freed() {
    let shop = Shop::open(2, 10).await;
    let (paid, lost) = (SagaId::fresh(), SagaId::fresh());
    shop.ask_all(&[shop.reserve(paid, 1), shop.reserve(lost, 2)], 2).await;
    shop.clock.advance(Duration::from_secs(680));
    assert_eq!(told(&shop.ask(shop.confirm(paid)).await), "done");
    assert_eq!(shop.available().await, 7);

    shop.clock.advance(Duration::from_secs(10));
    let events = shop.events_until(|all| all.iter().any(|(subject, _)| subject == "evt.booking.expired")).await;
    let booking = |saga: SagaId| events.iter().filter(move |(_, event)| event.aggregate == saga.0);
    let story = |saga| booking(saga).map(|(subject, event)| (subject.as_str(), event.version)).collect::<Vec<_>>();
    assert_eq!(story(paid), [("evt.booking.held", 1), ("evt.booking.confirmed", 2)]);
    assert_eq!(story(lost), [("evt.booking.held", 1), ("evt.booking.expired", 2)]);
    assert_eq!(shop.available().await, 9);
    assert_eq!(told(&shop.ask(shop.confirm(lost)).await), codes::HOLD_GONE);
    assert_eq!(told(&shop.ask(shop.release(lost, codes::HOLD_EXPIRED)).await), "done");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_released_tickets_can_be_sold_again_and_the_reason_is_told() {
    let shop = Shop::open(1, 4).await;
    let (late, off) = (SagaId::fresh(), SagaId::fresh());
    shop.ask_all(&[shop.reserve(late, 2), shop.reserve(off, 2)], 2).await;
    assert_eq!(told(&shop.ask(shop.reserve(SagaId::fresh(), 1)).await), codes::SOLD_OUT);
    let releases = [shop.release(late, codes::HOLD_EXPIRED), shop.release(off, codes::CANCELLED)];
    shop.ask_all(&releases, 2).await;
    shop.ask_all(&releases, 2).await;
    assert_eq!(shop.available().await, 4);
    assert_eq!(told(&shop.ask(shop.reserve(SagaId::fresh(), 4)).await), "done");
    let ended = |all: &[(String, DomainEvent)]| -> HashSet<(String, uuid::Uuid)> {
        let ended = all.iter().filter(|(_, event)| event.data.get("reason").is_some());
        ended.map(|(subject, event)| (subject.clone(), event.aggregate)).collect()
    };
    let events = shop.events_until(|all| ended(all).len() == 2).await;
    let of = |subject: &str, saga: SagaId| (subject.to_owned(), saga.0);
    let told = HashSet::from([of("evt.booking.expired", late), of("evt.booking.cancelled", off)]);
    assert_eq!(ended(&events), told);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_16_a_saga_older_than_the_records_reserves_nothing() {
    let shop = Shop::open(1, 10).await;
    let days = |n: u64| saga_of_age(shop.clock.now(), Duration::from_secs(n * 86_400));
    assert_eq!(told(&shop.ask(shop.reserve(days(31), 1)).await), codes::TOO_OLD);
    assert_eq!(told(&shop.ask(shop.reserve(days(29), 1)).await), "done");
    let Answer::Dead(_) = shop.ask(shop.release(days(31), codes::CANCELLED)).await else {
        panic!("an undo without a record is dead, for attention")
    };
    assert_eq!(shop.available().await, 9);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_refused_for_the_first_reason_that_holds() {
    let shop = Shop::open(1, 10).await;
    let refusal = async |change: &dyn Fn(&mut Reserve)| {
        let mut order = shop.order(2);
        change(&mut order);
        told(&shop.ask(shop.reserve_order(SagaId::fresh(), &order)).await).to_owned()
    };
    let total = |amount| Some(Money { amount, currency: Currency::EUR });
    assert_eq!(refusal(&|o| o.items[0].quantity = 6).await, codes::ORDER_LIMIT);
    assert_eq!(refusal(&|o| o.expected_total = total(8_399)).await, codes::PRICE_CHANGED);
    assert_eq!(refusal(&|o| o.expected_total = total(8_400)).await, "done");
    assert_eq!(refusal(&|o| o.event = EventId::fresh()).await, codes::UNKNOWN_TICKET_TYPE);
    assert_eq!(refusal(&|o| o.items[0].ticket_type.0 = uuid::Uuid::nil()).await, codes::UNKNOWN_TICKET_TYPE);
    shop.clock.advance(Duration::from_secs(90_000));
    assert_eq!(refusal(&|_| {}).await, codes::EVENT_OVER);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn availability_is_told_once_a_quarter_second_and_ends_with_the_truth() {
    let shop = Shop::open(2, 1_000).await;
    let told_of = |left: u32| {
        let left = move |event: &DomainEvent| event.data["ticket_types"][0]["available"] == left;
        move |all: &[(String, DomainEvent)]| all.iter().any(|(s, e)| s == "evt.availability.changed" && left(e))
    };
    shop.events_until(told_of(1_000)).await;
    let orders: Vec<Sent> = sagas(300).iter().map(|saga| shop.reserve(*saga, 1)).collect();
    shop.ask_all(&orders, 3).await;
    // Time stands still, and so does the announcement.
    shop.clock.advance(Duration::from_millis(250));
    let events = shop.events_until(told_of(700)).await;
    let told: Vec<i64> =
        events.iter().filter(|(s, _)| s == "evt.availability.changed").map(|(_, e)| e.version).collect();
    assert_eq!(told, [2], "one for a hundred batches");
    assert!(events.iter().filter(|(s, _)| s == "evt.booking.held").all(|(_, e)| e.data["hold_until"] != Value::Null));
    shop.close().await;
}
