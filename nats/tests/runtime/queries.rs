//! Queries and their failures.

use std::time::Duration;

use eventicket_nats::{QueryError, QueryFailure, QueryServer};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_refused_or_told_that_nobody_is_there() {
    let nats = super::nats().await;
    let mut server = QueryServer::start(&nats, "sums", "Adds").await.unwrap();
    let add = |(a, b): (u32, u32)| async move {
        match a.checked_add(b) {
            Some(0) => panic!("nothing to add"),
            Some(sum) => Ok(sum),
            None => Err(QueryError::new("overflow", "too large")),
        }
    };
    server.endpoint("add", add).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));

    // The question takes another connection than the announcement, and may overtake it.
    let mut first = nats.query::<u32>("sums", "add", &(2, 3)).await;
    while first == Err(QueryFailure::NobodyAnswers) {
        first = nats.query::<u32>("sums", "add", &(2, 3)).await;
    }
    assert_eq!(first, Ok(5));
    let refused = nats.query::<u32>("sums", "add", &(u32::MAX, 1)).await;
    assert_eq!(refused, Err(QueryFailure::Refused(QueryError::new("overflow", "too large"))));
    let malformed = nats.query::<u32>("sums", "add", &"two").await;
    assert!(matches!(malformed, Err(QueryFailure::Refused(e)) if e.code == "malformed"));
    let panicked = nats.query::<u32>("sums", "add", &(0, 0)).await;
    assert!(matches!(panicked, Err(QueryFailure::Refused(e)) if e.code == "internal"), "a panic ends one answer");
    assert_eq!(nats.query::<u32>("sums", "add", &(1, 1)).await, Ok(2));
    assert_eq!(nats.query::<u32>("sums", "subtract", &(1, 1)).await, Err(QueryFailure::NobodyAnswers));
    let late = nats.request::<u32>("qry.sums.never", &1, Duration::from_millis(1)).await;
    assert!(matches!(late, Err(QueryFailure::NobodyAnswers | QueryFailure::TimedOut)));

    shutdown.cancel();
    running.await.unwrap();
}
