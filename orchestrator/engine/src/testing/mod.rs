//! Tests of definitions without servers: services in memory that keep to the rules of the protocol, and a saga that is
//! driven through them by [`apply`](crate::apply), one message at a time and in any order.
//!
//! A test [plays](Play) a saga: it decides how each service [behaves](Behaviour), which message comes next, what is lost
//! or comes twice, when the orchestrator crashes, and then asks what [stands](World::standing). Everything is
//! deterministic; [`Choices`] enumerates orders or draws them from a seed.

mod choices;
mod play;
mod world;

pub use choices::Choices;
pub use play::{Message, Play};
pub use world::{Behaviour, Outputs, World};
