//! The messaging runtime: connections, streams, envelopes of commands and replies, batch workers, the outbox, queries.
//!
//! * [`connection`]: the two connections of a process.
//! * [`topology`]: the streams and consumers, made and kept up to date by the program.
//! * [`publish`]: JetStream publishes, pipelined, with a definite "not stored" told from "no answer".
//! * [`pull`]: messages of a durable consumer, through the loss of stream and consumer.
//! * [`worker`]: a service's commands in batches, poison isolated by splitting.
//! * [`pace`]: the rhythm of loops that take whatever is ready.
//! * [`outbox`]: events of a transaction, relayed once they are committed.
//! * [`starts`]: starts of sagas, many in a message.
//! * [`query`]: questions and answers as NATS micro services (ADR-32).
//! * [`trace`]: W3C trace context, and spans where they are exported.
//!
//! Nothing here knows a command's body, a table of a service or a saga.

pub mod command;
pub mod connection;
pub mod dead;
pub mod error;
pub mod outbox;
pub mod pace;
pub mod publish;
pub mod pull;
pub mod query;
pub mod starts;
pub mod topology;
pub mod trace;
pub mod worker;

mod figures;
mod lag;

pub use command::{Commands, Delivered, Fault, Handled, decode};
pub use connection::{ConnectError, Nats};
pub use dead::{DeadLetterError, Letter, LettersError, dead_item, dead_letter};
pub use error::SetupError;
pub use publish::{Outgoing, PublishError, command_headers};
pub use pull::{ConsumerSpec, Message, Pull};
pub use query::{QueryError, QueryFailure, QueryServer};
pub use starts::Starts;
pub use topology::{StreamLimits, StreamMark, ensure_streams, keep_streams};
pub use worker::{WorkerLimits, run_worker};
