//! `eventicket audit`: checks the platform's promises across all databases and the payment gateway's ledger.
//!
//! The platform runs meanwhile. So the sagas are read first, and only those that had ended before the audit began are
//! judged: whatever belongs to them is final by then, and was written before it is read. The others are counted.
//!
//! * [`rule`]: the names of the promises.
//! * [`rules`]: the promises, as pure functions of what was read.
//! * [`read`]: reads it, in the order that the rules need, page by page.

mod read;
mod rows;
mod rule;
mod rules;

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use self::read::Findings;
use self::rule::Rule;
use self::rules::Severity;
use crate::output;
use crate::platform::Platform;

/// Violations that are printed; JSON has all of them.
const SHOWN: usize = 50;
/// Exit code where something cannot be read.
const UNREADABLE: u8 = 2;

/// Check that no ticket is sold twice and no money is taken without a ticket or a refund
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON, with all violations
    #[arg(long)]
    json: bool,
    /// Warnings count as violations
    #[arg(long)]
    strict: bool,
    /// Only list what is checked
    #[arg(long)]
    rules: bool,
}

/// Audits the running platform: exit code 0 where all is well, 1 on a violation, 2 where something cannot be read.
///
/// # Errors
/// None: what cannot be read is printed.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    if args.rules {
        output::line(&promises(args.json));
        return Ok(ExitCode::SUCCESS);
    }
    let findings = match audit(home).await {
        Ok(findings) => findings,
        Err(error) => {
            let text = format!("{error:#}");
            output::line(&if args.json { json!({ "error": text }).to_string() } else { format!("audit: {text}") });
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    output::line(&if args.json { json(&findings) } else { table(&findings) });
    let bad = findings.count(Severity::Violation) > 0 || (args.strict && findings.count(Severity::Warning) > 0);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What an audit came to.
pub struct Verdict {
    /// Findings that must not be.
    pub violations: usize,
    /// Findings that somebody should look at.
    pub warnings: usize,
}

/// Audits the running platform for another command.
///
/// # Errors
/// Something cannot be read.
pub async fn verdict(home: &Path) -> anyhow::Result<Verdict> {
    let findings = audit(home).await?;
    let (violations, warnings) = (findings.count(Severity::Violation), findings.count(Severity::Warning));
    Ok(Verdict { violations, warnings })
}

async fn audit(home: &Path) -> anyhow::Result<Findings> {
    let platform = Platform::read(home)?;
    let settings = platform.settings(home)?;
    read::all(&settings, &platform.ledger).await
}

fn promises(as_json: bool) -> String {
    if as_json {
        let rules = Rule::ALL.iter().map(|rule| json!({ "rule": rule.name(), "says": rule.says() }));
        return rules.collect::<Value>().to_string();
    }
    let lines: Vec<String> = Rule::ALL.iter().map(|rule| format!("{:<32}{}", rule.name(), rule.says())).collect();
    lines.join("\n")
}

fn json(findings: &Findings) -> String {
    json!({
        "clean": findings.count(Severity::Violation) == 0,
        "counts": findings.counts,
        "findings": findings.found,
    })
    .to_string()
}

fn table(findings: &Findings) -> String {
    let mut lines: Vec<String> = findings.counts.iter().map(|(name, count)| format!("{count:>12}  {name}")).collect();
    let (violations, warnings) = (findings.count(Severity::Violation), findings.count(Severity::Warning));
    lines.push(String::new());
    let mut by_weight: Vec<_> = findings.found.iter().collect();
    by_weight.sort_by_key(|finding| finding.severity);
    lines.extend(by_weight.iter().take(SHOWN).map(|f| format!("{:<9}  {}  {}", f.severity.name(), f.rule, f.detail)));
    if by_weight.len() > SHOWN {
        lines.push(format!("... and {} more: --json has all", by_weight.len() - SHOWN));
    }
    lines.push(match (violations, warnings) {
        (0, 0) => "clean".to_owned(),
        (0, _) => format!("clean, with {warnings} warning(s)"),
        _ => format!("{violations} VIOLATION(S), {warnings} warning(s)"),
    });
    lines.join("\n")
}
