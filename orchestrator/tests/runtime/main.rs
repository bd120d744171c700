//! The runtime against a real PostgreSQL and NATS, with sagas and services of the tests' own.

mod acts;
mod admission;
mod bench;
mod breakers;
mod dead;
mod lists;
mod loss;
mod planted;
mod poison;
mod races;
mod replies;
mod starts;
mod versions;
