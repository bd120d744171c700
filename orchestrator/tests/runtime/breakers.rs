//! Breakers hold sagas without spending their attempts.

use std::sync::atomic::Ordering;

use eventicket_saga::{Phase, State};
use futures::future::join_all;
use serde_json::json;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_sagas_are_held_while_a_service_fails_and_finish_when_it_is_back() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.desk.broken.store(true, Ordering::SeqCst);
    // More than the breaker's threshold, so that it opens on their first attempts.
    let tripping = join_all((0..30).map(|_| bench.started(json!({})))).await;
    bench.until(&tripping, |row| row.saga.state() == State::Held || row.saga.phase != Phase::Forward).await;
    let later = join_all((0..10).map(|_| bench.started(json!({})))).await;
    bench.until(&later, |row| row.saga.state() == State::Held).await;
    for id in &later {
        assert_eq!(bench.row(*id).await.saga.steps[0].attempts, 0, "no attempt is spent");
    }
    bench.desk.broken.store(false, Ordering::SeqCst);
    bench.completed(&later).await;
    bench.until(&tripping, |row| row.saga.ended()).await;
    bench.end(vec![replica]).await;
}
