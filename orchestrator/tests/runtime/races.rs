//! Two replicas and one saga.

use std::time::Duration;

use eventicket_contracts::envelope::{Half, Key};
use eventicket_contracts::sagas::ActAnswer;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::json;
use sqlx::Connection as _;

use crate::bench::{Bench, GUARD};

/// Sessions that wait for another's lock.
async fn blocked(bench: &Bench) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    sqlx::query_scalar(sql).fetch_one(&bench.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_of_two_replicas_at_one_saga_only_one_is_believed() {
    let bench = Bench::new().await;
    let (_desk, replicas) = (bench.desk(), vec![bench.replica(&[1]).await, bench.replica(&[1]).await]);
    bench.completed(&[bench.started(json!({})).await]).await;
    let saga = bench.started(json!({"wait": true})).await;
    bench.until(&[saga], |row| row.saga.at == 1).await;

    // The row is locked, so that both replicas have read it, each with a signal, before either may write it.
    let mut holder = bench.pool.acquire().await.unwrap();
    let mut lock = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM sagas WHERE id = $1 FOR UPDATE").bind(saga.0).execute(&mut *lock).await.unwrap();
    let mut signals = FuturesUnordered::new();
    let both = async {
        while blocked(&bench).await < 2 {
            signals.push(bench.signal(saga));
            while signals.next().now_or_never().flatten().is_some() {}
            tokio::time::sleep(Duration::from_millis(20)).await; // who gets it is the broker's choice
        }
    };
    tokio::time::timeout(GUARD, both).await.expect("both replicas wait for the row");
    lock.rollback().await.unwrap();
    let answers: Vec<ActAnswer> = signals.collect().await;
    bench.completed(&[saga]).await;

    let done = answers.iter().filter(|a| matches!(a, ActAnswer::Done { .. })).count();
    assert_eq!(done, 1, "{answers:?}");
    let history = bench.history(saga).await;
    assert_eq!(history.iter().filter(|e| e.what == "signalled").count(), 1, "{history:?}");
    assert!(history.iter().zip(1..).all(|(entry, n)| entry.seq == n), "{history:?}");
    let seal = (Key { saga, step: "SEAL".into(), round: 1 }, Half::Do);
    assert_eq!(bench.desk.received.lock().unwrap()[&seal], 1, "no effect of the refused update left");
    bench.end(replicas).await;
}
