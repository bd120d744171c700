//! What operators do to sagas, one by one and in bulk.

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{ActAnswer, Action, BULK, BulkAct, BulkAnswer, ListSagas};
use eventicket_saga::Phase;
use serde_json::json;

use crate::bench::Bench;

async fn bulk(bench: &Bench, filter: ListSagas, action: Action, dry_run: bool) -> BulkAnswer {
    let act = BulkAct { filter, action, actor: "test".into(), reason: "a test".into(), dry_run };
    bench.query(BULK, &act).await
}

fn outcomes(answer: &BulkAnswer) -> Vec<(SagaId, &str)> {
    answer.items.iter().map(|item| (item.id, item.outcome.as_str())).collect()
}

/// Visits that wait, newest first.
async fn waiting(bench: &Bench, number: usize) -> Vec<SagaId> {
    let mut sagas = Vec::new();
    for _ in 0..number {
        sagas.insert(0, bench.started(json!({"wait": true})).await);
    }
    bench.until(&sagas, |row| row.saga.at == 1).await;
    sagas
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_stands_in_the_history_with_its_actor_and_reason() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let saga = waiting(&bench, 1).await[0];

    assert!(matches!(bench.act(saga, Action::Pause).await, ActAnswer::Done { .. }));
    let again = bench.act(saga, Action::Pause).await;
    assert!(matches!(&again, ActAnswer::Conflict { code, .. } if code == "conflict"), "{again:?}");
    assert_eq!(bench.act(SagaId::fresh(), Action::Pause).await, ActAnswer::NotFound);
    assert!(matches!(bench.act(saga, Action::Resume).await, ActAnswer::Done { .. }));

    let history = bench.history(saga).await;
    let by_hand: Vec<_> = history.iter().filter(|e| e.actor.is_some()).collect();
    assert_eq!(by_hand.iter().map(|e| e.what.as_str()).collect::<Vec<_>>(), ["paused", "resumed"]);
    let (actor, reason) = (Some("test"), Some("a test"));
    assert!(by_hand.iter().all(|e| (e.actor.as_deref(), e.reason.as_deref()) == (actor, reason)), "{by_hand:?}");
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_would_become_of_each_and_changes_nothing() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let done = bench.started(json!({})).await;
    bench.completed(&[done]).await;
    let sagas = waiting(&bench, 2).await;
    let before = bench.row(sagas[0]).await.version;

    let filter = ListSagas { kind: Some("visit".into()), limit: 500, ..ListSagas::default() };
    let told = bulk(&bench, filter, Action::Cancel, true).await;

    assert_eq!(outcomes(&told), [(sagas[0], "done"), (sagas[1], "done"), (done, "ended")]);
    assert_eq!((told.items[0].state.as_str(), told.items[0].kind.as_str(), told.next), ("waiting", "visit", None));
    let after = bench.row(sagas[0]).await;
    assert_eq!((after.version, after.saga.phase), (before, Phase::Forward), "nothing is stored");
    assert_eq!(bench.history(sagas[0]).await.iter().filter(|e| e.actor.is_some()).count(), 0);
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_acts_page_by_page_on_what_the_filter_finds() {
    let bench = Bench::new().await;
    let (_desk, replicas) = (bench.desk(), vec![bench.replica(&[1]).await, bench.replica(&[1]).await]);
    let done = bench.started(json!({})).await;
    bench.completed(&[done]).await;
    let sagas = waiting(&bench, 5).await;

    let mut filter = ListSagas { state: Some("waiting".into()), limit: 2, ..ListSagas::default() };
    let mut acted = Vec::new();
    loop {
        let page = bulk(&bench, filter.clone(), Action::Cancel, false).await;
        acted.extend(page.items.into_iter().map(|item| (item.id, item.outcome)));
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }

    assert_eq!(acted, sagas.iter().map(|id| (*id, "done".to_owned())).collect::<Vec<_>>());
    bench.until(&sagas, |row| row.saga.phase == Phase::Compensated).await;
    for id in &sagas {
        let history = bench.history(*id).await;
        let by_hand: Vec<_> = history.iter().filter(|e| e.actor.is_some()).collect();
        assert_eq!((by_hand.len(), by_hand[0].what.as_str()), (1, "cancelled"));
        assert_eq!((by_hand[0].actor.as_deref(), by_hand[0].reason.as_deref()), (Some("test"), Some("a test")));
    }
    bench.end(replicas).await;
}
