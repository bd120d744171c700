//! The journal's database: its sessions, its locks, and connections that end in the middle.

use std::time::Duration;

use eventicket_contracts::envelope::Half;
use eventicket_contracts::sagas::StartAnswer;
use eventicket_contracts::{Clock, SagaId, Timestamp};
use eventicket_orchestrator::runtime::journal::{self, Shown, Write};
use eventicket_orchestrator::runtime::row::Row;
use eventicket_saga::Saga;
use futures::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::bench::{Bench, GUARD, visit};

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).map_or_else(|| error.to_string(), |code| code.into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_sessions_wait_a_second_and_a_deadlock_shows_before() {
    let bench = Bench::new().await;
    for (setting, value) in [
        ("SHOW lock_timeout", "1s"),
        ("SHOW idle_in_transaction_session_timeout", "1s"),
        ("SHOW deadlock_timeout", "100ms"),
    ] {
        assert_eq!(sqlx::query_scalar::<_, String>(setting).fetch_one(&bench.pool).await.unwrap(), value, "{setting}");
    }
    // Two that wait for one another.
    let both = Barrier::new(2);
    let locks = async |first: &'static str, second: &'static str| {
        let mut tx = bench.pool.begin().await.unwrap();
        tx.execute(first).await.unwrap();
        both.wait().await;
        tx.execute(second).await.map(drop).map_err(|error| code(&error))
    };
    let (one, two) = ("SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_xact_lock(2)");
    let ended = tokio::join!(locks(one, two), locks(two, one));
    let errors: Vec<String> = [ended.0, ended.1].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors, ["40P01"], "a deadlock, no lock time-out");
    // One that waits for somebody who works, and somebody who keeps others waiting and does not.
    let (mut holder, mut waiter) = (bench.pool.begin().await.unwrap(), bench.pool.begin().await.unwrap());
    holder.execute(one).await.unwrap();
    let (worked, waited) = tokio::join!(holder.execute("SELECT pg_sleep(3)"), waiter.execute(one));
    assert!(worked.is_ok() && code(&waited.unwrap_err()) == "55P03");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *holder).await.unwrap();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    let there = async || sqlx::query_scalar::<_, i64>(there).bind(pid).fetch_one(&bench.pool).await.unwrap();
    let ended = async { while there().await > 0 {} };
    tokio::time::timeout(GUARD, ended).await.expect("who idles in a transaction is ended");
    holder.execute(two).await.unwrap_err();
}

/// Visits that wait for OPEN's answer, as the journal has them.
fn visits(number: usize, now: Timestamp) -> Vec<Row> {
    let definition = visit(&[1]).definitions.remove(0);
    let row = |_| {
        let id = SagaId::fresh();
        Row {
            id,
            saga: Saga::new(id.0, &definition, json!({}).into(), now.millis()),
            owner: None,
            event: None,
            idempotency: None,
            trace: None,
            version: 0,
            updated_at: now,
            news: Vec::new(),
        }
    };
    (0..number).map(row).collect()
}

fn writes(rows: &[Row]) -> Vec<Write<'_>> {
    let shown = |row: &Row| Shown { state: row.saga.state().name(), step: None };
    rows.iter().map(|row| Write { row, shown: shown(row) }).collect()
}

/// One batch of a replica, in this order.
async fn batch(pool: &PgPool, rows: &[Row]) -> Result<usize, String> {
    let stored = async {
        let mut tx = pool.begin().await?;
        let stored = journal::write(&mut tx, Uuid::now_v7(), &writes(rows)).await?;
        tx.commit().await?;
        Ok(stored.len())
    };
    stored.await.map_err(|error: sqlx::Error| code(&error))
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_batches_in_opposite_order_neither_deadlock_nor_time_out() {
    const SAGAS: usize = 100;
    let bench = Bench::new().await;
    let mut rows = visits(SAGAS, Clock::system().now());
    let mut tx = bench.pool.begin().await.unwrap();
    journal::write(&mut tx, Uuid::now_v7(), &writes(&rows)).await.unwrap();
    tx.commit().await.unwrap();
    let ids: Vec<SagaId> = rows.iter().map(|row| row.id).collect();
    rows = journal::load(&bench.pool, &ids).await.unwrap();
    rows.sort_by_key(|row| row.id);
    let opposite: Vec<Row> = rows.iter().rev().cloned().collect();

    // A row in the middle is locked, so that each has those that it takes first.
    let url = eventicket_kit::database_url(&bench.ctx.settings, "orchestrator").unwrap();
    let mut other = PgConnection::connect(&url).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    let middle = "SELECT 1 FROM sagas WHERE id = $1 FOR UPDATE";
    sqlx::query(middle).bind(rows[SAGAS / 2].id.0).execute(&mut *lock).await.unwrap();
    let both_wait = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let waiting = async || sqlx::query_scalar::<_, i64>(waiting).fetch_one(&bench.pool).await.unwrap();
        let two = async { while waiting().await < 2 {} };
        tokio::time::timeout(GUARD, two).await.expect("both wait");
        lock.rollback().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(batch(&bench.pool, &rows), batch(&bench.pool, &opposite), both_wait);
    let won = [(Ok(SAGAS), Ok(0)), (Ok(0), Ok(SAGAS))];
    assert!(won.contains(&(first.clone(), second.clone())), "{first:?} and {second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_connections_that_end_in_the_middle_make_no_dead_letter() {
    let bench = Bench::new().await;
    let (_desk, replicas) = (bench.desk(), vec![bench.replica(&[1]).await, bench.replica(&[1]).await]);
    bench.completed(&[bench.started(json!({})).await]).await;
    let url = eventicket_kit::database_url(&bench.ctx.settings, "orchestrator").unwrap();
    let mut other = PgConnection::connect(&url).await.unwrap();
    // As a restart of the server does.
    let ending = async {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let mut ended = 0;
        for _ in 0..15 {
            ended += sqlx::query_scalar::<_, i64>(end).fetch_one(&mut other).await.unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await; // somewhere in the middle of the sagas
        }
        ended
    };
    let visits = async {
        let mut sagas = Vec::new();
        for _ in 0..10 {
            sagas.extend(join_all((0..10).map(|_| bench.ask(bench.asking("visit", json!({}))))).await);
        }
        sagas
    };
    let (ended, answers) = tokio::join!(ending, visits);
    assert!(ended > 15, "{ended} connections were ended");

    let id = |answer: StartAnswer| match answer {
        StartAnswer::Started { id, .. } => id,
        other => panic!("{other:?}"),
    };
    let sagas: Vec<SagaId> = answers.into_iter().map(id).collect();
    bench.completed(&sagas).await;
    let effects = bench.desk.effects.lock().unwrap().clone();
    assert!(effects.values().all(|n| *n == 1) && effects.keys().all(|(_, half)| *half == Half::Do), "{effects:?}");
    assert_eq!(effects.len(), 2 * (sagas.len() + 1), "OPEN and SEAL of each");
    bench.end(replicas).await;
}
