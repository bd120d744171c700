//! Streams, consumers and micro services that cannot be set up.

use std::error::Error;

/// The server refuses what the program sets up, or does not answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SetupError {
    what: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl SetupError {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }

    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }
}
