//! What may be a breaker's probe, and what becomes of a probe that is none.

use eventicket_contracts::sagas::{ActAnswer, Action};
use eventicket_contracts::{SagaId, Timestamp};
use eventicket_orchestrator::runtime::journal;
use eventicket_orchestrator::runtime::row::Row;
use eventicket_saga::breaker::{self, Breaker};
use eventicket_saga::{Phase, State, Status};
use serde_json::json;

use crate::bench::{Bench, DESK};

/// Stores the desk's breaker as open until then.
async fn open_until(bench: &Bench, until: Timestamp, version: i64) {
    let breaker = Breaker { state: breaker::State::Open(until.millis()), ..Breaker::default() };
    let now = bench.ctx.clock.now();
    assert!(journal::set_breaker(&bench.pool, DESK.name(), breaker, version, now).await.unwrap());
}

async fn version(bench: &Bench) -> i64 {
    journal::breakers(&bench.pool).await.unwrap().iter().find(|b| b.service == DESK.name()).map_or(0, |b| b.version)
}

/// Visits that the open breaker holds, oldest first. Those that were sent before the replica had seen the breaker do not
/// count; they are through with it when they are `past`.
async fn held(bench: &Bench, number: usize, past: impl Fn(&Row) -> bool) -> Vec<SagaId> {
    let mut sagas = Vec::new();
    while sagas.len() < number {
        let saga = bench.started(json!({"wait": true})).await;
        bench.until(&[saga], |row| row.saga.state() == State::Held || past(row)).await;
        if bench.row(saga).await.saga.state() == State::Held {
            sagas.push(saga);
        }
    }
    sagas
}

async fn acted(bench: &Bench, saga: SagaId, action: Action) {
    let answer = bench.act(saga, action).await;
    assert!(matches!(answer, ActAnswer::Done { .. }), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_a_fence_is_the_probe_where_nothing_else_waits() {
    let bench = Bench::new().await;
    let replica = bench.replica(&[1]).await; // the desk does not answer yet
    let sent = bench.started(json!({})).await;
    bench.until(&[sent], |row| row.saga.steps[0].attempts == 1).await;
    let later = bench.ctx.clock.now().plus(std::time::Duration::from_secs(600));
    open_until(&bench, later, 0).await;
    let given_up = held(&bench, 1, |row| row.saga.steps[0].attempts > 0).await[0];
    acted(&bench, given_up, Action::Abandon { force: false }).await;
    let put_off = |row: &Row| row.saga.steps[0].fence.as_ref().is_some_and(|fence| fence.held);
    acted(&bench, sent, Action::Abandon { force: false }).await;
    bench.until(&[sent], put_off).await;
    assert_eq!(bench.row(sent).await.saga.phase, Phase::Abandoning);

    let _desk = bench.desk();
    open_until(&bench, bench.ctx.clock.now(), 1).await;
    bench.breaker_until(|b| b.state == "closed").await;
    bench.until(&[sent, given_up], |row| row.saga.phase == Phase::Abandoned).await;
    bench.ctx.shutdown.cancel();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_a_probe_that_sends_nothing_is_another_sagas_at_once() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.completed(&[bench.started(json!({})).await]).await;
    let later = bench.ctx.clock.now().plus(std::time::Duration::from_secs(600));
    open_until(&bench, later, 0).await;
    let waits = |row: &Row| row.saga.state() == State::Waiting;
    let sagas = held(&bench, 2, waits).await;
    acted(&bench, sagas[0], Action::Pause).await; // it is first, and has not begun

    open_until(&bench, bench.ctx.clock.now(), 1).await;
    bench.until(&sagas[1..], waits).await;
    bench.breaker_until(|b| b.state == "closed").await;
    assert_eq!(version(&bench).await, 6, "claimed, given back, claimed and closed");
    assert_eq!(bench.row(sagas[0]).await.saga.steps[0].status, Status::Idle);
    acted(&bench, sagas[0], Action::Resume).await;
    bench.until(&sagas, waits).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_dead_replica_is_forgotten_although_nobody_can_read_one_of_its_sagas() {
    let bench = Bench::new().await;
    let (_desk, doomed) = (bench.desk(), bench.replica(&[1, 2]).await);
    // Of a version that the heir does not know, without a readable body, and one that is well.
    let unknown = bench.started(json!({"wait": true})).await;
    let (mut waiting, count) = (Vec::new(), "SELECT count(*) FROM replicas WHERE name = $1");
    for _ in 0..2 {
        waiting.push(bench.started_as("deposit", json!({"wait": true})).await);
    }
    let name = "SELECT dispatcher FROM sagas WHERE id = $1";
    let dead: uuid::Uuid = sqlx::query_scalar(name).bind(unknown.0).fetch_one(&bench.pool).await.unwrap();
    doomed.kill().await;
    let spoil = "UPDATE sagas SET body = '{}' WHERE id = $1";
    sqlx::query(spoil).bind(waiting[0].0).execute(&bench.pool).await.unwrap();

    let heir = bench.replica(&[1]).await;
    let forgotten = async {
        while sqlx::query_scalar::<_, i64>(count).bind(dead).fetch_one(&bench.pool).await.unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // nobody tells of it
        }
    };
    tokio::time::timeout(crate::bench::GUARD, forgotten).await.expect("the dead one is forgotten");
    let left = "SELECT count(*) FROM unfinished JOIN sagas USING (id) WHERE dispatcher = $1";
    let left: i64 = sqlx::query_scalar(left).bind(dead).fetch_one(&bench.pool).await.unwrap();
    assert_eq!(left, 2, "those that it cannot take");
    bench.end(vec![heir]).await;
}
