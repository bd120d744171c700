//! Worlds are apart from each other.

use std::borrow::Cow;
use std::str::FromStr as _;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, SqlSafeStr as _};

fn migrator() -> Migrator {
    let sql = "CREATE TABLE things (id int PRIMARY KEY)".into_sql_str();
    let migration = Migration::new(1, Cow::Borrowed("things"), MigrationType::Simple, sql, false);
    Migrator::with_migrations(vec![migration])
}

async fn connect(url: &str) -> PgConnection {
    PgConnectOptions::from_str(url).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn two_worlds_share_neither_database_nor_account() {
    let (one, other) = (eventicket_testkit::world().await, eventicket_testkit::world().await);
    assert_ne!(one.nats_url, other.nats_url);
    let migrator = migrator();
    let (first, second) = tokio::join!(one.database("shop", &migrator), other.database("shop", &migrator));
    sqlx::query("INSERT INTO things VALUES (1)").execute(&mut connect(&first).await).await.unwrap();
    let count = "SELECT count(*) FROM things";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connect(&first).await).await.unwrap(), 1);
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connect(&second).await).await.unwrap(), 0);
}

#[tokio::test]
async fn each_test_runtime_uses_the_same_servers() {
    let world = eventicket_testkit::world().await;
    let url = world.database("other", &migrator()).await;
    assert!(url.starts_with(&world.database_url), "{url} is at {}", world.database_url);
    assert!(url.ends_with(&format!("/{}other", world.prefix)), "{url}");
}
