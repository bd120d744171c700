//! Starts are idempotent by id, and by owner and key.

use eventicket_contracts::CustomerId;
use eventicket_contracts::sagas::StartAnswer;
use serde_json::json;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_finds_its_first_saga_and_another_body_is_refused() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let owner = CustomerId::fresh();
    let first = bench.start(json!({}), Some((owner, "key", "print"))).await;
    let StartAnswer::Started { id, created: true, .. } = first else { panic!("{first:?}") };
    bench.completed(&[id]).await;

    let again = bench.start(json!({}), Some((owner, "key", "print"))).await;
    assert!(matches!(again, StartAnswer::Started { id: same, created: false, .. } if same == id), "{again:?}");
    let other = bench.start(json!({}), Some((owner, "key", "another"))).await;
    assert_eq!(other, StartAnswer::KeyReused);
    let somebody = bench.start(json!({}), Some((CustomerId::fresh(), "key", "another"))).await;
    assert!(matches!(somebody, StartAnswer::Started { created: true, .. }), "keys are their owner's: {somebody:?}");
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_at_once_on_two_replicas_starts_one_saga() {
    let bench = Bench::new().await;
    let (_desk, replicas) = (bench.desk(), vec![bench.replica(&[1]).await, bench.replica(&[1]).await]);
    bench.completed(&[bench.started(json!({})).await]).await;
    let owner = CustomerId::fresh();
    let starts = (0..64).map(|_| bench.start(json!({}), Some((owner, "key", "print"))));
    let answers = futures::future::join_all(starts).await;
    let created = |a: &&StartAnswer| matches!(a, StartAnswer::Started { created: true, .. });
    assert_eq!(answers.iter().filter(created).count(), 1);
    let ids: std::collections::BTreeSet<_> = answers
        .iter()
        .map(|a| match a {
            StartAnswer::Started { id, .. } => *id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 1);
    bench.completed(&ids.into_iter().collect::<Vec<_>>()).await;
    bench.end(replicas).await;
}
