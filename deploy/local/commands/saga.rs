//! `eventicket saga`: what sagas do and did, as the orchestrator tells it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use eventicket_contracts::sagas::{
    GET_SAGA, HISTORY, HistoryEntry, LIST_SAGAS, ListSagas, Page, SagaDetail, SagaStep, SagaSummary,
};
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_nats::Nats;
use serde_json::json;

use crate::output;
use crate::platform::Platform;

/// The service that answers.
const ORCHESTRATOR: &str = "orchestrator";
/// Most sagas of one answer.
const PAGE: u32 = 100;
/// Columns of a line.
const WIDTH: usize = 100;

/// Look at sagas
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List sagas, the newest first
    Ls(Filter),
    /// Show a saga with its steps and its whole history
    Show {
        /// Its id, which is its booking's
        id: SagaId,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// By state, as `running` or `completed`, or `attention`
    #[arg(long)]
    state: Option<String>,
    /// By kind, as `booking`
    #[arg(long)]
    kind: Option<String>,
    /// By the step that it is at, as `PAY`
    #[arg(long)]
    step: Option<String>,
    /// By event
    #[arg(long)]
    event: Option<EventId>,
    /// By the user it belongs to
    #[arg(long)]
    user: Option<CustomerId>,
    /// Most sagas
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running platform and prints the answer.
///
/// # Errors
/// The platform does not run, or its orchestrator does not answer.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let settings = Platform::read(home)?.settings(home)?;
    let nats = Nats::connect(&settings.nats_url, "eventicket-saga").await?;
    match args.command {
        Command::Ls(filter) => {
            let json = filter.json;
            let sagas = list(&nats, filter).await?;
            output::line(&if json { serde_json::to_string_pretty(&sagas)? } else { table(&sagas) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id, json } => {
            let saga: Option<SagaDetail> = nats.query(ORCHESTRATOR, GET_SAGA, &id).await.context("saga")?;
            let history: Option<Vec<HistoryEntry>> = nats.query(ORCHESTRATOR, HISTORY, &id).await.context("history")?;
            let Some(saga) = saga else {
                output::line(&format!("there is no saga {id}"));
                return Ok(ExitCode::FAILURE);
            };
            let history = history.unwrap_or_default();
            let text = if json {
                serde_json::to_string_pretty(&json!({ "saga": saga, "history": history }))?
            } else {
                shown(&saga, &history)
            };
            output::line(&text);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(nats: &Nats, filter: Filter) -> anyhow::Result<Vec<SagaSummary>> {
    let Filter { state, kind, step, event, user, limit, .. } = filter;
    let mut query = ListSagas { state, kind, step, event, user, ..ListSagas::default() };
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

fn table(sagas: &[SagaSummary]) -> String {
    if sagas.is_empty() {
        return "no saga".to_owned();
    }
    let mut lines = vec![format!("{:<36}  {:<13}  {:<12}  {:<8}  STATUS", "ID", "KIND", "STATE", "STEP")];
    for saga in sagas {
        let step = saga.step.as_deref().unwrap_or("-");
        let mark = if saga.attention.is_empty() { "" } else { " !" };
        let line = format!("{:<36}  {:<13}  {:<12}  {step:<8}  {}{mark}", saga.id, saga.kind, saga.state, saga.status);
        lines.push(clip(&line, WIDTH));
    }
    lines.join("\n")
}

fn shown(saga: &SagaDetail, history: &[HistoryEntry]) -> String {
    let about = &saga.summary;
    let took = about.updated_at.since(about.started_at).as_millis();
    let mut lines = vec![
        format!("saga     {}  ({} v{})", about.id, about.kind, about.definition_version),
        format!("state    {}  ({})", about.state, about.status),
        format!("started  {}, last change {took} ms later", about.started_at),
    ];
    let optional = [
        ("step", about.step.clone()),
        ("event", about.event_id.map(|id| id.to_string())),
        ("user", about.user_id.map(|id| id.to_string())),
        ("trace", about.trace_id.clone()),
    ];
    lines.extend(optional.into_iter().filter_map(|(name, value)| Some(format!("{name:<8} {}", value?))));
    lines.extend(about.attention.iter().map(|mark| format!("ATTENTION {}: {}", mark.step, mark.reason)));
    lines.push(format!("\n{:<10} {:<13} {:>5} {:>8}  ERROR", "STEP", "STATE", "ROUND", "ATTEMPTS"));
    lines.extend(saga.steps.iter().map(step));
    lines.push(format!("\n{:>10}  {:<10} {:<20} {:>9}", "MS", "STEP", "WHAT", "TOOK"));
    lines.extend(history.iter().flat_map(|entry| timeline(entry, about.started_at)));
    lines.join("\n")
}

fn step(step: &SagaStep) -> String {
    let error = step.error.as_deref().unwrap_or("");
    format!("{:<10} {:<13} {:>5} {:>8}  {error}", step.name, step.state, step.round, step.attempts)
        .trim_end()
        .to_owned()
}

/// One entry: a line, with its error or its actor and reason in lines below where they do not fit behind it.
fn timeline(entry: &HistoryEntry, start: Timestamp) -> Vec<String> {
    let after = format!("+{}", entry.at.millis() - start.millis());
    let mut what = entry.what.clone();
    if let Some(round) = entry.round.filter(|round| *round > 1) {
        what += &format!(" round {round}");
    }
    if let Some(attempt) = entry.attempt.filter(|attempt| *attempt > 1) {
        what += &format!(" try {attempt}");
    }
    let took = entry.duration_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
    let line = format!("{after:>10}  {:<10} {what:<20} {took:>9}", entry.step.as_deref().unwrap_or(""));
    let by = entry.actor.as_ref().map(|actor| format!("by {actor}"));
    let notes = [by, entry.reason.clone(), entry.error.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    if notes.is_empty() {
        return vec![line.trim_end().to_owned()];
    }
    let beside = format!("{line}  {notes}");
    if beside.chars().count() <= WIDTH {
        return vec![beside];
    }
    let mut lines = vec![line.trim_end().to_owned()];
    lines.extend(wrapped(&notes, WIDTH - 12).into_iter().map(|part| format!("{:12}{part}", "")));
    lines
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

/// The words in lines of at most `width` characters; a word that is longer stands alone.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: &str, error: Option<&str>) -> HistoryEntry {
        HistoryEntry {
            seq: 1,
            at: Timestamp(1_025),
            what: what.into(),
            step: Some("PAY".into()),
            round: Some(2),
            attempt: Some(3),
            error: error.map(str::to_owned),
            duration_ms: Some(17),
            actor: None,
            reason: None,
            trace_id: None,
        }
    }

    #[test]
    fn a_timeline_fits_the_terminal_and_loses_nothing() {
        let lines = timeline(&entry("done", None), Timestamp(1_000));
        assert_eq!(lines, ["       +25  PAY        done round 2 try 3       17 ms"]);
        let short = timeline(&entry("rejected", Some("payment_declined: no")), Timestamp(1_000));
        assert!(short.len() == 1 && short[0].ends_with("payment_declined: no"), "{short:?}");
        let words = "word ".repeat(60);
        let long = timeline(&entry("rejected", Some(&words)), Timestamp(1_000));
        assert!(long.len() > 3 && long.iter().all(|line| line.chars().count() <= WIDTH), "{long:?}");
        assert_eq!(long.join(" ").matches("word").count(), 60);
    }
}
