//! Charges and refunds against a real database, broker and mock gateway.

mod crashes;
mod ends;
mod undo;
mod world;
