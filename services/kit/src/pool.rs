//! How a database's pool is used, told as metrics.

use std::time::{Duration, Instant};

use eventicket_contracts::metrics as names;
use metrics::{gauge, histogram};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Two pools in its place, each with half of its connections, so that who uses one never waits for who uses the other.
pub fn halves(pool: &PgPool) -> [PgPool; 2] {
    let most = pool.options().get_max_connections();
    let half = |most: u32| pool.options().clone().max_connections(most.max(1));
    [most.div_ceil(2), most / 2].map(|most| half(most).connect_lazy_with((*pool.connect_options()).clone()))
}

/// Tells of the pool until shutdown. What a caller waits for a connection is measured by asking for one.
pub fn watch(pool: &PgPool, database: &'static str, shutdown: &CancellationToken) {
    let (pool, shutdown) = (pool.clone(), shutdown.clone());
    let connections = |state: &'static str| gauge!(names::CONNECTIONS, "database" => database, "state" => state);
    let (idle, used) = (connections("idle"), connections("used"));
    let acquire = histogram!(names::ACQUIRE_SECONDS, "database" => database);
    gauge!(names::CONNECTIONS_MOST, "database" => database).set(f64::from(pool.options().get_max_connections()));
    tokio::spawn(async move {
        loop {
            let free = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            idle.set(f64::from(free));
            used.set(f64::from(pool.size().saturating_sub(free)));
            let started = Instant::now();
            match shutdown.run_until_cancelled(pool.acquire()).await {
                None => return,
                Some(Ok(_)) => acquire.record(started.elapsed().as_secs_f64()),
                Some(Err(error)) => tracing::debug!(database, %error, "a probe got no connection"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    });
}
