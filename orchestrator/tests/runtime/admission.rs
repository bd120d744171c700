//! Back-pressure: what is full holds up only those that call it.

use std::time::Duration;

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{ActAnswer, StartAnswer};
use eventicket_orchestrator::runtime::admission::Bound;
use eventicket_saga::{State, Status};
use serde_json::json;

use crate::bench::{Bench, GUARD, VAULT};

/// Starts are refused from 6 commands in flight on, steps wait from 7 on.
const BOUND: Bound = Bound(8);
const STORE: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_a_full_service_refuses_only_starts_that_surely_call_it() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.bounded_replica(&[1], BOUND).await);
    let mut stuck = Vec::new(); // nobody is at the vault yet
    let busy = loop {
        match bench.ask(bench.asking("deposit", json!({}))).await {
            StartAnswer::Started { id, .. } => stuck.push(id),
            refused => break refused,
        }
    };
    assert!(matches!(busy, StartAnswer::Busy { .. }) && stuck.len() == 6, "{busy:?} after {}", stuck.len());

    let free = bench.started_as("deposit", json!({"store": false})).await;
    let later = bench.started_as("deposit", json!({"wait": true})).await;
    bench.completed(&[free]).await;
    bench.until(&[later], |row| row.saga.state() == State::Waiting).await;

    let _vault = bench.vault();
    bench.completed(&stuck).await;
    let again = bench.started_as("deposit", json!({})).await;
    bench.completed(&[again]).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_the_excess_waits_in_the_journal_and_a_share_is_kept_for_undos() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.bounded_replica(&[1], BOUND).await);
    let mut sagas: Vec<SagaId> = Vec::new();
    for _ in 0..10 {
        sagas.push(bench.started_as("deposit", json!({"wait": true})).await);
    }
    bench.until(&sagas, |row| row.saga.state() == State::Waiting).await;
    for saga in &sagas {
        assert!(matches!(bench.signal(*saga).await, ActAnswer::Done { .. }));
    }
    let (sent, excess) = sagas.split_at(7);
    bench.until(excess, |row| row.saga.steps[STORE].status == Status::Held).await;
    for saga in excess {
        assert_eq!(bench.row(*saga).await.saga.steps[STORE].attempts, 0, "no attempt is spent");
    }
    // What was sent is undone, though no step may begin.
    let cancelled = bench.act(sent[0], eventicket_contracts::sagas::Action::Cancel).await;
    assert!(matches!(cancelled, ActAnswer::Done { .. }));
    bench.until(&sent[..1], |row| row.saga.steps[STORE].undo_attempts == 1).await;

    let _vault = bench.vault();
    bench.completed(&sagas[1..]).await;
    bench.until(&sent[..1], |row| row.saga.ended()).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_a_refused_publish_is_no_attempt() {
    let bench = Bench::new().await;
    let replica = bench.replica(&[1]).await;
    let saga = bench.started(json!({})).await; // the desk has no stream yet
    let refusals = |entries: &[eventicket_contracts::sagas::HistoryEntry]| {
        entries.iter().filter(|entry| entry.what == "refused").count()
    };
    while refusals(&bench.history(saga).await) < 3 {
        tokio::task::yield_now().await;
    }
    let _desk = bench.desk();
    bench.completed(&[saga]).await;
    assert_eq!(bench.row(saga).await.saga.steps[0].attempts, 1);
    assert_eq!(bench.desk.effects.lock().unwrap().len(), 2, "OPEN and SEAL");
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_what_is_in_flight_is_the_sum_over_all_replicas_whoever_got_the_answer() {
    let bench = Bench::new().await;
    let _desk = bench.desk();
    let vault = bench.vault();
    let (first, second) = (bench.bounded_replica(&[1], BOUND).await, bench.bounded_replica(&[1], BOUND).await);
    // Until one replica got the answer to what the other one had sent.
    let crossed = async {
        loop {
            // No more than has room at both services where neither replica knows yet what the other one got.
            until_all_have_looked(&bench).await;
            for _ in 0..2 {
                let saga = bench.started_as("deposit", json!({})).await;
                bench.completed(&[saga]).await;
            }
            let counts = bench.in_flight(VAULT.name()).await;
            assert_eq!(counts.iter().sum::<i64>(), 0, "{counts:?}");
            if counts.iter().any(|n| *n < 0) {
                return;
            }
        }
    };
    tokio::time::timeout(GUARD, crossed).await.expect("answers cross");
    vault.abort();
    let _ = vault.await;
    second.stop().await;
    until_alone(&bench).await;
    until_all_have_looked(&bench).await;
    let mut stuck = Vec::new();
    while let StartAnswer::Started { id, .. } = bench.ask(bench.asking("deposit", json!({}))).await {
        stuck.push(id);
    }
    assert_eq!((stuck.len(), bench.in_flight(VAULT.name()).await), (6, vec![6]));

    // A new replica, which has sent nothing itself, refuses as the first one does.
    let second = bench.bounded_replica(&[1], BOUND).await;
    until_all_have_looked(&bench).await;
    for _ in 0..20 {
        let answer = bench.ask(bench.asking("deposit", json!({}))).await;
        assert!(matches!(answer, StartAnswer::Busy { .. }), "{answer:?}");
    }
    let _vault = bench.vault();
    bench.completed(&stuck).await;
    assert_eq!(bench.in_flight(VAULT.name()).await.iter().sum::<i64>(), 0);
    bench.end(vec![first, second]).await;
}

/// Waits until the replica that has left is forgotten and its counts are stored with another's, as with each batch.
async fn until_alone(bench: &Bench) {
    let alone = async {
        while bench.in_flight(VAULT.name()).await != [0] {
            match bench.ask(bench.asking("deposit", json!({"store": false}))).await {
                StartAnswer::Started { id, .. } => bench.completed(&[id]).await,
                // It counts what the other one had sent until it knows that it has left.
                StartAnswer::Busy { .. } => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(GUARD, alone).await.expect("the heir has all counts");
}

/// Waits until each replica has beaten twice more, so that it knows the counts of the others.
async fn until_all_have_looked(bench: &Bench) {
    let beats = async || -> Vec<i64> {
        let sql = "SELECT heartbeat_at FROM replicas ORDER BY name";
        sqlx::query_scalar(sql).fetch_all(&bench.pool).await.unwrap()
    };
    for _ in 0..2 {
        let before = beats().await;
        let beaten = async {
            while beats().await.iter().zip(&before).any(|(now, then)| now == then) {
                tokio::time::sleep(Duration::from_millis(50)).await; // nobody tells
            }
        };
        tokio::time::timeout(GUARD, beaten).await.expect("their hearts beat");
    }
}
