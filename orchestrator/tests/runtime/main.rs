//! The runtime against a real PostgreSQL and NATS, with sagas and services of the tests' own.

mod acts;
mod admission;
mod bench;
mod breakers;
mod commits;
mod database;
mod dead;
mod lists;
mod loss;
mod messages;
mod planted;
mod poison;
mod probes;
mod races;
mod rate;
mod replies;
mod starts;
mod versions;
mod wire;
