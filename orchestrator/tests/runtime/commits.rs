//! Commits whose answer is lost, and commits that never arrive.

use std::str::FromStr as _;

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::Half;
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{ActAnswer, Action, StartAnswer};
use eventicket_orchestrator::runtime::admission::Bound;
use eventicket_orchestrator::runtime::journal;
use eventicket_saga::State;
use serde_json::json;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::bench::{Bench, DESK};
use crate::wire::{Cut, Wire};

/// A wire to the bench's database, with a pool behind it.
async fn wired(bench: &Bench, plan: impl Fn(usize) -> Option<Cut> + Send + Sync + 'static) -> (Wire, sqlx::PgPool) {
    let options = PgConnectOptions::from_str(&bench.ctx.settings.database_url).unwrap();
    let wire = Wire::new((options.get_host(), options.get_port()), plan).await;
    let url = options.port(wire.address.port()).to_url_lossy();
    let settings = bench.ctx.clone().with_settings(|s| s.database_url = url.to_string()).settings;
    let pool = eventicket_kit::database(&settings, "orchestrator", &journal::MIGRATOR).await.unwrap();
    (wire, pool)
}

/// A visit, waited for and sent on its way by a signal, with a key or without.
async fn visited(bench: &Bench, keyed: bool) -> SagaId {
    let StartAnswer::Started { id, .. } = bench.ask(bench.asking("visit", json!({"wait": true}))).await else {
        panic!("it was not started")
    };
    bench.until(&[id], |row| row.saga.state() == State::Waiting).await;
    let idempotency = keyed.then(|| Idempotency { key: "go".into(), fingerprint: "print".into() });
    let answer = bench.act(id, Action::Signal { name: "go".into(), payload: json!(1).into(), idempotency }).await;
    assert!(matches!(answer, ActAnswer::Done { .. }), "{answer:?}");
    bench.completed(&[id]).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_after_a_commit_without_an_answer_rows_are_read_again_before_anything_is_sent() {
    let bench = Bench::new().await;
    // Every other commit is cut; a turn whose commit was cut commits again, so that each turn meets one.
    let plan = |n: usize| [Some(Cut::After), None, Some(Cut::Before), None][n % 4];
    let (wire, pool) = wired(&bench, plan).await;
    let (_desk, replica) =
        (bench.desk(), bench.replica_over(pool, bench.ctx.nats.clone(), &[1], Bound::default()).await);
    let mut sagas = Vec::new();
    for n in 0..8 {
        sagas.push(visited(&bench, n % 2 == 0).await);
    }
    let cuts = (wire.number(Cut::Before), wire.number(Cut::After));
    assert!(cuts.0 >= 8 && cuts.1 >= 8, "{cuts:?}");

    for saga in &sagas {
        let history = bench.history(*saga).await;
        assert!(history.iter().zip(1..).all(|(entry, n)| entry.seq == n), "{history:?}");
        for what in ["started", "signalled", "completed"] {
            assert_eq!(history.iter().filter(|entry| entry.what == what).count(), 1, "{what}: {history:?}");
        }
    }
    let effects = bench.desk.effects.lock().unwrap().clone();
    assert!(effects.len() == 2 * sagas.len() && effects.values().all(|n| *n == 1), "{effects:?}");
    assert!(effects.keys().all(|(_, half)| *half == Half::Do));
    assert_eq!(bench.in_flight(DESK.name()).await, [0], "what is counted is what was stored");
    bench.end(vec![replica]).await; // a command of what was not stored would be answered to nobody
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_an_action_whose_commit_has_no_answer_is_done_where_it_was_stored() {
    let bench = Bench::new().await;
    // Without keys, so that a second look at a stored one would refuse it.
    let plan = |n: usize| [Some(Cut::After), None, Some(Cut::Before), None][n % 4];
    let (wire, pool) = wired(&bench, plan).await;
    let (_desk, replica) =
        (bench.desk(), bench.replica_over(pool, bench.ctx.nats.clone(), &[1], Bound::default()).await);
    for round in 0..8 {
        let StartAnswer::Started { id, .. } = bench.ask(bench.asking("visit", json!({"wait": true}))).await else {
            panic!("it was not started")
        };
        bench.until(&[id], |row| row.saga.state() == State::Waiting).await;
        let signalled = round % 2 == 0;
        let answer = if signalled { bench.signal(id).await } else { bench.act(id, Action::Cancel).await };
        assert!(matches!(answer, ActAnswer::Done { .. }), "{answer:?}");
        bench.until(&[id], |row| row.saga.ended()).await;
        let what = if signalled { "signalled" } else { "cancelled" };
        let history = bench.history(id).await;
        assert_eq!(history.iter().filter(|entry| entry.what == what).count(), 1, "{history:?}");
    }
    assert!(wire.number(Cut::After) >= 8, "{}", wire.number(Cut::After));
    bench.end(vec![replica]).await;
}
