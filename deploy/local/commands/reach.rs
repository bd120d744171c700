//! How the operators' commands reach the running platform, and what they end with.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use eventicket_nats::Nats;
use nix::unistd::{User, geteuid};

use crate::output;
use crate::platform::Platform;

/// The service that answers.
pub const ORCHESTRATOR: &str = "orchestrator";
/// How long an action is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Exit code where the platform cannot be reached.
const UNREACHABLE: u8 = 2;

/// Connects to the broker of the platform that runs in the folder.
///
/// # Errors
/// None runs, or its broker does not answer.
pub async fn connect(home: &Path, process: &str) -> anyhow::Result<Nats> {
    let settings = Platform::read(home)?.settings(home)?;
    Ok(Nats::connect(&settings.nats_url, process).await?)
}

/// Who acts, as the history of sagas names them.
pub fn actor() -> String {
    let user = geteuid();
    let name = User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |found| found.name);
    format!("cli:{name}")
}

/// A command's end: an error means that nothing could be asked or answered.
///
/// # Errors
/// None: the error is printed.
pub fn ended(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    Ok(result.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(UNREACHABLE)
    }))
}
