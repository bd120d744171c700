//! What is sold is decided under the capacity lock.

use std::collections::HashMap;

use eventicket_bookings::audit;
use eventicket_contracts::bookings::{Offer, Offered, OfferedType, Reserved};
use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::{EventId, SagaId, TicketTypeId, codes};

use crate::shop::{Shop, count, numbered, sagas, told};

fn off(offer: &mut Offer) {
    offer.on_sale = false;
}

fn cancel(offer: &mut Offer) {
    offer.cancelled = true;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_an_older_offer_is_ignored_and_none_goes_below_what_is_sold() {
    let shop = Shop::open(2, 10).await;
    shop.ask_all(&[shop.reserve(SagaId::fresh(), 4), shop.reserve(SagaId::fresh(), 3)], 1).await;
    assert_eq!(shop.ask(shop.offer(5, 8)).await, Answer::done(Offered { version: 5 }));
    assert_eq!(shop.available().await, 1);
    assert_eq!(shop.ask(shop.offer(4, 100)).await, Answer::done(Offered { version: 5 }));
    assert_eq!(shop.available().await, 1);

    let below = shop.offer(6, 6);
    assert_eq!(told(&shop.ask(below.clone()).await), codes::BELOW_SOLD);
    let left_out = shop.offer_with(6, |offer| offer.ticket_types.clear());
    assert_eq!(told(&shop.ask(left_out).await), codes::BELOW_SOLD);

    assert_eq!(shop.ask(shop.offer(7, 7)).await, Answer::done(Offered { version: 7 }));
    assert_eq!(told(&shop.ask(below).await), codes::BELOW_SOLD, "a repeat gets the first answer again");
    assert_eq!(shop.available().await, 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_offers_and_orders_of_two_replicas_keep_the_counter_true() {
    let shop = Shop::open(2, 50).await;
    let mut commands = Vec::new();
    for version in 2..40 {
        commands.push(shop.offer(version, 50 + u32::try_from(version).unwrap() * 3));
        for saga in sagas(5) {
            commands.extend([shop.reserve(saga, 1), shop.release(saga, codes::CANCELLED)]);
        }
        commands.push(shop.reserve(SagaId::fresh(), 1));
    }
    let answers = shop.ask_all(&commands, 4).await;
    // Which of them find enough is chance; what they leave is not.
    let counts = count(answers.values().flatten());
    let fair = ["done", codes::UNDONE, codes::SOLD_OUT, codes::BELOW_SOLD];
    assert!(counts.keys().all(|code| fair.contains(&code.as_str())), "{counts:?}");
    let kept = answers.iter().filter(|((key, half), answers)| {
        let undone = commands.iter().any(|sent| sent.item.half == Half::Undo && sent.item.key == *key);
        key.step == "RESERVE" && *half == Half::Do && !undone && told(&answers[0]) == "done"
    });
    let kept = i64::try_from(kept.count()).unwrap();
    assert!(kept > 0);
    assert_eq!(audit::types(&shop.pool).await.unwrap()[0].held, kept);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_stop_of_sale_waits_until_nothing_is_held_or_sold() {
    let shop = Shop::open(1, 10).await;
    let saga = SagaId::fresh();
    shop.ask(shop.reserve(saga, 1)).await;
    assert_eq!(told(&shop.ask(shop.offer_with(2, off)).await), codes::HAS_BOOKINGS);
    assert_eq!(told(&shop.ask(shop.offer_with(3, cancel)).await), codes::HAS_BOOKINGS);
    assert!(shop.availability().await.on_sale);

    shop.ask(shop.release(saga, codes::CANCELLED)).await;
    assert_eq!(shop.ask(shop.offer_with(4, off)).await, Answer::done(Offered { version: 4 }));
    assert_eq!(told(&shop.ask(shop.reserve(SagaId::fresh(), 1)).await), codes::NOT_ON_SALE);
    assert!(!shop.availability().await.on_sale);

    assert_eq!(told(&shop.ask(shop.offer(5, 10)).await), "done");
    let sold = SagaId::fresh();
    shop.ask(shop.reserve(sold, 1)).await;
    shop.ask(shop.confirm(sold)).await;
    assert_eq!(told(&shop.ask(shop.offer_with(6, cancel)).await), codes::HAS_BOOKINGS);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_after_a_cancellation_nothing_is_held_or_confirmed() {
    let shop = Shop::open(2, 10).await;
    let gone = SagaId::fresh();
    shop.ask(shop.reserve(gone, 1)).await;
    shop.ask(shop.release(gone, codes::CANCELLED)).await;
    assert_eq!(shop.ask(shop.offer_with(2, cancel)).await, Answer::done(Offered { version: 2 }));

    assert_eq!(told(&shop.ask(shop.reserve(SagaId::fresh(), 1)).await), codes::EVENT_CANCELLED);
    assert_eq!(told(&shop.ask(shop.confirm(gone)).await), codes::HOLD_GONE);
    assert_eq!(told(&shop.ask(shop.confirm(SagaId::fresh())).await), codes::HOLD_GONE);
    assert_eq!(told(&shop.ask(shop.offer(3, 10)).await), codes::EVENT_CANCELLED, "for good");
    assert!(!shop.availability().await.on_sale);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_of_a_cancellation_and_an_order_one_wins() {
    let shop = Shop::open(2, 10).await;
    let events: Vec<EventId> = (0..40).map(|_| EventId::fresh()).collect();
    let of = |version, event| shop.offer_with(version, move |offer| offer.event = event);
    shop.ask_all(&events.iter().map(|event| of(1, *event)).collect::<Vec<_>>(), 20).await;
    let cancels =
        events.iter().map(|event| shop.offer_with(2, |offer| (offer.event, offer.cancelled) = (*event, true)));
    let mut order = shop.order(1);
    let orders = events.iter().map(|event| {
        order.event = *event;
        shop.reserve_order(SagaId::fresh(), &order)
    });
    let pairs: Vec<_> = cancels.zip(orders).collect();
    let commands = pairs.iter().enumerate().flat_map(|(at, (cancel, order))| {
        if at % 2 == 0 { [cancel.clone(), order.clone()] } else { [order.clone(), cancel.clone()] }
    });
    let answers = shop.ask_all(&commands.collect::<Vec<_>>(), 1).await;
    for (cancel, order) in pairs {
        let told = |key| told(&answers[&(key, Half::Do)][0]).to_owned();
        let both = (told(cancel.item.key), told(order.item.key));
        let fair = [("done", codes::EVENT_CANCELLED), (codes::HAS_BOOKINGS, "done")];
        assert!(fair.contains(&(&both.0, &both.1)), "{both:?}");
    }
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_what_is_held_keeps_its_price_and_what_comes_later_has_the_new_one() {
    let shop = Shop::open(1, 10).await;
    let reserved = |answer: Answer| {
        let Answer::Done(output) = answer else { panic!("{answer:?}") };
        output.read::<Reserved>().unwrap()
    };
    let early = shop.reserve(SagaId::fresh(), 2);
    let held = reserved(shop.ask(early.clone()).await);
    let dearer = shop.offer_with(2, |offer| {
        (offer.title, offer.hold_seconds) = ("Moved".into(), Some(60));
        let kind = &mut offer.ticket_types[0];
        (kind.price.amount, kind.max_per_order) = (5_000, Some(2));
    });
    shop.ask(dearer).await;

    assert_eq!(reserved(shop.ask(early).await), held);
    let late = reserved(shop.ask(shop.reserve(SagaId::fresh(), 2)).await);
    assert_eq!((held.total.amount, held.title.as_str()), (8_400, "Midsummer Concert"));
    assert_eq!((late.total.amount, late.title.as_str()), (10_000, "Moved"));
    assert_eq!(late.hold_until, shop.clock.now().plus(std::time::Duration::from_secs(60)));
    assert_eq!(told(&shop.ask(shop.reserve(SagaId::fresh(), 3)).await), codes::ORDER_LIMIT);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_plan_keeps_the_seats_that_are_taken() {
    let shop = Shop::open_with(2, |offer| numbered(offer, &["A", "B", "C"])).await;
    shop.ask(shop.reserve_seats(SagaId::fresh(), &["B"])).await;
    let refused = async |change: fn(&mut Offer)| told(&shop.ask(shop.offer_with(2, change)).await).to_owned();
    assert_eq!(refused(|offer| numbered(offer, &["A", "C"])).await, codes::BELOW_SOLD);
    assert_eq!(refused(|_| {}).await, codes::BELOW_SOLD, "a hundred without numbers");
    let moved = |offer: &mut Offer| {
        numbered(offer, &["B"]);
        let balcony = OfferedType { id: TicketTypeId::fresh(), ..offer.ticket_types[0].clone() };
        numbered(offer, &["A", "C"]);
        offer.ticket_types.push(balcony);
    };
    assert_eq!(refused(moved).await, codes::BELOW_SOLD, "the seat is of another type");

    let answer = shop.ask(shop.offer_with(2, |offer| numbered(offer, &["D", "B", "A"]))).await;
    assert_eq!(told(&answer), "done");
    assert_eq!(shop.free_seats().await, "D A");
    let asked = ["A", "B", "C", "D"].map(|seat| shop.reserve_seats(SagaId::fresh(), &[seat]));
    let answers = shop.ask_all(&asked, 4).await;
    let told = asked.map(|sent| told(&answers[&(sent.item.key, Half::Do)][0]).to_owned());
    assert_eq!(told, ["done", codes::SEAT_TAKEN, codes::UNKNOWN_SEAT, "done"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_type_without_bookings_can_be_numbered_or_not() {
    let shop = Shop::open(1, 10).await;
    let saga = SagaId::fresh();
    shop.ask(shop.reserve(saga, 1)).await;
    let hall = || shop.offer_with(2, |offer| numbered(offer, &["A", "B"]));
    assert_eq!(told(&shop.ask(hall()).await), codes::BELOW_SOLD);
    shop.ask(shop.release(saga, codes::CANCELLED)).await;
    assert_eq!(told(&shop.ask(hall()).await), "done");
    assert_eq!(shop.free_seats().await, "A B");
    assert_eq!(told(&shop.ask(shop.offer(3, 7)).await), "done");
    let left = &shop.availability().await.ticket_types[0];
    assert_eq!((left.available, left.free_seats.as_ref()), (7, None));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_without_its_form_is_dead() {
    let shop = Shop::open(1, 10).await;
    let dead = async |change: fn(&mut Offer)| match shop.ask(shop.offer_with(2, change)).await {
        Answer::Dead(reason) => reason,
        other => panic!("{other:?}"),
    };
    let reasons = HashMap::from([
        ("a seat is offered twice", dead(|offer| numbered(offer, &["A", "A"])).await),
        ("a numbered type has as many seats as tickets", dead(|o| o.ticket_types[0].seats = vec!["A".into()]).await),
        ("a seat's label has 1 to 256 bytes, and no NUL", dead(|offer| numbered(offer, &["A", ""])).await),
        ("versions begin with 1", dead(|offer| offer.version = 0).await),
    ]);
    assert!(reasons.iter().all(|(expected, reason)| expected == reason), "{reasons:?}");
    assert_eq!(shop.available().await, 10);
    shop.close().await;
}
