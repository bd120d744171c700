//! 6.1: a batch holds the locks of its sagas before it reads what is recorded of them.

use eventicket_contracts::envelope::Answer;
use eventicket_contracts::events::Settle;
use eventicket_contracts::{CustomerId, SagaId, codes};
use eventicket_kit::batch::lock_sagas;
use sqlx::PgPool;

use crate::platform::{PATIENCE, Platform, concert, key};

/// Waits until somebody waits for the lock of a saga.
async fn waiting(pool: &PgPool) {
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                   WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
    let reached = async { while sqlx::query_scalar::<_, i64>(waiting).fetch_one(pool).await.unwrap() == 0 {} };
    tokio::time::timeout(PATIENCE, reached).await.expect("somebody waits for the lock");
}

#[tokio::test]
async fn rule_01_a_settlement_is_read_under_the_lock_of_its_saga() {
    let platform = Platform::start().await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    let round = key(SagaId::fresh(), "SETTLE");
    let mut fence = platform.pool.begin().await.unwrap();
    lock_sagas(&mut fence, &[round.saga]).await.unwrap();
    let closed = Answer::rejected(codes::CLOSED, "by a fence");
    let closing = async {
        waiting(&platform.pool).await;
        let record = "INSERT INTO settlements (saga, step, round, answer, settled_at) VALUES ($1, 'SETTLE', 1, $2, 1)";
        let answer = serde_json::to_string(&closed).unwrap();
        sqlx::query(record).bind(round.saga.0).bind(answer).execute(&mut *fence).await.unwrap();
        fence.commit().await.unwrap();
    };
    let settle = Settle { event: event.id, version: 1, refused: None };
    let settles = [(round.clone(), settle)];
    let (answers, ()) = tokio::join!(platform.settle(&settles), closing);
    assert_eq!(answers, [closed]);
    platform.stop().await;
}
