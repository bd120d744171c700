//! Breakers hold sagas without spending their attempts, by themselves or by an operator's hand.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::BreakerMode;
use eventicket_orchestrator::runtime::journal;
use eventicket_saga::breaker::{self, Breaker};
use eventicket_saga::{Phase, State};
use futures::future::join_all;
use serde_json::json;

use crate::bench::{Bench, DESK};

/// More than the failures that open a breaker.
const TRIPPING: usize = 30;
/// Held sagas that one replica lets go at once, and how often it looks.
const RELEASE: (usize, i64) = (200, 200);

async fn started(bench: &Bench, number: usize) -> Vec<SagaId> {
    join_all((0..number).map(|_| bench.started(json!({})))).await
}

/// Opens the breaker by failures; some of these sagas are held by it, the others are undone.
async fn trip(bench: &Bench) -> Vec<SagaId> {
    bench.desk.broken.store(true, Ordering::SeqCst);
    let sagas = started(bench, TRIPPING).await;
    bench.until(&sagas, |row| row.saga.state() == State::Held || row.saga.phase != Phase::Forward).await;
    sagas
}

async fn version(bench: &Bench) -> i64 {
    let stored = journal::breakers(&bench.pool).await.unwrap();
    stored.iter().find(|b| b.service == DESK.name()).map_or(0, |b| b.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_sagas_are_held_while_a_service_fails_and_finish_when_it_is_back() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let tripping = trip(&bench).await;
    let later = started(&bench, 10).await;
    bench.until(&later, |row| row.saga.state() == State::Held).await;
    for id in &later {
        assert_eq!(bench.row(*id).await.saga.steps[0].attempts, 0, "no attempt is spent");
    }
    let shown = bench.breaker().await;
    assert!(["open", "half_open"].contains(&shown.state.as_str()) && shown.until.is_some(), "{shown:?}");
    assert!(shown.mode == "auto" && shown.held >= 10, "{shown:?}");

    bench.desk.broken.store(false, Ordering::SeqCst);
    bench.completed(&later).await;
    bench.until(&tripping, |row| row.saga.ended()).await;
    assert_eq!(bench.breaker().await.state, "closed");
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_an_operator_opens_closes_and_frees_a_breaker_of_two_replicas() {
    let bench = Bench::new().await;
    let (_desk, replicas) = (bench.desk(), vec![bench.replica(&[1]).await, bench.replica(&[1]).await]);
    bench.completed(&started(&bench, 1).await).await;

    // Forced open, nothing passes, not even a probe.
    let set = bench.set_breaker(BreakerMode::Open).await;
    assert_eq!((set.state.as_str(), set.mode.as_str(), set.until), ("open", "open", None));
    assert_eq!((set.actor.as_deref(), set.reason.as_deref()), (Some("test"), Some("a test")));
    let probe = bench.started(json!({})).await; // either replica may not have looked yet
    bench.until(&[probe], |row| row.saga.state() == State::Held || row.saga.ended()).await;
    tokio::time::sleep(Duration::from_millis(400)).await; // two looks
    let held = started(&bench, 40).await;
    bench.until(&held, |row| row.saga.state() == State::Held && row.saga.steps[0].attempts == 0).await;
    assert!(bench.breaker().await.held >= 40);
    assert_eq!(version(&bench).await, 1, "nobody probes");

    // Forced closed, it lets everything go and never trips.
    assert_eq!(bench.set_breaker(BreakerMode::Closed).await.state, "closed");
    bench.completed(&held).await;
    bench.desk.broken.store(true, Ordering::SeqCst);
    let failing = started(&bench, TRIPPING).await;
    bench.until(&failing, |row| row.saga.phase != Phase::Forward).await;
    assert_eq!((bench.breaker().await.state.as_str(), version(&bench).await), ("closed", 2));

    // By itself it counts from closed.
    assert_eq!(bench.set_breaker(BreakerMode::Auto).await.state, "closed");
    let tripping = started(&bench, TRIPPING).await;
    bench.breaker_until(|b| b.state == "open").await;
    bench.desk.broken.store(false, Ordering::SeqCst);
    bench.until(&[tripping, failing].concat(), |row| row.saga.ended()).await;
    bench.end(replicas).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_what_was_held_is_released_at_a_bounded_rate() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.set_breaker(BreakerMode::Open).await;
    tokio::time::sleep(Duration::from_millis(400)).await; // two looks
    let sagas = started(&bench, 3 * RELEASE.0 + 50).await;
    bench.until(&sagas, |row| row.saga.state() == State::Held).await;
    bench.set_breaker(BreakerMode::Auto).await;
    bench.completed(&sagas).await;

    let mut sent: BTreeMap<i64, usize> = BTreeMap::new();
    for saga in &sagas {
        let history = bench.history(*saga).await;
        let open = history.iter().find(|e| e.what == "dispatched" && e.step.as_deref() == Some("OPEN")).unwrap();
        *sent.entry(open.at.millis()).or_default() += 1;
    }
    // What two looks release may come close together, where the first turn was slow.
    let most = sent.keys().map(|&at| sent.range(at..at + RELEASE.1).map(|(_, n)| n).sum::<usize>()).max();
    assert!(most.is_some_and(|n| n <= 2 * RELEASE.0), "{sent:?}");
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_a_probe_that_dies_holds_nobody() {
    let bench = Bench::new().await;
    let (desk, doomed) = (bench.desk(), bench.replica(&[1]).await);
    let tripping = trip(&bench).await;
    let held = started(&bench, 5).await;
    bench.until(&held, |row| row.saga.state() == State::Held).await;
    desk.abort(); // nobody answers the probe
    let _ = desk.await;
    let probing = bench.breaker_until(|b| b.state == "half_open").await;
    doomed.kill().await;

    let heir = bench.replica(&[1]).await;
    let claimed = bench.breaker_until(|b| b.state == "half_open" && b.until > probing.until);
    let claimed = tokio::time::timeout(Duration::from_secs(12), claimed).await.expect("another one probes");
    assert!(claimed.changed_at >= probing.until, "one probe at a time: {probing:?}, {claimed:?}");
    bench.desk.broken.store(false, Ordering::SeqCst);
    let _desk = bench.desk();
    bench.until(&[tripping, held].concat(), |row| row.saga.ended()).await;
    bench.end(vec![heir]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_rejections_never_trip() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.desk.refusing.store(true, Ordering::SeqCst);
    let refused = started(&bench, 2 * TRIPPING).await;
    bench.until(&refused, |row| row.saga.phase == Phase::Compensated).await;
    assert_eq!((bench.breaker().await.state.as_str(), version(&bench).await), ("closed", 0));
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_a_rejected_probe_closes() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let tripping = trip(&bench).await;
    let held = started(&bench, 5).await;
    bench.until(&held, |row| row.saga.state() == State::Held).await;
    bench.desk.refusing.store(true, Ordering::SeqCst);
    bench.desk.broken.store(false, Ordering::SeqCst);
    bench.breaker_until(|b| b.state == "closed").await;
    bench.until(&[tripping, held].concat(), |row| row.saga.ended()).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_answers_are_counted_in_memory_and_only_changes_of_state_are_written() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.desk.broken.store(true, Ordering::SeqCst);
    let failing = started(&bench, 5).await;
    let failed = |row: &eventicket_orchestrator::runtime::row::Row| row.saga.steps[0].error.is_some();
    bench.until(&failing, failed).await;
    bench.desk.broken.store(false, Ordering::SeqCst);
    bench.until(&failing, |row| row.saga.ended()).await;
    bench.completed(&started(&bench, 20).await).await;
    assert_eq!(version(&bench).await, 0, "it has never been written");

    let tripping = trip(&bench).await;
    bench.breaker_until(|b| b.state == "open").await;
    assert_eq!(version(&bench).await, 1, "written once for {TRIPPING} failures");
    bench.desk.broken.store(false, Ordering::SeqCst);
    bench.until(&tripping, |row| row.saga.ended()).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_of_two_claims_of_a_probe_one_wins() {
    let bench = Bench::new().await;
    let now = bench.ctx.clock.now();
    let set = |state, version| {
        let breaker = Breaker { state, ..Breaker::default() };
        journal::set_breaker(&bench.pool, DESK.name(), breaker, version, now)
    };
    assert!(set(breaker::State::Open(now.millis()), 0).await.unwrap());
    let claims = join_all((0..8).map(|n| set(breaker::State::HalfOpen(now.millis() + n), 1))).await;
    assert_eq!(claims.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
    assert_eq!(version(&bench).await, 2);
}
