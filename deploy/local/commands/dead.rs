//! `eventicket dead`: messages that could not be handled, sending them again, and discarding them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{
    DEAD_LETTER, DEAD_LETTERS, DISCARD, DeadLetter, DeadLetterDetail, DeadLetterPage, HandleDeadLetter,
    ListDeadLetters, REPLAY, Replayed,
};
use eventicket_nats::{Nats, QueryFailure};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::reach::{ORCHESTRATOR, actor, connect, ended};
use super::saga::clip;
use crate::output;

/// Most letters of one answer.
const PAGE: u32 = 100;
/// Columns of a line.
const WIDTH: usize = 140;

/// Look at dead letters and send them again
///
/// Exit code: 0 all is done, 1 one is not there or was refused, 2 the platform cannot be reached.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, the oldest first
    Ls {
        /// By service; `orchestrator` for replies
        #[arg(long)]
        service: Option<String>,
        /// By action
        #[arg(long)]
        action: Option<String>,
        /// Most letters
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a dead letter with its content
    Show {
        /// Its number
        id: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again, on the subjects that they came on, and take them off the list
    Replay(Handle),
    /// Take dead letters off the list without sending them again, where no saga may still need them
    Discard(Handle),
}

#[derive(Debug, clap::Args)]
struct Handle {
    /// Their numbers
    #[arg(required = true)]
    ids: Vec<u64>,
    /// Why; stands in the history of the sagas of those that are sent again, else in the log
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
    let nats = connect(home, "eventicket-dead").await?;
    match command {
        Command::Ls { service, action, limit, json } => {
            let letters = list(&nats, ListDeadLetters { service, action, ..ListDeadLetters::default() }, limit).await?;
            output::line(&if json { serde_json::to_string_pretty(&letters)? } else { table(&letters) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id, json } => {
            let letter: Option<DeadLetterDetail> = nats.query(ORCHESTRATOR, DEAD_LETTER, &id).await.context("dead")?;
            let Some(letter) = letter else {
                output::line(&format!("there is no dead letter {id}"));
                return Ok(ExitCode::FAILURE);
            };
            output::line(&if json { serde_json::to_string_pretty(&letter)? } else { shown(&letter) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay(letters) => each(&nats, REPLAY, letters, "sent", sent).await,
        Command::Discard(letters) => each(&nats, DISCARD, letters, "discarded", discarded).await,
    }
}

async fn list(nats: &Nats, mut query: ListDeadLetters, limit: u32) -> anyhow::Result<Vec<DeadLetter>> {
    let (most, mut letters) = (limit as usize, Vec::new());
    while letters.len() < most {
        query.limit = u32::try_from(most - letters.len()).unwrap_or(PAGE).min(PAGE);
        let page: DeadLetterPage = nats.query(ORCHESTRATOR, DEAD_LETTERS, &query).await.context("dead letters")?;
        letters.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    Ok(letters)
}

/// Asks for each letter, and tells what came of it; one that was handled is called `done`, and told by `tell`.
async fn each<A: DeserializeOwned>(
    nats: &Nats,
    query: &str,
    Handle { ids, reason, json }: Handle,
    done: &str,
    tell: fn(A) -> String,
) -> anyhow::Result<ExitCode> {
    let (mut all_done, mut told) = (true, Vec::new());
    for id in ids {
        let asked = HandleDeadLetter { id, actor: actor(), reason: reason.clone() };
        let (outcome, text) = match nats.query::<Option<A>>(ORCHESTRATOR, query, &asked).await {
            Ok(Some(answer)) => (done, format!("{id}  {}", tell(answer))),
            Ok(None) => ("not_found", format!("there is no dead letter {id}")),
            Err(QueryFailure::Refused(refused)) => ("refused", format!("{id}  {}", refused.message)),
            Err(failure) => return Err(failure).context(query.to_owned()),
        };
        all_done &= outcome == done;
        if json {
            told.push(json!({ "id": id, "outcome": outcome }));
        } else {
            output::line(text.trim_end());
        }
    }
    if json {
        output::line(&serde_json::to_string_pretty(&told)?);
    }
    Ok(if all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sent(letter: Replayed) -> String {
    let sagas = letter.sagas.iter().map(SagaId::to_string).collect::<Vec<_>>().join(", ");
    format!("sent again on {}  {sagas}", letter.subject)
}

fn discarded(letter: DeadLetter) -> String {
    format!("discarded  {} on {}", letter.reason, letter.subject)
}

fn table(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letter".to_owned();
    }
    let mut lines =
        vec![format!("{:<16}  {:<13}  {:<10}  {:<19}  {:<36}  REASON", "ID", "SERVICE", "ACTION", "SINCE", "SAGA")];
    for letter in letters {
        let since: String = letter.last_delivery.to_string().chars().take(19).collect();
        let saga = match letter.sagas[..] {
            [] => "-".to_owned(),
            [saga] => saga.to_string(),
            [..] => format!("{} sagas", letter.sagas.len()),
        };
        let DeadLetter { id, service, action, reason, .. } = letter;
        lines.push(clip(&format!("{id:<16}  {service:<13}  {action:<10}  {since}  {saga:<36}  {reason}"), WIDTH));
    }
    lines.join("\n")
}

fn shown(letter: &DeadLetterDetail) -> String {
    let DeadLetterDetail { letter, payload } = letter;
    let mut lines = vec![
        format!("letter     {}  ({} {})", letter.id, letter.service, letter.action),
        format!("reason     {}", letter.reason),
        format!("came on    {}", letter.subject),
        format!("delivered  {} time(s), from {} to {}", letter.deliveries, letter.first_delivery, letter.last_delivery),
    ];
    lines.extend(letter.sagas.iter().map(|saga| format!("saga       {saga}")));
    lines.push(format!("\n{payload}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::Timestamp;

    #[test]
    fn a_table_tells_whom_a_letter_is_about() {
        let letter = |sagas: Vec<SagaId>| DeadLetter {
            id: 1_799_746_200_000_001,
            service: "bookings".into(),
            action: "confirm".into(),
            reason: "panicked: ".to_owned() + &"x".repeat(100),
            subject: "cmd.bookings.confirm.0".into(),
            sagas,
            first_delivery: Timestamp(0),
            last_delivery: Timestamp(1_795_514_400_123),
            deliveries: 1,
        };
        let saga = SagaId::fresh();
        let table = table(&[letter(vec![]), letter(vec![saga]), letter(vec![saga, SagaId::fresh()])]);
        let lines: Vec<&str> = table.lines().collect();
        let about = |line: &str| line.chars().skip(66).take(36).collect::<String>().trim_end().to_owned();
        assert_eq!(lines.iter().map(|l| about(l)).collect::<Vec<_>>(), ["SAGA", "-", &saga.to_string(), "2 sagas"]);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{table}");
    }
}
