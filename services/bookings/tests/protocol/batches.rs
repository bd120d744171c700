//! 6.1 and 6.9: what a batch commits, under which locks, and what becomes of it where it cannot.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use eventicket_contracts::bookings::Reserve;
use eventicket_contracts::envelope::{Answer, DomainEvent};
use eventicket_contracts::{SagaId, codes, subjects};
use eventicket_kit::batch::lock_sagas;
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use crate::shop::{PATIENCE, Sent, Shop, count, saga_of_age, sagas, told};

/// Lets no transaction be committed that makes a hold, while the table `closed` is there.
const REFUSE: &str = "CREATE SEQUENCE refused MINVALUE 0;
    CREATE TABLE closed ();
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF to_regclass('closed') IS NOT NULL THEN
            PERFORM nextval('refused');
            RAISE EXCEPTION USING ERRCODE = '40001';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON holds DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()";

async fn messages(shop: &Shop, stream: &str) -> u64 {
    shop.nats().jetstream().get_stream(stream).await.unwrap().cached_info().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_no_answer_leaves_before_it_is_recorded() {
    let shop = Shop::open(1, 10).await;
    shop.pool.execute(REFUSE).await.unwrap();
    let saga = SagaId::fresh();
    let (replies, order) = (messages(&shop, subjects::REPLIES_STREAM).await, shop.reserve(saga, 1));
    shop.send(&[order], 1).await;
    let tries =
        async || sqlx::query_scalar::<_, i64>("SELECT last_value FROM refused").fetch_one(&shop.pool).await.unwrap();
    let tried = async { while tries().await < 2 {} };
    tokio::time::timeout(PATIENCE, tried).await.expect("it is tried again, whole");
    assert_eq!(messages(&shop, subjects::REPLIES_STREAM).await, replies, "and nothing is told");
    assert_eq!(messages(&shop, &subjects::command_stream("bookings")).await, 1, "nor acknowledged");
    shop.pool.execute("DROP TABLE closed").await.unwrap();
    assert_eq!(told(&shop.replies(1).await[0].answer), "done");
    assert_eq!((shop.available().await, shop.dead_letters().await), (9, 0));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_an_attempt_only_labels_its_send() {
    let shop = Shop::open(1, 10).await;
    let (reserve, saga) = (shop.reserve(SagaId::fresh(), 2), SagaId::fresh());
    let attempt = |of: &Sent, attempt| {
        let mut sent = of.clone();
        sent.item.attempt = attempt;
        sent
    };
    shop.send(&[attempt(&reserve, 2), attempt(&reserve, 1), attempt(&reserve, 3)], 1).await;
    let replies = shop.replies(3).await;
    assert!(replies.iter().all(|reply| reply.answer == replies[0].answer), "{replies:?}");
    assert_eq!(replies.iter().map(|reply| reply.attempt).collect::<Vec<_>>(), [2, 1, 3]);
    // A later attempt's undo closes the earlier attempts' do.
    shop.ask(attempt(&shop.release(saga, codes::CANCELLED), 7)).await;
    assert_eq!(told(&shop.ask(shop.reserve(saga, 1)).await), codes::UNDONE);
    assert_eq!(shop.available().await, 8);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_a_sweep_waits_for_the_lock_of_the_saga_and_reads_behind_it() {
    let shop = Shop::open(1, 10).await;
    let [saga, later, sold] = [SagaId::fresh(), SagaId::fresh(), SagaId::fresh()];
    shop.ask_all(&[shop.reserve(saga, 1), shop.reserve(sold, 2)], 2).await;
    shop.ask(shop.confirm(sold)).await;
    let mut other = shop.pool.begin().await.unwrap();
    lock_sagas(&mut other, &[saga]).await.unwrap();
    shop.clock.advance(Duration::from_secs(691));
    shop.waiting(1).await;
    // Another replica's sweep was first.
    let free = sqlx::query("UPDATE holds SET state = 'expired', changes = 2 WHERE saga = $1").bind(saga.0);
    free.execute(&mut *other).await.unwrap();
    sqlx::query("UPDATE ticket_types SET available = 8").execute(&mut *other).await.unwrap();
    other.commit().await.unwrap();

    // Once a later hold is freed, the first one was looked at.
    let order = Reserve { hold_seconds: 1, grace_seconds: 0, ..shop.order(3) };
    shop.ask(shop.reserve_order(later, &order)).await;
    shop.clock.advance(Duration::from_secs(2));
    let expired = |all: &[(String, DomainEvent)]| -> Vec<Uuid> {
        all.iter().filter(|(subject, _)| subject == "evt.booking.expired").map(|(_, event)| event.aggregate).collect()
    };
    let events = shop.events_until(|all| expired(all).contains(&later.0)).await;
    assert_eq!((expired(&events), shop.available().await), (vec![later.0], 8), "the first one is freed once");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_a_hold_that_cannot_be_freed_keeps_no_other_one_held() {
    let shop = Shop::open(1, 10).await;
    let holds = sagas(5);
    let reserves: Vec<Sent> = holds.iter().map(|saga| shop.reserve(*saga, 1)).collect();
    shop.ask_all(&reserves, 5).await;
    let stuck = holds[2];
    let refuse = format!("ALTER TABLE holds ADD CONSTRAINT stuck CHECK (saga <> '{stuck}' OR state = 'held')");
    shop.pool.execute(sqlx::AssertSqlSafe(refuse)).await.unwrap();
    shop.clock.advance(Duration::from_secs(691));
    let expired = |all: &[(String, DomainEvent)]| -> HashSet<Uuid> {
        all.iter().filter(|(subject, _)| subject == "evt.booking.expired").map(|(_, event)| event.aggregate).collect()
    };
    let events = shop.events_until(|all| expired(all).len() == 4).await;
    assert!(!expired(&events).contains(&stuck.0));
    assert_eq!(shop.available().await, 9);
    // Once the database takes it, it is freed, too.
    shop.pool.execute("ALTER TABLE holds DROP CONSTRAINT stuck").await.unwrap();
    shop.events_until(|all| expired(all).contains(&stuck.0)).await;
    assert_eq!(shop.available().await, 10);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_commands_in_opposite_order_never_deadlock() {
    let shop = Shop::open(2, 1_000).await;
    let sagas = sagas(20);
    let reserves: Vec<Sent> = sagas.iter().map(|saga| shop.reserve(*saga, 1)).collect();
    let releases: Vec<Sent> = sagas.iter().rev().map(|saga| shop.release(*saga, codes::CANCELLED)).collect();
    // A saga in the middle is locked, so that each batch has the locks that it takes first.
    let mut lock = shop.pool.begin().await.unwrap();
    lock_sagas(&mut lock, &[sagas[10]]).await.unwrap();
    shop.send(&reserves, 20).await;
    shop.waiting(1).await;
    for _ in 0..20 {
        shop.send(&releases, 20).await; // the other replica gets some of them
    }
    shop.waiting(2).await;
    lock.commit().await.unwrap();
    shop.replies(21 * sagas.len()).await;
    assert_eq!(shop.available().await, 1_000);
    let pool = shop.pool.clone();
    shop.close().await;
    assert_eq!(deadlocks(&pool).await, 0);
}

/// Deadlocks in the database, once the connections of the replicas have ended: then they are counted.
async fn deadlocks(pool: &PgPool) -> i64 {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''";
    let ended = async {
        while sqlx::query_scalar::<_, i64>(others).fetch_one(pool).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the replicas' connections end");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(deadlocks).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_connections_that_end_in_the_middle_make_no_dead_letter() {
    let shop = Shop::open(2, 5).await;
    let orders: Vec<Sent> = sagas(8).iter().map(|saga| shop.reserve(*saga, 1)).collect();
    let mut lock = shop.pool.begin().await.unwrap();
    lock_sagas(&mut lock, &[orders[0].item.key.saga]).await.unwrap();
    shop.send(&orders, 8).await;
    // As a restart of the server does in the middle of a batch, more often than it could be split.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event = 'advisory'";
    let mut ended = 0;
    while ended < 5 {
        shop.waiting(1).await;
        ended += sqlx::query_scalar::<_, i64>(end).fetch_one(&shop.pool).await.unwrap();
    }
    lock.commit().await.unwrap();
    let replies = shop.replies(orders.len()).await;
    let counts = count(replies.iter().map(|reply| &reply.answer));
    assert_eq!(counts, HashMap::from([("done".to_owned(), 5), (codes::SOLD_OUT.to_owned(), 3)]));
    assert!(replies.iter().map(|reply| &reply.key).collect::<HashSet<_>>().len() == 8);
    assert_eq!((shop.available().await, shop.dead_letters().await), (0, 0));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_16_undos_and_confirms_of_an_old_saga_are_never_rejected_for_its_age() {
    let shop = Shop::open(1, 10).await;
    let of_days = |days: u64| saga_of_age(shop.clock.now(), Duration::from_secs(days * 86_400));
    let (unknown, known) = (of_days(31), of_days(29));
    for command in [shop.confirm(unknown), shop.release(unknown, codes::CANCELLED)] {
        let answer = shop.ask(command).await;
        assert!(matches!(answer, Answer::Dead(_)), "without a record it is for an operator: {answer:?}");
    }
    let other = SagaId(Uuid::from_u128(known.0.as_u128() + 1));
    shop.ask_all(&[shop.reserve(known, 1), shop.reserve(other, 1)], 2).await;
    let first = shop.ask(shop.confirm(known)).await;
    let gone = shop.ask(shop.release(other, codes::CANCELLED)).await;
    shop.clock.advance(Duration::from_secs(3 * 86_400));
    assert_eq!(shop.ask(shop.confirm(known)).await, first, "a record is told at any age");
    assert_eq!(shop.ask(shop.release(other, codes::CANCELLED)).await, gone);
    assert_eq!((told(&first), told(&gone)), ("done", "done"));
    shop.close().await;
}
