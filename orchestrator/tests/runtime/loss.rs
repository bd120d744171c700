//! Replicas that die, and streams that are lost under the runtime.

use std::collections::BTreeSet;
use std::time::Duration;

use eventicket_contracts::envelope::Half;
use eventicket_contracts::{SagaId, subjects};
use futures::StreamExt as _;
use futures::future::join_all;
use serde_json::json;

use crate::bench::{Bench, DESK, GUARD};

async fn started(bench: &Bench, number: usize) -> Vec<SagaId> {
    join_all((0..number).map(|_| bench.started(json!({})))).await
}

/// Each effect took place once for each saga, and nothing was undone.
fn each_once(bench: &Bench, sagas: usize) {
    let effects = bench.desk.effects.lock().unwrap();
    assert!(effects.values().all(|n| *n == 1));
    assert_eq!(effects.keys().filter(|(_, half)| *half == Half::Undo).count(), 0);
    assert_eq!(effects.len(), 2 * sagas, "OPEN and SEAL of each");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_sagas_of_a_killed_replica_are_taken_over() {
    let bench = Bench::new().await;
    let doomed = bench.replica(&[1]).await;
    let sagas = started(&bench, 50).await; // their commands wait: the service is not there yet
    doomed.kill().await;
    let heir = bench.replica(&[1]).await;
    let _desk = bench.desk();
    bench.completed(&sagas).await;
    each_once(&bench, 50);
    bench.end(vec![heir]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_streams_deleted_and_purged_in_the_middle_lose_nothing() {
    let bench = Bench::new().await;
    let (_desk, replicas) = (bench.desk(), vec![bench.replica(&[1]).await, bench.replica(&[1]).await]);
    bench.completed(&started(&bench, 1).await).await;
    let jetstream = bench.ctx.nats.jetstream().clone();
    let (commands, replies) = (DESK.stream(), subjects::REPLIES_STREAM.to_owned());
    let breaking = async {
        for round in 0..3 {
            for stream in [&commands, &replies] {
                tokio::time::sleep(Duration::from_millis(100)).await; // somewhere in the middle of the sagas
                match round {
                    0 => drop(jetstream.delete_stream(stream).await),
                    1 => {
                        if let Ok(stream) = jetstream.get_stream(stream).await {
                            let _ = stream.purge().await;
                        }
                    }
                    _ => {
                        let _ = jetstream.delete_consumer_from_stream(DESK.name(), &commands).await;
                        let _ = jetstream.delete_consumer_from_stream("orchestrator", &replies).await;
                    }
                }
            }
        }
    };
    let booking = async {
        let mut all = Vec::new();
        for _ in 0..20 {
            all.extend(started(&bench, 20).await);
        }
        all
    };
    let ((), sagas) = tokio::join!(breaking, booking);
    bench.completed(&sagas).await;
    each_once(&bench, sagas.len() + 1);
    bench.end(replicas).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_rows_name_their_replica_whose_name_is_new_at_each_start() {
    let bench = Bench::new().await;
    let _desk = bench.desk();
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        let replica = bench.replica(&[1]).await;
        let saga = bench.started(json!({"wait": true})).await;
        let dispatcher = "SELECT r.name FROM sagas s JOIN replicas r ON r.name = s.dispatcher WHERE s.id = $1";
        let name: uuid::Uuid = sqlx::query_scalar(dispatcher).bind(saga.0).fetch_one(&bench.pool).await.unwrap();
        names.insert(name);
        replica.stop().await;
    }
    assert_eq!(names.len(), 3);
    bench.end(vec![]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_stream_that_has_lost_what_it_acknowledged_shows() {
    let bench = Bench::new().await;
    let (desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.completed(&started(&bench, 1).await).await;
    desk.abort();
    let _ = desk.await;
    let jetstream = bench.ctx.nats.jetstream().clone();
    let stream = jetstream.get_stream(DESK.stream()).await.unwrap().cached_info().clone();
    let looks = bench.ctx.nats.subscriber().subscribe(format!("$JS.API.STREAM.INFO.{}", DESK.stream()));
    let mut looks = looks.await.unwrap();
    bench.ctx.nats.flush().await;
    tokio::time::timeout(GUARD, looks.next()).await.expect("the replica looks");
    let saga = bench.started(json!({})).await;
    let messages = async || jetstream.get_stream(DESK.stream()).await.unwrap().cached_info().state.messages;
    let stored = async { while messages().await == 0 {} };
    tokio::time::timeout(GUARD, stored).await.expect("the command is stored");

    // Its store of a moment ago comes back, without the command.
    jetstream.delete_stream(DESK.stream()).await.unwrap();
    let again = jetstream.create_stream(stream.config.clone()).await.unwrap();
    for _ in stream.config.first_sequence.unwrap()..=stream.state.last_sequence {
        jetstream.publish(format!("cmd.{}.open.0", DESK.name()), "".into()).await.unwrap().await.unwrap();
    }
    again.purge().await.unwrap();
    let _desk = bench.desk();
    bench.completed(&[saga]).await;
    assert_eq!(bench.row(saga).await.saga.steps[0].attempts, 1, "it was sent again before its time-out");
    bench.end(vec![replica]).await;
}
