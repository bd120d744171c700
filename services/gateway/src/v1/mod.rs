//! The endpoints of version 1, one a file.

pub mod auth;
pub mod bookings;
pub mod breakers;
pub mod dead_letters;
pub mod events;
pub mod me;
pub mod sagas;
