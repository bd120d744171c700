//! The platform as it is started by a user: the real binary, its own PostgreSQL and NATS, through REST.
//!
//! Each test has a platform of its own; they run one after another, since each needs the machine.

mod booking;
mod breakers;
mod dead_letters;
mod document;
mod expiry;
mod faults;
mod kill;
mod limits;
mod operators;
mod payments;
mod platform;
mod rest;
mod seats;
mod secrets;
mod sell_out;
mod streams;
mod tokens;
