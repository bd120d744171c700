//! Numbered seats.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use eventicket_contracts::bookings::{Offer, Reserve, ReserveItem};
use eventicket_contracts::envelope::{Answer, DomainEvent, Half};
use eventicket_contracts::{SagaId, TicketTypeId, codes};

use crate::shop::{Sent, Shop, count, numbered, offered, sagas, seats, told};

fn hall(number: u32) -> impl FnOnce(&mut Offer) {
    move |offer| numbered(offer, &(1..=number).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_two_replicas_never_sell_a_seat_twice() {
    let shop = Shop::open_with(2, hall(20)).await;
    let orders: Vec<Sent> =
        (0..10).flat_map(|_| (1..=20).map(|seat| shop.reserve_seats(SagaId::fresh(), &[seat]))).collect();
    let answers = shop.ask_all(&orders, 3).await;
    let counts = count(answers.values().flatten());
    assert_eq!(counts, HashMap::from([("done".to_owned(), 20), (codes::SEAT_TAKEN.to_owned(), 180)]));
    let sold = answers.values().flatten().filter(|answer| told(answer) == "done").flat_map(seats);
    assert_eq!(sold.collect::<HashSet<_>>().len(), 20);
    assert_eq!((shop.available().await, shop.free_seats().await.as_str()), (0, ""));
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_pairs_in_opposite_order_are_neither_halved_nor_sold_twice() {
    let shop = Shop::open_with(2, hall(20)).await;
    for _ in 0..5 {
        let pairs: Vec<[u32; 2]> = (1..20).flat_map(|seat| [[seat, seat + 1], [seat + 1, seat]]).collect();
        let orders: Vec<Sent> = pairs.iter().map(|pair| shop.reserve_seats(SagaId::fresh(), pair)).collect();
        let answers = shop.ask_all(&orders, 1).await;
        let (mut sold, mut releases) = (Vec::<u32>::new(), Vec::new());
        for (pair, order) in pairs.iter().zip(&orders) {
            let answer = &answers[&(order.item.key.clone(), Half::Do)][0];
            match told(answer) {
                "done" => assert_eq!(seats(answer), pair.map(|seat| seat.to_string())),
                refused => {
                    assert_eq!(refused, codes::SEAT_TAKEN);
                    continue;
                }
            }
            sold.extend(pair);
            releases.push(shop.release(order.item.key.saga, codes::CANCELLED));
        }
        assert_eq!(sold.iter().collect::<HashSet<_>>().len(), sold.len());
        assert!(sold.len() >= 12, "at most every third seat is left alone: {sold:?}");
        assert_eq!(shop.available().await as usize, 20 - sold.len());
        shop.ask_all(&releases, 1).await;
    }
    assert_eq!(shop.available().await, 20);
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_a_release_that_overtakes_its_reserve_takes_no_seat() {
    let shop = Shop::open_with(2, hall(40)).await;
    let mut commands = Vec::new();
    for (at, saga) in sagas(40).into_iter().enumerate() {
        let mut pair = [shop.reserve_seats(saga, &[at + 1]), shop.release(saga, codes::CANCELLED)];
        if at % 2 == 0 {
            pair.swap(0, 1);
        }
        commands.extend(pair);
    }
    let answers = shop.ask_all(&commands, 1).await;
    let fair = ["done", codes::UNDONE];
    assert!(answers.values().flatten().all(|answer| fair.contains(&told(answer))));
    assert_eq!(shop.available().await, 40);
    assert_eq!(shop.free_seats().await.split(' ').count(), 40);
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_seats_come_back_by_release_and_by_the_sweep_and_not_once_they_are_sold() {
    let shop = Shop::open_with(2, hall(4)).await;
    let [sold, released, lost] = [1, 2, 3].map(|seat| (seat, SagaId::fresh()));
    let orders = [sold, released, lost].map(|(seat, saga)| shop.reserve_seats(saga, &[seat]));
    shop.ask_all(&orders, 3).await;
    assert_eq!(shop.free_seats().await, "4");
    shop.ask(shop.confirm(sold.1)).await;
    shop.ask(shop.release(released.1, codes::CANCELLED)).await;
    assert_eq!(shop.free_seats().await, "2 4");

    shop.clock.advance(Duration::from_secs(690));
    let expired =
        |(subject, event): &(String, DomainEvent)| subject == "evt.booking.expired" && event.aggregate == lost.1.0;
    shop.events_until(|all| all.iter().any(expired)).await;
    assert_eq!(shop.free_seats().await, "2 3 4");
    let tickets = shop.tickets(sold.1, None).await;
    assert_eq!(tickets.iter().map(|ticket| ticket.seat.as_deref()).collect::<Vec<_>>(), [Some("1")]);
    assert_eq!(told(&shop.ask(shop.reserve_seats(SagaId::fresh(), &[3, 2])).await), "done");
    assert_eq!(told(&shop.ask(shop.reserve_seats(SagaId::fresh(), &[1])).await), codes::SEAT_TAKEN);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_seats_gets_the_first_free_ones_side_by_side() {
    let shop = Shop::open_with(1, hall(8)).await;
    let next = async |quantity| {
        let answer = shop.ask(shop.reserve(SagaId::fresh(), quantity)).await;
        if told(&answer) == "done" { seats(&answer).join(" ") } else { told(&answer).to_owned() }
    };
    shop.ask(shop.reserve_seats(SagaId::fresh(), &[2])).await;
    assert_eq!(next(2).await, "3 4");
    assert_eq!(next(1).await, "1");
    shop.ask(shop.reserve_seats(SagaId::fresh(), &[6])).await;
    assert_eq!(next(3).await, "5 7 8");
    assert_eq!(next(1).await, codes::SOLD_OUT);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_orders_with_and_without_seats_of_two_replicas_share_no_seat() {
    let shop = Shop::open_with(2, hall(60)).await;
    let orders = (1..=60)
        .rev()
        .step_by(2)
        .flat_map(|seat| [shop.reserve_seats(SagaId::fresh(), &[seat, seat - 1]), shop.reserve(SagaId::fresh(), 2)]);
    let answers = shop.ask_all(&orders.collect::<Vec<_>>(), 2).await;
    let done: Vec<&Answer> = answers.values().flatten().filter(|answer| told(answer) == "done").collect();
    let sold: Vec<String> = done.iter().flat_map(|answer| seats(answer)).collect();
    assert_eq!(sold.len(), done.len() * 2);
    assert_eq!(sold.iter().collect::<HashSet<_>>().len(), sold.len());
    let counts = count(answers.values().flatten());
    let fair = ["done", codes::SEAT_TAKEN, codes::SOLD_OUT];
    assert!(counts.keys().all(|code| fair.contains(&code.as_str())), "{counts:?}");
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seats_and_general_admission_in_one_order_are_all_or_nothing() {
    let floor = TicketTypeId::fresh();
    let both = |offer: &mut Offer| {
        numbered(offer, &["A", "B", "C"]);
        offer.ticket_types.push(offered(floor, "Floor", 3));
    };
    let shop = Shop::open_with(2, both).await;
    let order = |seats: &[&str], quantity| {
        let mut order: Reserve = shop.order(u32::try_from(seats.len()).unwrap());
        order.items[0].seats = seats.iter().map(ToString::to_string).collect();
        order.items.push(ReserveItem { ticket_type: floor, quantity, seats: vec![] });
        shop.reserve_order(SagaId::fresh(), &order)
    };
    let left = async || {
        let left = shop.availability().await.ticket_types;
        (left[0].free_seats.as_ref().unwrap().concat(), left[0].available, left[1].available)
    };
    let first = order(&["C", "A"], 2);
    assert_eq!(told(&shop.ask(first.clone()).await), "done");
    assert_eq!(left().await, ("B".to_owned(), 1, 1));
    assert_eq!(told(&shop.ask(order(&["B"], 2)).await), codes::SOLD_OUT);
    assert_eq!(told(&shop.ask(order(&["B", "A"], 1)).await), codes::SEAT_TAKEN);
    assert_eq!(left().await, ("B".to_owned(), 1, 1));
    shop.ask(shop.confirm(first.item.key.saga)).await;
    let tickets = shop.tickets(first.item.key.saga, None).await;
    let seats: Vec<Option<&str>> = tickets.iter().map(|ticket| ticket.seat.as_deref()).collect();
    assert_eq!(seats, [Some("C"), Some("A"), None, None]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seats_that_do_not_exist_are_refused() {
    let shop = Shop::open_with(1, hall(4)).await;
    let told_of = async |quantity, named: &[&str]| {
        let mut order = shop.order(quantity);
        order.items[0].seats = named.iter().map(ToString::to_string).collect();
        told(&shop.ask(shop.reserve_order(SagaId::fresh(), &order)).await).to_owned()
    };
    for (quantity, named) in [(1, &["9"][..]), (2, &["1"]), (1, &["1", "2"]), (2, &["1", "1"]), (1, &[""])] {
        assert_eq!(told_of(quantity, named).await, codes::UNKNOWN_SEAT, "{quantity} {named:?}");
    }
    assert_eq!(told_of(1, &[&"x".repeat(100_000)]).await, codes::UNKNOWN_SEAT);
    assert_eq!(told_of(1, &["1\0"]).await, codes::UNKNOWN_SEAT);
    assert_eq!(shop.free_seats().await, "1 2 3 4");
    shop.ask(shop.offer(2, 10)).await;
    assert_eq!(told_of(1, &["1"]).await, codes::UNKNOWN_SEAT, "there are none");
    shop.close_calm().await;
}
