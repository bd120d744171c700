//! `eventicket breaker`: whether the commands of a service are held, and setting it by hand.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use eventicket_contracts::sagas::{BREAKERS, BreakerMode, BreakerView, SET_BREAKER, SetBreaker};
use eventicket_nats::Nats;

use super::reach::{ORCHESTRATOR, actor, connect, ended};
use super::saga::clip;
use crate::output;

/// Columns of a line.
const WIDTH: usize = 120;

/// Look at the breakers of services and set them
///
/// Exit code: 0 it is done, 1 there is no such service, 2 the platform cannot be reached.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List breakers
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold everything before the service until it is set otherwise
    Open(Set),
    /// Let everything through until it is set otherwise
    Close(Set),
    /// Count again, from closed
    Auto(Set),
}

#[derive(Debug, clap::Args)]
struct Set {
    /// The service, as `payments`
    service: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running platform and prints the answer.
///
/// # Errors
/// None: what cannot be reached is printed.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    ended(carry_out(args.command, home).await)
}

async fn carry_out(command: Command, home: &Path) -> anyhow::Result<ExitCode> {
    let nats = connect(home, "eventicket-breaker").await?;
    match command {
        Command::Ls { json } => {
            let breakers: Vec<BreakerView> = nats.query(ORCHESTRATOR, BREAKERS, &()).await.context("breakers")?;
            output::line(&if json { serde_json::to_string_pretty(&breakers)? } else { table(&breakers) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Open(to) => set(&nats, to, BreakerMode::Open).await,
        Command::Close(to) => set(&nats, to, BreakerMode::Closed).await,
        Command::Auto(to) => set(&nats, to, BreakerMode::Auto).await,
    }
}

async fn set(nats: &Nats, to: Set, mode: BreakerMode) -> anyhow::Result<ExitCode> {
    let Set { service, reason, json } = to;
    let set = SetBreaker { service: service.clone(), mode, actor: actor(), reason };
    let breaker: Option<BreakerView> = nats.query(ORCHESTRATOR, SET_BREAKER, &set).await.context("breaker")?;
    let Some(breaker) = breaker else {
        output::line(&format!("no saga calls a service {service}"));
        return Ok(ExitCode::FAILURE);
    };
    output::line(&if json { serde_json::to_string_pretty(&breaker)? } else { table(&[breaker]) });
    Ok(ExitCode::SUCCESS)
}

fn table(breakers: &[BreakerView]) -> String {
    let mut lines =
        vec![format!("{:<14} {:<10} {:<7} {:>7}  {:<20}  SET BY", "SERVICE", "STATE", "MODE", "HELD", "SINCE")];
    for breaker in breakers {
        let since: String = breaker.changed_at.map_or("-".to_owned(), |t| t.to_string().chars().take(19).collect());
        let by = [breaker.actor.as_deref(), breaker.reason.as_deref()];
        let by = by.into_iter().flatten().collect::<Vec<_>>().join(": ");
        let BreakerView { service, state, mode, held, .. } = breaker;
        let line = format!("{service:<14} {state:<10} {mode:<7} {held:>7}  {since:<20}  {by}");
        lines.push(clip(line.trim_end(), WIDTH));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::Timestamp;

    #[test]
    fn the_columns_of_a_table_stand_below_one_another() {
        let never = BreakerView {
            service: "bookings".into(),
            state: "closed".into(),
            mode: "auto".into(),
            until: None,
            held: 0,
            changed_at: None,
            actor: None,
            reason: None,
        };
        let forced = BreakerView {
            service: "payments".into(),
            state: "open".into(),
            mode: "open".into(),
            held: 12,
            changed_at: Some(Timestamp(1_795_514_400_123)),
            actor: Some("cli:ada".into()),
            reason: Some("it is being moved".into()),
            ..never.clone()
        };
        let table = table(&[never, forced]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "SERVICE        STATE      MODE       HELD  SINCE                 SET BY");
        assert_eq!(lines[1], "bookings       closed     auto          0  -");
        assert_eq!(
            lines[2],
            "payments       open       open         12  2026-11-24T10:00:00   cli:ada: it is being moved"
        );
    }
}
