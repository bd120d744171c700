//! The endpoints of version 1, one a file.

pub mod auth;
pub mod bookings;
pub mod events;
pub mod me;
pub mod sagas;
