//! Inputs that the database, or a definition, cannot take stand alone, and the others proceed.

use eventicket_contracts::sagas::{ActAnswer, StartAnswer};
use futures::future::join_all;
use serde_json::json;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_a_start_that_cannot_be_stored_is_refused_and_the_others_begin() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.completed(&[bench.started(json!({})).await]).await;
    // Text in PostgreSQL has no NUL.
    let mut poison = bench.asking("visit", json!({}));
    poison.trace = Some("00-\0-01".into());
    let good = join_all((0..20).map(|_| bench.started(json!({}))));
    let (refused, sagas) = tokio::join!(bench.ask(poison), good);
    assert!(matches!(&refused, StartAnswer::Refused { code, .. } if code == "invalid_input"), "{refused:?}");
    bench.completed(&sagas).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_a_reply_that_cannot_be_stored_is_dead_lettered_and_the_others_proceed() {
    let bench = Bench::new().await;
    let constraint =
        "ALTER TABLE sagas ADD CHECK (coalesce(input::jsonb ->> 'kind', '') <> 'bad' OR state <> 'completed')";
    sqlx::query(constraint).execute(&bench.pool).await.unwrap();
    let replica = bench.replica(&[1]).await;
    let bad = bench.started(json!({"kind": "bad"})).await;
    let good = join_all((0..20).map(|_| bench.started(json!({})))).await;
    let _desk = bench.desk(); // so that their replies come together

    bench.completed(&good).await;
    bench.until(&[bad], |row| !row.saga.attention.is_empty()).await;
    let row = bench.row(bad).await;
    assert_eq!(row.saga.attention[0].step, "SEAL");
    let letters = bench.dead_letters().await;
    assert!(!letters.is_empty() && letters.iter().all(|reason| reason.contains("check constraint")), "{letters:?}");
    bench.ctx.shutdown.cancel();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_a_definition_that_panics_breaks_its_own_saga_only() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let _vault = bench.vault();
    let waiting = bench.started_as("deposit", json!({"panic": true, "wait": true})).await;
    let (refused, sagas) = tokio::join!(
        bench.ask(bench.asking("deposit", json!({"panic": true}))),
        join_all((0..20).map(|_| bench.started_as("deposit", json!({}))))
    );
    assert!(matches!(&refused, StartAnswer::Refused { .. }), "{refused:?}");
    let signalled = bench.signal(waiting).await;
    assert!(matches!(&signalled, ActAnswer::Conflict { .. }), "{signalled:?}");
    bench.completed(&sagas).await;
    assert_eq!(bench.row(waiting).await.saga.at, 0, "as it was");
    bench.end(vec![replica]).await;
}
