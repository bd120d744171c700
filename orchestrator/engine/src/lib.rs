//! The saga engine's pure core: what a saga does next is one total function of definition, state, input and time.
//!
//! Nothing here does IO, reads a clock or draws random numbers. A runtime feeds [`Input`]s to [`apply`], stores the
//! changed [`Saga`] with its history, and then carries out the [`Effect`]s. Times are milliseconds since 1970.
//!
//! * [`definition`]: steps, undos, conditions, retries, waits, deadlines, the point of no return.
//! * [`state`]: where a saga stands; serialised by the runtime.
//! * [`transition`]: the match over (state, input); [`unwind`](mod@unwind) holds the way back.
//! * [`breaker`]: when calls of a service are held.

pub mod breaker;
pub mod definition;
pub mod input;
pub mod registry;
pub mod state;
pub mod transition;
mod unwind;

pub use definition::{Command, Deadline, Definition, OnRejection, Retry, Step, View, Wait};
pub use input::{Answer, Effect, Entry, Illegal, Input, Moment, OperatorAction, Output, Send, What};
pub use registry::Registry;
pub use state::{Attention, Half, Phase, Saga, State, Status, StepState, Undo};
pub use transition::apply;
