//! Which of PostgreSQL's errors are a batch's own fault.

use eventicket_nats::Fault;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, PgPool};

/// The error that a statement ends with.
async fn error(pool: &PgPool, statement: String) -> sqlx::Error {
    sqlx::query(AssertSqlSafe(statement)).execute(pool).await.unwrap_err()
}

#[tokio::test]
async fn rule_09_only_a_decode_error_and_the_classes_22_and_23_break_a_batch() {
    let world = eventicket_testkit::world().await;
    let url = world.database("faults", &Migrator::with_migrations(vec![])).await;
    let pool = PgPool::connect(&url).await.unwrap();
    for (code, breaks) in [
        ("22001", true),
        ("22P02", true),
        ("23502", true),
        ("23505", true),
        ("08006", false),
        ("25P03", false),
        ("40001", false),
        ("40P01", false),
        ("42P01", false),
        ("53300", false),
        ("55P03", false),
        ("57014", false),
        ("57P01", false),
        ("58030", false),
        ("P0001", false),
        ("XX000", false),
    ] {
        let raised = error(&pool, format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")).await;
        assert_eq!(raised.as_database_error().unwrap().code().as_deref(), Some(code));
        assert_eq!(matches!(Fault::from(raised), Fault::Broken(_)), breaks, "{code}");
    }
    let text = sqlx::query_scalar::<_, i64>("SELECT 'a text'").fetch_one(&pool).await.unwrap_err();
    assert!(matches!(Fault::from(text), Fault::Broken(_)), "a decode error");

    // A backend that is ended, and a server that is not there, are nobody's fault.
    let ended = error(&pool, "SELECT pg_terminate_backend(pg_backend_pid())".into()).await;
    assert!(matches!(Fault::from(ended), Fault::Transient(_)));
    pool.close().await;
    let closed = error(&pool, "SELECT 1".into()).await;
    assert!(matches!(Fault::from(closed), Fault::Transient(_)));
    let nobody = PgPool::connect("postgres://nobody@127.0.0.1:1/nothing").await.unwrap_err();
    assert!(matches!(Fault::from(nobody), Fault::Transient(_)));
}
