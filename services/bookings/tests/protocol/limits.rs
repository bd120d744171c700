//! Tickets of an event for one customer.

use std::collections::HashMap;
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::{CustomerId, codes};

use crate::shop::{Sent, Shop, count, told};

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_two_replicas_never_give_a_customer_more_than_the_limit() {
    let limited = |offer: &mut eventicket_contracts::bookings::Offer| {
        (offer.max_per_customer, offer.ticket_types[0].quantity) = (Some(2), 1_000);
    };
    let shop = Shop::open_with(2, limited).await;
    let customers: Vec<CustomerId> = (0..20).map(|_| CustomerId::fresh()).collect();
    let orders: Vec<(CustomerId, Sent)> =
        (0..50).flat_map(|_| customers.iter().map(|customer| (*customer, shop.reserve_for(*customer, 1)))).collect();
    let commands: Vec<Sent> = orders.iter().map(|(_, sent)| sent.clone()).collect();
    let answers = shop.ask_all(&commands, 3).await;
    let counts = count(answers.values().flatten());
    assert_eq!(counts, HashMap::from([("done".to_owned(), 40), (codes::CUSTOMER_LIMIT.to_owned(), 960)]));
    for customer in customers {
        let of = orders.iter().filter(|(of, _)| *of == customer);
        let done = of.filter(|(_, sent)| told(&answers[&(sent.item.key.clone(), Half::Do)][0]) == "done");
        assert_eq!(done.count(), 2);
    }
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_later_limit_counts_earlier_holds_and_none_that_ended() {
    let shop = Shop::open(2, 100).await;
    let customer = CustomerId::fresh();
    let order = |quantity| shop.reserve_for(customer, quantity);
    let [sold, released, expired, kept] = [order(1), order(1), order(2), order(1)];
    shop.ask_all(&[sold.clone(), released.clone(), expired], 4).await;
    shop.ask(shop.confirm(sold.item.key.saga)).await;
    let limited = shop.offer_with(2, |offer| offer.max_per_customer = Some(4));
    shop.ask(limited).await;

    let next = async || told(&shop.ask(order(1)).await).to_owned();
    assert_eq!(next().await, codes::CUSTOMER_LIMIT);
    assert_eq!(told(&shop.ask(shop.reserve_for(CustomerId::fresh(), 4)).await), "done", "another customer");
    assert_eq!(told(&shop.ask(shop.reserve_for(CustomerId::fresh(), 5)).await), codes::CUSTOMER_LIMIT);
    shop.ask(shop.release(released.item.key.saga, codes::CANCELLED)).await;
    assert_eq!(told(&shop.ask(kept).await), "done");
    assert_eq!(next().await, codes::CUSTOMER_LIMIT);

    shop.clock.advance(Duration::from_secs(690));
    shop.events_until(|all| all.iter().filter(|(subject, _)| subject == "evt.booking.expired").count() == 3).await;
    assert_eq!(told(&shop.ask(order(3)).await), "done", "one is sold, and the others have ended");
    assert_eq!(next().await, codes::CUSTOMER_LIMIT);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_one_batch_counts_what_it_gives_and_takes() {
    let shop = Shop::open_with(1, |offer| offer.max_per_customer = Some(2)).await;
    let customer = CustomerId::fresh();
    let [first, second, third, fourth] = [2, 1, 2, 1].map(|quantity| shop.reserve_for(customer, quantity));
    let release = shop.release(first.item.key.saga, codes::CANCELLED);
    let limit = shop.offer_with(2, |offer| offer.max_per_customer = Some(3));
    // One message for each run of one action; with one replica they are decided in this order.
    let answers = shop.ask_all(&[first, second.clone(), release, third.clone(), limit, fourth.clone()], 10).await;
    let told = |sent: &Sent| told(&answers[&(sent.item.key.clone(), Half::Do)][0]).to_owned();
    assert_eq!([&second, &third, &fourth].map(told), [codes::CUSTOMER_LIMIT, "done", "done"]);
    assert!(matches!(shop.ask(second).await, Answer::Rejected(_)), "a repeat gets the first answer again");
    shop.close().await;
}
