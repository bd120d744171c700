//! What crosses a process boundary: commands, replies, events, subjects, ids, money and error codes.
//!
//! Nothing here does IO. Each name that two processes must agree on is written once, in this crate.

pub mod bookings;
pub mod codes;
pub mod envelope;
pub mod events;
pub mod identity;
pub mod ids;
pub mod metrics;
pub mod money;
pub mod notifications;
pub mod payments;
pub mod sagas;
pub mod subjects;
pub mod text;
pub mod time;

pub use eventicket_json::Json;
pub use ids::{BookingId, CustomerId, EventId, SagaId, TicketTypeId};
pub use money::{Currency, Money};
pub use time::{Clock, Timestamp};
