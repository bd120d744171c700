//! The platform as it is started by a user: the real binary, its own PostgreSQL and NATS, through REST.
//!
//! Each test has a platform of its own. As many run side by side as there are processors; a test that is about a rush, or
//! about time, has the machine for itself.

mod audit;
mod booking;
mod breakers;
mod dead_letters;
mod document;
mod expiry;
mod faults;
mod kill;
mod limits;
mod load;
mod logs;
mod metrics;
mod operators;
mod payments;
mod platform;
mod poison;
mod rest;
mod seats;
mod secrets;
mod sell_out;
mod streams;
mod tokens;
mod traces;
