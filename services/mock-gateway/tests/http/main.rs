//! The gateway over HTTP.

mod calls;
mod tokens;
mod webhooks;
mod world;
