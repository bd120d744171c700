//! What operators find.

use eventicket_contracts::sagas::{LIST_SAGAS, ListSagas, Page, SagaSummary, StartAnswer};
use eventicket_contracts::{CustomerId, SagaId};
use eventicket_orchestrator::runtime::journal::{self, Slice};
use serde_json::json;

use crate::bench::Bench;

async fn found(bench: &Bench, filter: ListSagas) -> Vec<SagaId> {
    let page: Page<SagaSummary> = bench.query(LIST_SAGAS, &ListSagas { limit: 100, ..filter }).await;
    page.items.iter().map(|saga| saga.id).collect()
}

fn text(q: &str) -> ListSagas {
    ListSagas { q: Some(q.to_owned()), ..ListSagas::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_a_key_or_the_beginning_of_an_id() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let (first, second) = (bench.started(json!({})).await, bench.started(json!({})).await);
    let owner = CustomerId::fresh();
    let keyed = bench.start(json!({}), Some((owner, "spring-sale/7", "print"))).await;
    let StartAnswer::Started { id: keyed, .. } = keyed else { panic!("{keyed:?}") };
    bench.completed(&[first, second, keyed]).await;

    assert_eq!(found(&bench, text(&first.to_string())).await, [first]);
    assert_eq!(found(&bench, text(&second.0.simple().to_string()[..31])).await, [second]);
    assert_eq!(found(&bench, text("0")).await, [keyed, second, first], "newest first");
    assert_eq!(found(&bench, text("spring-sale/7")).await, [keyed]);
    assert_eq!(found(&bench, text("spring")).await, [], "a key is found whole");
    let theirs = ListSagas { user: Some(owner), ..ListSagas::default() };
    assert_eq!(found(&bench, theirs).await, [keyed]);
    let other = ListSagas { kind: Some("deposit".into()), ..text("spring-sale/7") };
    assert_eq!(found(&bench, other).await, [], "beside the other filters");
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_attention_is_found_with_its_reason() {
    let bench = Bench::new().await;
    bench.desk.panics.lock().unwrap().insert("seal");
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let (marked, well) = (bench.started(json!({})).await, bench.started(json!({"wait": true})).await);
    bench.until(&[marked], |row| !row.saga.attention.is_empty()).await;
    bench.until(&[well], |row| row.saga.at == 1).await;

    let state = |name: &str| ListSagas { state: Some(name.into()), limit: 100, ..ListSagas::default() };
    let page: Page<SagaSummary> = bench.query(LIST_SAGAS, &state("attention")).await;
    assert_eq!(page.items.iter().map(|s| s.id).collect::<Vec<_>>(), [marked]);
    let mark = &page.items[0].attention[0];
    assert_eq!((mark.step.as_str(), mark.reason.contains("the desk is on fire")), ("SEAL", true), "{mark:?}");
    assert_eq!(found(&bench, state("waiting")).await, [well]);
    bench.desk.panics.lock().unwrap().clear();
    let done = bench.started(json!({})).await;
    bench.completed(&[done]).await;
    assert_eq!(found(&bench, state("unfinished")).await, [well, marked]);
    bench.ctx.shutdown.cancel();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_hold_each_unfinished_saga_once() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(bench.started(json!({"wait": true})).await);
    }
    bench.until(&waiting, |row| row.saga.at == 1).await;
    let done = bench.started(json!({})).await;
    bench.completed(&[done]).await;

    let pool = &bench.pool;
    for (size, expected) in [(1, vec![1, 1, 1, 1, 1, 0]), (2, vec![2, 2, 1]), (5, vec![5, 0]), (6, vec![5])] {
        let (mut counts, mut unled, mut slice) = (Vec::new(), Vec::new(), None);
        while let Some(next) = Slice::next(pool, slice, size).await.unwrap() {
            let standings = journal::standings(pool, next).await.unwrap();
            assert!(standings.iter().all(|([definition, state, _], _)| definition == "visit" && state == "waiting"));
            counts.push(standings.iter().map(|(_, number)| number).sum::<i64>());
            unled.extend(journal::orphans(pool, &[], next, 100).await.unwrap());
            slice = Some(next);
        }
        assert_eq!((counts, &unled), (expected, &waiting), "{size} in a slice");
    }
    bench.ctx.shutdown.cancel();
    replica.stop().await;
}
