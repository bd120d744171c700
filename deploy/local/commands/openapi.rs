//! `eventicket openapi`: writes or compares the checked-in description of the REST API.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::output;

/// Write openapi/openapi.json, the description of the REST API
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail where the file is not what the code says
    #[arg(long)]
    check: bool,
    /// The file
    #[arg(long, default_value = "openapi/openapi.json")]
    file: PathBuf,
}

/// Writes the file, or compares it.
///
/// # Errors
/// The file cannot be written.
pub async fn run(args: Args, _: &Path) -> anyhow::Result<ExitCode> {
    let text = serde_json::to_string_pretty(&eventicket_gateway::openapi())? + "\n";
    let file = args.file.display();
    if std::fs::read_to_string(&args.file).is_ok_and(|there| there == text) {
        output::line(&format!("{file} is up to date"));
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        output::line(&format!("{file} is not what the code says: run `eventicket openapi`"));
        return Ok(ExitCode::FAILURE);
    }
    std::fs::write(&args.file, text).with_context(|| format!("cannot write {file}"))?;
    output::line(&format!("{file} is written"));
    Ok(ExitCode::SUCCESS)
}
