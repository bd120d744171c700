//! Simulation of the platform: its own decisions, in a world of one's own making.
//!
//! The engine, the orchestrator's runtime (what an input does to its saga, admission, breakers), and the decisions of
//! bookings, payments and notifications are the platform's code; so are the mock gateway's book and its answers. Around
//! them a store with concurrent transactions, a network, processes, clocks and people are simulated ([`chaos`] names what
//! goes wrong), one step at a time. Every choice comes from a seed, so that a run repeats, and a run that breaks an
//! invariant is made as short as possible and told as a story.
//!
//! * [`run`]: one run. [`search`]: runs from seed to seed. [`shrink`]: the short story.
//! * [`explore`]: small worlds in all ways. [`faults`]: the faults that are planted to see that they are found.

pub mod chaos;
pub mod choices;
pub mod explore;
pub mod faults;
pub mod flaws;
pub mod run;
pub mod shrink;
pub mod timeline;

mod bookings;
mod breakers;
mod customers;
mod driver;
mod end;
mod executor;
mod gateway;
mod invariants;
mod mind;
mod network;
mod notifications;
mod operator;
mod orchestrator;
mod panics;
mod payments;
mod processes;
mod replicas;
mod rounds;
mod scenario;
mod shop;
mod store;
mod story;
mod webhooks;
mod worker;
mod world;

pub use invariants::Violation;
pub use run::{Outcome, Plan, Simulator, Sum, search, sweep};
pub use shrink::{Story, shrink};
