//! What people read on the terminal: the one place that prints.

use std::io::Write as _;

/// Writes text and a line's end to standard output; a reader that has gone is no error.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes an error with its causes to standard error.
pub fn error(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
}
