//! Starts are idempotent by id, and by owner and key.

use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{StartAnswer, StartSaga};
use eventicket_contracts::{CustomerId, SagaId};
use eventicket_orchestrator::runtime::admission::Bound;
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
async fn a_repeat_is_answered_as_the_first_whatever_stands_against_it_now() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let mut first = bench.asking("visit", json!({}));
    (first.owner, first.idempotency) =
        (Some(CustomerId::fresh()), Some(Idempotency { key: "key".into(), fingerprint: "print".into() }));
    let StartAnswer::Started { id, .. } = bench.ask(first.clone()).await else { panic!("it was not started") };
    bench.completed(&[id]).await;
    replica.stop().await;

    // No room for anything, and a name that no saga has.
    let full = bench.bounded_replica(&[1], Bound(0)).await;
    assert!(matches!(bench.ask(bench.asking("visit", json!({}))).await, StartAnswer::Busy { .. }));
    let unknown = bench.ask(bench.asking("gone", json!({}))).await;
    assert!(matches!(&unknown, StartAnswer::Refused { code, .. } if code == "unknown_definition"), "{unknown:?}");
    let by_key = StartSaga { id: SagaId::fresh(), ..first.clone() };
    let by_id = StartSaga { owner: None, idempotency: None, ..first.clone() };
    let gone = StartSaga { definition: "gone".into(), ..first.clone() };
    for repeat in [first.clone(), by_key, by_id, gone] {
        let again = bench.ask(repeat).await;
        assert!(matches!(again, StartAnswer::Started { id: same, created: false, .. } if same == id), "{again:?}");
    }
    let fingerprint = "another".to_owned();
    let other = StartSaga { idempotency: Some(Idempotency { key: "key".into(), fingerprint }), ..first };
    assert_eq!(bench.ask(other).await, StartAnswer::KeyReused);
    bench.end(vec![full]).await;
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
