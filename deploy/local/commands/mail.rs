//! `eventicket mail`: what the local mailbox has caught.

use std::path::Path;
use std::process::ExitCode;

use eventicket_notifications::mailbox::{Letter, Summary, newest, read};

use super::saga::clip;
use crate::output;
use crate::platform::Platform;

/// Stands for the id of the newest mail.
const LATEST: &str = "latest";
/// Digits of an id that are listed: enough to tell mails apart, and to show one.
const DIGITS: usize = 10;
/// Columns of a line.
const WIDTH: usize = 100;

/// Read the mail that the platform sent
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List mails, the newest last
    Ls {
        /// Only those to this address
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// Most mails
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show a mail
    Show {
        /// Its id or how it begins, or `latest`
        id: String,
    },
}

/// Prints mails of the running platform's mailbox.
///
/// # Errors
/// The platform does not run, or the mailbox cannot be read.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let folder = Platform::read(home)?.mailbox;
    match args.command {
        Command::Ls { to, limit } => {
            let wanted = |mail: &Summary| to.as_ref().is_none_or(|to| mail.to.eq_ignore_ascii_case(to));
            let mails = tokio::task::block_in_place(|| newest(&folder, limit, wanted))?;
            output::line(&if mails.is_empty() { "no mail".to_owned() } else { table(&mails) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id } => {
            let letter = tokio::task::block_in_place(|| find(&folder, &id))?;
            output::line(&letter.as_ref().map_or_else(|| format!("there is no mail {id}"), shown));
            Ok(if letter.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn find(folder: &Path, id: &str) -> std::io::Result<Option<Letter>> {
    if id != LATEST {
        return read(folder, id);
    }
    match newest(folder, 1, |_| true)?.pop() {
        Some(mail) => read(folder, &mail.id),
        None => Ok(None),
    }
}

fn table(mails: &[Summary]) -> String {
    let mut lines = vec![format!("{:<DIGITS$}  {:<20}  {:<24}  SUBJECT", "ID", "DATE", "TO")];
    for mail in mails {
        let date: String = mail.date.to_string().chars().take(19).collect();
        let line = format!("{:.DIGITS$}  {date}Z  {:<24}  {}", mail.id, mail.to, mail.subject);
        lines.push(clip(&line, WIDTH));
    }
    lines.join("\n")
}

fn shown(letter: &Letter) -> String {
    let Letter { summary, from, text, .. } = letter;
    let (date, to, subject) = (summary.date, &summary.to, &summary.subject);
    format!("From:    {from}\nTo:      {to}\nDate:    {date}\nSubject: {subject}\n\n{}", text.trim_end())
}
