//! The load generator: an open loop over kept-alive HTTP, with many customers.
//!
//! Each booking has an intended start, whatever became of those before it; its latency runs from there to the answer
//! `confirmed`. A generator that falls behind its own schedule says so.
//!
//! * [`schedule`]: when bookings begin. [`mix`] and [`story`]: what their customers do.
//! * [`wire`], [`connection`], [`engine`]: how that is sent, at the least cost.
//! * [`tally`]: what is counted meanwhile. [`watch`]: what the platform's processes and queues do meanwhile.
//! * [`order`] and [`site`]: what is asked for, and the API that is loaded with its events and customers.
//! * [`report`]: what is written about it. [`knee`]: which rate still holds. [`rush`]: whether
//!   overload passes without a trace. [`trial`]: a run as a whole. [`suite`]: the runs that `tests/load` is made of.

pub mod connection;
pub mod engine;
pub mod knee;
pub mod mix;
pub mod order;
pub mod report;
pub mod rush;
pub mod schedule;
pub mod site;
pub mod story;
pub mod suite;
pub mod tally;
pub mod trial;
pub mod watch;
pub mod wire;

/// The phase that is measured.
pub const LOAD: &str = "load";
