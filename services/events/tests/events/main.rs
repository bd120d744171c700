//! The service over NATS, with PostgreSQL. The orchestrator's part is the wire's contract: it answers starts, sends
//! commands, and gets replies.

mod changes;
mod drafts;
mod fences;
mod lists;
mod locks;
mod platform;
