//! `eventicket saga`: what sagas do and did, and what operators do to them.

mod act;
mod filter;
mod show;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{
    Action, GET_SAGA, HISTORY, HistoryEntry, LIST_SAGAS, ListSagas, Page, SagaDetail, SagaSummary,
};
use eventicket_nats::Nats;
use serde_json::{Value, json};

use super::reach::{ORCHESTRATOR, connect, ended};
use crate::output;
use act::Target;
use filter::Filter;

/// Most sagas of one answer.
const PAGE: u32 = 100;

/// Look at sagas and act on them
///
/// Actions take a saga's id or a filter; with a filter they tell what would become of each saga, and do it with --yes.
/// Where no --state is given, they are for unfinished sagas.
/// Exit code: 0 all is done, 1 something was refused or is not there, 2 the arguments say no such thing or
/// the platform cannot be reached.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant)] // parsed once a process
enum Command {
    /// List sagas, the newest first
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// Most sagas
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a saga with its steps and its whole history
    Show {
        /// Its id, which is its booking's
        id: SagaId,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try now what waits for its next attempt, or what gave up
    Retry(Target),
    /// Go on as if the current step had brought an output
    Skip {
        #[command(flatten)]
        target: Target,
        /// The output, as JSON
        #[arg(long, default_value = "null", value_parser = parse_json)]
        output: Value,
    },
    /// Undo it, as its customer would
    Cancel(Target),
    /// Undo it from where it stands, also where its point of no return was dead-lettered
    Compensate(Target),
    /// Begin no further step
    Pause(Target),
    /// Go on
    Resume(Target),
    /// What a step waits for was done by hand; --step names the step, and is no filter here
    Resolve(Target),
    /// Give it up as it stands
    Abandon {
        #[command(flatten)]
        target: Target,
        /// Without waiting for what its services tell of it
        #[arg(long)]
        force: bool,
    },
}

/// Asks the running platform and prints the answer.
///
/// # Errors
/// None: what cannot be reached is printed.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    ended(carry_out(args.command, home).await)
}

async fn carry_out(command: Command, home: &Path) -> anyhow::Result<ExitCode> {
    let nats = connect(home, "eventicket-saga").await?;
    match command {
        Command::Ls { filter, limit, json } => {
            let sagas = list(&nats, filter.query(), limit).await?;
            output::line(&if json { serde_json::to_string_pretty(&sagas)? } else { show::table(&sagas) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id, json } => print(&nats, id, json).await,
        Command::Retry(target) => act::run(&nats, target, Action::Retry).await,
        Command::Skip { target, output } => act::run(&nats, target, Action::Skip { output: output.into() }).await,
        Command::Cancel(target) => act::run(&nats, target, Action::Cancel).await,
        Command::Compensate(target) => act::run(&nats, target, Action::Compensate).await,
        Command::Pause(target) => act::run(&nats, target, Action::Pause).await,
        Command::Resume(target) => act::run(&nats, target, Action::Resume).await,
        Command::Resolve(mut target) => {
            let step = target.filter.step.take().context("--step names the step that was done by hand")?;
            act::run(&nats, target, Action::Resolve { step }).await
        }
        Command::Abandon { target, force } => act::run(&nats, target, Action::Abandon { force }).await,
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

async fn list(nats: &Nats, mut query: ListSagas, limit: u32) -> anyhow::Result<Vec<SagaSummary>> {
    let (most, mut sagas) = (limit as usize, Vec::new());
    while sagas.len() < most {
        query.limit = u32::try_from(most - sagas.len()).unwrap_or(PAGE).min(PAGE);
        let page: Page<SagaSummary> = nats.query(ORCHESTRATOR, LIST_SAGAS, &query).await.context("sagas")?;
        sagas.extend(page.items);
        let Some(next) = page.next else { break };
        query.before = Some(SagaId(next));
    }
    Ok(sagas)
}

async fn print(nats: &Nats, id: SagaId, json: bool) -> anyhow::Result<ExitCode> {
    let saga: Option<SagaDetail> = nats.query(ORCHESTRATOR, GET_SAGA, &id).await.context("saga")?;
    let history: Option<Vec<HistoryEntry>> = nats.query(ORCHESTRATOR, HISTORY, &id).await.context("history")?;
    let Some(saga) = saga else {
        output::line(&format!("there is no saga {id}"));
        return Ok(ExitCode::FAILURE);
    };
    let history = history.unwrap_or_default();
    output::line(&if json {
        serde_json::to_string_pretty(&json!({ "saga": saga, "history": history }))?
    } else {
        show::shown(&saga, &history)
    });
    Ok(ExitCode::SUCCESS)
}

/// The line, cut where it is longer than `width` characters.
pub(super) fn clip(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(width - 1).collect();
    cut.push('…');
    cut
}
