//! Charges and refunds against a real database, broker and mock gateway.

mod crashes;
mod ends;
mod fences;
mod gate;
mod locks;
mod messages;
mod neighbours;
mod orchestrator;
mod pending;
mod planted;
mod refunds;
mod tokens;
mod undo;
mod webhooks;
mod world;
