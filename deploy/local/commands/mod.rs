//! The commands, one a file; `reach` is what those of operators share.

pub mod audit;
pub mod breaker;
pub mod customers;
pub mod dead;
pub mod doctor;
pub mod load;
pub mod mail;
pub mod migrate;
pub mod openapi;
pub mod reach;
pub mod saga;
pub mod serve;
pub mod simulate;
pub mod up;
