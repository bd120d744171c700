//! The runtime against a real PostgreSQL and NATS, with a saga and a service of the tests' own.

mod bench;
mod breakers;
mod loss;
mod replies;
mod starts;
mod versions;
