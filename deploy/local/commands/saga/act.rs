//! What operators do to sagas: to one by its id, or to all that a filter finds, page by page.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{Act, ActAnswer, Action, BULK, BulkAct, BulkAnswer, BulkItem, GET_SAGA, SagaDetail};
use eventicket_contracts::subjects;
use eventicket_nats::Nats;
use serde_json::json;

use super::filter::Filter;
use crate::commands::reach::{ORCHESTRATOR, PATIENCE, actor};
use crate::output;

/// Sagas of one request.
const PAGE: u32 = 100;
/// What became of a saga whose action is in its history.
const DONE: &str = "done";

/// On which sagas, and why.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// A saga's id, which is its booking's; the filter chooses sagas where there is none
    id: Option<SagaId>,
    /// Why; stands in each saga's history
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    pub filter: Filter,
    /// All unfinished sagas are meant, where no filter is given
    #[arg(long)]
    all: bool,
    /// With a filter: tell what would become of each, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// With a filter: do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Acts, and prints what became of each saga: exit code 0 where all is done, 1 where something was refused.
///
/// # Errors
/// The orchestrator does not answer, or the arguments do not say which sagas are meant.
pub async fn run(nats: &Nats, target: Target, action: Action) -> anyhow::Result<ExitCode> {
    match target.id {
        Some(_) if target.filter != Filter::default() || target.all => bail!("give a saga's id or a filter, not both"),
        Some(id) => single(nats, id, target, action).await,
        None if target.filter == Filter::default() && !target.all => {
            bail!("which sagas? give an id, a filter such as --state attention, or --all")
        }
        None => bulk(nats, target, action).await,
    }
}

async fn single(nats: &Nats, id: SagaId, target: Target, action: Action) -> anyhow::Result<ExitCode> {
    let name = action.name();
    if target.dry_run {
        bail!("--dry-run goes with a filter; `--q {id}` finds this saga only");
    }
    let act = Act { saga: id, owner: None, actor: actor(), reason: target.reason, action, trace: None };
    let answer: ActAnswer = nats.request(subjects::ACT, &act, PATIENCE).await.context(name)?;
    let outcome = match &answer {
        ActAnswer::Done { .. } => DONE,
        ActAnswer::NotFound => "not_found",
        ActAnswer::Conflict { code, .. } => code,
    };
    let saga: Option<SagaDetail> = nats.query(ORCHESTRATOR, GET_SAGA, &id).await.context("saga")?;
    let text = if target.json {
        serde_json::to_string_pretty(&json!({ "id": id, "outcome": outcome, "saga": saga }))?
    } else {
        match &answer {
            ActAnswer::Done { .. } => {
                let state = saga.map_or_else(String::new, |s| format!(", now {}", s.summary.state));
                format!("{id}  {name} {DONE}{state}")
            }
            ActAnswer::NotFound => format!("there is no saga {id}"),
            ActAnswer::Conflict { code, message } => format!("{id}  {name} refused: {code}: {message}"),
        }
    };
    output::line(&text);
    Ok(if outcome == DONE { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn bulk(nats: &Nats, target: Target, action: Action) -> anyhow::Result<ExitCode> {
    let (name, dry_run) = (action.name(), !target.yes);
    let mut filter = target.filter.unfinished().query();
    filter.limit = PAGE;
    let mut act = BulkAct { filter, action, actor: actor(), reason: target.reason, dry_run };
    let mut items = Vec::new();
    loop {
        let page: BulkAnswer = nats.query(ORCHESTRATOR, BULK, &act).await.context(name)?;
        if !target.json {
            let head = items.is_empty() && !page.items.is_empty();
            head.then(|| output::line(&row(["ID", "KIND", "STATE", "OUTCOME"])));
            page.items.iter().for_each(|item| output::line(&line(item, dry_run)));
        }
        items.extend(page.items);
        let Some(next) = page.next else { break };
        act.filter.before = Some(next);
    }
    let counts = counts(&items);
    output::line(&if target.json {
        serde_json::to_string_pretty(&json!({ "dry_run": dry_run, "counts": counts, "items": items }))?
    } else {
        summary(name, &counts, dry_run, target.dry_run)
    });
    Ok(if items.iter().all(|item| item.outcome == DONE) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(item: &BulkItem, dry_run: bool) -> String {
    let outcome = if dry_run && item.outcome == DONE { "would be done" } else { &item.outcome };
    row([&item.id.to_string(), &item.kind, &item.state, outcome])
}

fn row([id, kind, state, outcome]: [&str; 4]) -> String {
    format!("{id:<36}  {kind:<13}  {state:<12}  {outcome}")
}

fn counts(items: &[BulkItem]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item.outcome.as_str()).or_default() += 1;
    }
    counts
}

fn summary(name: &str, counts: &BTreeMap<&str, usize>, dry_run: bool, asked: bool) -> String {
    if counts.is_empty() {
        return "no saga".to_owned();
    }
    let told: Vec<String> = counts.iter().map(|(outcome, number)| format!("{number} {outcome}")).collect();
    match (dry_run, asked) {
        (false, _) => format!("{name}: {}", told.join(", ")),
        (true, true) => format!("{name} would be: {}; nothing was done", told.join(", ")),
        (true, false) => format!("{name} would be: {}; nothing was done, --yes does it", told.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted() {
        let item = |outcome: &str| BulkItem {
            id: SagaId::fresh(),
            kind: "booking".into(),
            state: "running".into(),
            outcome: outcome.into(),
        };
        let items = [item("done"), item("ended"), item("done")];
        assert!(line(&items[0], true).ends_with("  would be done") && line(&items[0], false).ends_with("  done"));
        assert!(line(&items[1], true).ends_with("  ended"));
        let counts = counts(&items);
        assert_eq!(summary("retry", &counts, false, false), "retry: 2 done, 1 ended");
        let rehearsed = summary("retry", &counts, true, false);
        assert_eq!(rehearsed, "retry would be: 2 done, 1 ended; nothing was done, --yes does it");
        assert_eq!(summary("retry", &BTreeMap::new(), true, false), "no saga");
    }
}
