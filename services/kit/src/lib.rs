//! What every service shares: settings, telemetry, the database pool, problem responses, sealing, shutdown.
//!
//! Nothing here knows a table, a command or a route of any service.

pub mod batch;
pub mod client;
mod context;
mod database;
pub mod http;
pub mod pool;
pub mod problem;
pub mod prometheus;
pub mod seal;
pub mod server;
pub mod settings;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use context::Context;
pub use database::{database, database_url};
pub use eventicket_nats::trace;
pub use problem::{FieldError, Problem};
pub use settings::{Rates, Settings};
