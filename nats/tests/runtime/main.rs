//! The messaging runtime against a real nats-server.

mod dead;
mod faults;
mod outbox;
mod planted;
mod queries;
mod streams;
mod worker;

use eventicket_nats::{Nats, StreamLimits, ensure_streams};

/// A connection to an account of the test's own, with all streams.
async fn nats() -> Nats {
    let world = eventicket_testkit::world().await;
    let nats = Nats::connect(&world.nats_url, "test").await.unwrap();
    ensure_streams(&nats, &StreamLimits::small()).await.unwrap();
    nats
}
