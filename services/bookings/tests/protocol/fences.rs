//! Fences, which close rounds for operators.

use std::time::Duration;

use eventicket_contracts::bookings::{Confirmed, Offered};
use eventicket_contracts::envelope::{Answer, Fenced, Half, Recorded, Rejection};
use eventicket_contracts::{Json, SagaId, Timestamp, codes};

use crate::shop::{Sent, Shop, key, numbered, saga_of_age, sagas, told};

async fn fenced(shop: &Shop, fence: Sent) -> Fenced {
    match shop.ask(fence).await {
        Answer::Done(output) => output.read().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn output(answer: Answer) -> Recorded {
    match answer {
        Answer::Done(output) => Recorded::Done(output),
        other => panic!("{other:?}"),
    }
}

const NOTHING: Recorded = Recorded::Done(Json::NULL);

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_fence_closes_what_has_not_begun_for_good() {
    let shop = Shop::open(2, 10).await;
    let late = [
        (shop.reserve(SagaId::fresh(), 1), codes::UNDONE),
        (shop.confirm(SagaId::fresh()), codes::HOLD_GONE),
        (shop.offer(2, 50), codes::CLOSED),
    ];
    for (command, refusal) in late {
        let closed = Fenced { id: 1, effect: Recorded::Closed, undo: None };
        assert_eq!(fenced(&shop, shop.fence(&command, 1, false)).await, closed);
        assert_eq!(told(&shop.ask(command.clone()).await), refusal);
        assert_eq!(fenced(&shop, shop.fence(&command, 1, false)).await, closed, "a repeat gets the same answer");
        let both = Fenced { id: 2, effect: Recorded::Closed, undo: Some(Recorded::Closed) };
        assert_eq!(fenced(&shop, shop.fence(&command, 2, true)).await, both);
    }
    assert_eq!(shop.available().await, 10);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_fence_tells_what_is_recorded_of_an_order() {
    let shop = Shop::open(1, 8).await;
    let [held, confirmed, released, refused] = [1, 2, 3, 4].map(|n| shop.reserve(SagaId::fresh(), n));
    let mut reserved = Vec::new();
    for order in [&held, &confirmed, &released] {
        reserved.push(output(shop.ask(order.clone()).await));
    }
    shop.ask(shop.confirm(confirmed.item.key.saga)).await;
    let Answer::Rejected(sold_out) = shop.ask(refused.clone()).await else { panic!("two are left") };
    shop.ask(shop.release(released.item.key.saga, codes::HOLD_EXPIRED)).await;

    let told = async |order| {
        let fenced = fenced(&shop, shop.fence(order, 1, true)).await;
        (fenced.effect, fenced.undo.unwrap())
    };
    let is_confirmed = Rejection { code: codes::CONFIRMED.into(), message: "the booking is confirmed".into() };
    assert_eq!(told(&held).await, (reserved[0].clone(), Recorded::Closed));
    assert_eq!(told(&confirmed).await, (reserved[1].clone(), Recorded::Rejected(is_confirmed)));
    assert_eq!(told(&released).await, (reserved[2].clone(), NOTHING));
    assert_eq!(told(&refused).await, (Recorded::Rejected(sold_out), NOTHING));
    assert_eq!(shop.available().await, 5, "a fence of an order frees nothing");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_hold_whose_undo_is_fenced_can_still_be_released_and_the_answer_stays() {
    let shop = Shop::open(2, 10).await;
    let order = shop.reserve(SagaId::fresh(), 1);
    let reserved = output(shop.ask(order.clone()).await);
    let open = Fenced { id: 1, effect: reserved.clone(), undo: Some(Recorded::Closed) };
    assert_eq!(fenced(&shop, shop.fence(&order, 1, true)).await, open);
    assert_eq!(told(&shop.ask(shop.release(order.item.key.saga, codes::CANCELLED)).await), "done");
    assert_eq!(shop.available().await, 10);
    assert_eq!(fenced(&shop, shop.fence(&order, 1, true)).await, open, "a repeat gets the same answer");
    let freed = Fenced { id: 2, effect: reserved, undo: Some(NOTHING) };
    assert_eq!(fenced(&shop, shop.fence(&order, 2, true)).await, freed, "a later fence asks anew");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_fence_of_a_confirm_releases_what_is_held_and_keeps_what_is_sold() {
    let shop = Shop::open_with(2, |offer| numbered(offer, &["A", "B"])).await;
    let [held, sold] = ["A", "B"].map(|seat| shop.reserve_seats(SagaId::fresh(), &[seat]));
    shop.ask_all(&[held.clone(), sold.clone()], 2).await;
    let [held, sold] = [held, sold].map(|order| shop.confirm(order.item.key.saga));
    shop.ask(sold.clone()).await;

    assert_eq!(fenced(&shop, shop.fence(&held, 1, false)).await.effect, Recorded::Closed);
    assert_eq!(told(&shop.ask(held.clone()).await), codes::HOLD_GONE);
    assert_eq!(fenced(&shop, shop.fence(&held, 2, false)).await.effect, Recorded::Closed);
    let confirmed = Recorded::Done(Json::of(&Confirmed { tickets: 1 }).unwrap());
    assert_eq!(fenced(&shop, shop.fence(&sold, 1, false)).await.effect, confirmed);
    assert_eq!(shop.free_seats().await, "A");
    let events = shop.events_until(|all| all.iter().any(|(subject, _)| subject == "evt.booking.cancelled")).await;
    let (_, ended) = events.iter().find(|(subject, _)| subject == "evt.booking.cancelled").unwrap();
    assert_eq!((ended.aggregate, &ended.data["reason"]), (held.item.key.saga.0, &codes::CLOSED.into()));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_of_a_fence_and_its_round_one_comes_first() {
    let shop = Shop::open(2, 1_000).await;
    let (all, held) = (sagas(100), sagas(100));
    shop.ask_all(&held.iter().map(|saga| shop.reserve(*saga, 1)).collect::<Vec<_>>(), 50).await;
    let rounds = all.iter().map(|saga| shop.reserve(*saga, 1)).chain(held.iter().map(|saga| shop.confirm(*saga)));
    let commands = rounds.enumerate().flat_map(|(at, command)| {
        let fence = shop.fence(&command, 1, false);
        if at % 2 == 0 { [command, fence] } else { [fence, command] }
    });
    let answers = shop.ask_all(&commands.collect::<Vec<_>>(), 1).await;
    let fair = |step: &str, saga: &SagaId, refusal| {
        let of = |half| &answers[&(key(*saga, step), half)][0];
        let Answer::Done(fenced) = of(Half::Fence) else { panic!("{:?}", of(Half::Fence)) };
        match fenced.read::<Fenced>().unwrap().effect {
            Recorded::Closed => assert_eq!(told(of(Half::Do)), refusal),
            Recorded::Done(output) => assert_eq!(*of(Half::Do), Answer::Done(output)),
            Recorded::Rejected(rejection) => panic!("{rejection:?}"),
        }
    };
    all.iter().for_each(|saga| fair("RESERVE", saga, codes::UNDONE));
    held.iter().for_each(|saga| fair("CONFIRM", saga, codes::HOLD_GONE));
    shop.close_calm().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_fence_of_an_offer_tells_its_answer() {
    let shop = Shop::open(1, 10).await;
    shop.ask(shop.reserve(SagaId::fresh(), 4)).await;
    let [done, refused] = [shop.offer(2, 8), shop.offer(3, 3)];
    shop.ask(done.clone()).await;
    let Answer::Rejected(below) = shop.ask(refused.clone()).await else { panic!("four are held") };
    let offered = Recorded::Done(Json::of(&Offered { version: 2 }).unwrap());
    assert_eq!(fenced(&shop, shop.fence(&done, 1, false)).await.effect, offered);
    assert_eq!(fenced(&shop, shop.fence(&refused, 1, false)).await.effect, Recorded::Rejected(below));
    assert_eq!(shop.available().await, 4);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_fence_has_no_deadline_and_needs_no_body_of_an_order() {
    let shop = Shop::open(1, 10).await;
    let order = shop.reserve(SagaId::fresh(), 1);
    let mut empty = order.clone();
    empty.item.body = Json::NULL;
    let mut late = shop.fence(&empty, 1, false);
    late.item.deadline = Some(Timestamp(1));
    assert_eq!(fenced(&shop, late).await.effect, Recorded::Closed);
    assert_eq!(told(&shop.ask(order).await), codes::UNDONE);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_16_a_fence_without_a_record_of_an_old_saga_is_dead() {
    let shop = Shop::open(1, 10).await;
    let old = saga_of_age(shop.clock.now(), Duration::from_secs(31 * 86_400));
    let mut offer = shop.offer(2, 10);
    offer.item.key.saga = old;
    for command in [shop.reserve(old, 1), shop.confirm(old), offer] {
        let answer = shop.ask(shop.fence(&command, 1, true)).await;
        assert!(matches!(answer, Answer::Dead(_)), "{answer:?}");
    }
    let mut unknown = shop.reserve(SagaId::fresh(), 1);
    unknown.action = "teleport";
    let answer = shop.ask(shop.fence(&unknown, 1, false)).await;
    assert_eq!(answer, Answer::Dead("there is no teleport to fence".into()));
    shop.close().await;
}
