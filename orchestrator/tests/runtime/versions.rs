//! Several versions of a definition in flight.

use serde_json::json;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_finishes_under_the_version_that_it_began_with() {
    let bench = Bench::new().await;
    let (_desk, first) = (bench.desk(), bench.replica(&[1]).await);
    let old = bench.started(json!({"wait": true})).await;
    bench.until(&[old], |row| row.saga.at == 1).await;
    first.stop().await;

    let second = bench.replica(&[1, 2]).await;
    let new = bench.started(json!({})).await;
    bench.completed(&[new]).await;
    bench.signal(old).await;
    bench.completed(&[old]).await;

    let (old, new) = (bench.row(old).await.saga, bench.row(new).await.saga);
    assert_eq!((old.version, old.steps.len()), (1, 3));
    assert_eq!((new.version, new.steps.len()), (2, 4), "a new saga takes the newest version");
    bench.end(vec![second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_17_a_replica_leaves_definitions_that_it_does_not_know_to_others() {
    let bench = Bench::new().await;
    let _desk = bench.desk();
    let newer = bench.replica(&[1, 2]).await;
    let saga = bench.started(json!({"wait": true})).await;
    bench.until(&[saga], |row| row.saga.at == 1).await;
    newer.kill().await;

    let older = bench.replica(&[1]).await;
    let other = bench.started(json!({})).await;
    bench.completed(&[other]).await;
    let left = bench.row(saga).await.saga;
    assert_eq!((left.version, left.at, left.attention.len()), (2, 1, 0), "untouched");

    let newer = bench.replica(&[1, 2]).await;
    bench.until(&[saga], |row| row.saga.at == 1).await;
    while !matches!(bench.signal(saga).await, eventicket_contracts::sagas::ActAnswer::Done { .. }) {}
    bench.completed(&[saga]).await;
    bench.end(vec![older, newer]).await;
}
