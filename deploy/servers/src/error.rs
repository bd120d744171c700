//! What can go wrong with the private servers.

use std::io;
use std::path::{Path, PathBuf};

/// Why the private servers cannot run; each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder is locked by another process.
    #[error("another eventicket is running in {}: stop it, or set EVENTICKET_HOME to another folder", .0.display())]
    InUse(PathBuf),
    /// Servers were neither found nor fetched.
    #[error("{0}")]
    Missing(String),
    /// A wheel could not be fetched or is not the pinned one.
    #[error("{0}")]
    Fetch(String),
    /// There is no unprivileged user for PostgreSQL, which refuses to run as root.
    #[error("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoUser,
    /// A server ended while it started, or did not answer in time.
    #[error("{server} did not start: {reason}; its log is {}", log.display())]
    NotStarted {
        /// Its name.
        server: &'static str,
        /// How it ended and the end of its log.
        reason: String,
        /// Where its log is.
        log: PathBuf,
    },
    /// A file or process could not be handled.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}
