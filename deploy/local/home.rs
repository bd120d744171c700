//! Where the platform's folder is.

use std::path::PathBuf;

/// Names another folder than [`DEFAULT`].
pub const VARIABLE: &str = "EVENTICKET_HOME";
const DEFAULT: &str = ".eventicket";

/// The platform's folder, which need not exist.
pub fn folder() -> PathBuf {
    let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
    named.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from)
}
