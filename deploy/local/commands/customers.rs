//! `eventicket customers`: accounts with access tokens for load tests and their like.

use std::path::Path;
use std::process::ExitCode;

use crate::output;
use crate::platform::Platform;

/// Make customers for load tests and print an access token a line
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many
    #[arg(default_value_t = 10)]
    number: u32,
}

/// Makes the customers that are missing and prints tokens of an hour.
///
/// # Errors
/// No platform runs, or its database cannot be reached.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let settings = Platform::read(home)?.settings(home)?;
    let tokens = eventicket_identity::load_customers(&settings, args.number).await?;
    output::line(&tokens.join("\n"));
    Ok(ExitCode::SUCCESS)
}
