//! The commands, one a file.

pub mod audit;
pub mod customers;
pub mod doctor;
pub mod load;
pub mod mail;
pub mod migrate;
pub mod openapi;
pub mod saga;
pub mod serve;
pub mod up;
