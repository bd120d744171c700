//! The folder of messages: `<id>.eml`, where the id is made from the `Message-ID`.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use eventicket_contracts::Timestamp;
use mail_parser::{Address, Message, MessageParser};
use sha2::{Digest, Sha256};

/// Hexadecimal digits of an id: 80 bits of a hash.
const ID_DIGITS: usize = 20;
const SUFFIX: &str = ".eml";

/// A message in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its id in this folder.
    pub id: String,
    /// The first recipient's address.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// When it was written; when it arrived where it does not say.
    pub date: Timestamp,
}

/// A message with its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// As in lists.
    pub summary: Summary,
    /// The sender's address.
    pub from: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML; empty where it has none.
    pub html: String,
}

/// All messages, in the order of their arrival: the newest last.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<Summary>> {
    newest(folder, usize::MAX, |_| true)
}

/// The newest messages that `wanted` takes, `most` of them, the newest last. Only as many files are read as it needs.
///
/// # Errors
/// The folder cannot be read.
pub fn newest(folder: &Path, most: usize, wanted: impl Fn(&Summary) -> bool) -> io::Result<Vec<Summary>> {
    let mut files = files(folder)?;
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut found = Vec::new();
    for (arrived, id) in files {
        if found.len() == most {
            break;
        }
        let Some(raw) = unless_missing(fs::read(path(folder, &id)))? else { continue };
        let message = MessageParser::default().parse_headers(&raw).unwrap_or_default();
        let summary = summary(&id, &message, arrived);
        if wanted(&summary) {
            found.push(summary);
        }
    }
    found.reverse();
    Ok(found)
}

/// The message whose id begins so; `None` where there is none, or more than one.
///
/// # Errors
/// The folder cannot be read.
pub fn read(folder: &Path, id: &str) -> io::Result<Option<Letter>> {
    let mut files = files(folder)?;
    files.retain(|(_, name)| name.starts_with(id));
    let [(arrived, id)] = files.as_slice() else { return Ok(None) };
    let Some(raw) = unless_missing(fs::read(path(folder, id)))? else { return Ok(None) };
    let message = MessageParser::default().parse(&raw).unwrap_or_default();
    Ok(Some(Letter {
        summary: summary(id, &message, *arrived),
        from: first(message.from()),
        text: message.body_text(0).unwrap_or_default().into_owned(),
        html: message.body_html(0).unwrap_or_default().into_owned(),
    }))
}

/// Keeps a message unless one of its `Message-ID` is there; a reader never sees half of it. It is not synced to the
/// disk: this folder shows mail, it does not keep it for ever.
pub(super) fn keep(folder: &Path, raw: &[u8]) -> io::Result<()> {
    let id = id(raw);
    let kept = path(folder, &id);
    if kept.try_exists()? {
        return Ok(());
    }
    // Renamed, not linked and removed: to find a number for a new file costs ten times as much beside removed ones.
    let temporary = folder.join(format!(".{id}.{:016x}", rand::random::<u64>()));
    match fs::write(&temporary, raw) {
        // Somebody has emptied the mailbox with its folder.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            fs::write(&temporary, raw)?;
        }
        written => written?,
    }
    fs::rename(&temporary, kept)
}

fn id(raw: &[u8]) -> String {
    let headers = MessageParser::default().parse_headers(raw);
    let hash = match headers.as_ref().and_then(Message::message_id) {
        Some(message_id) => Sha256::digest(message_id.as_bytes()),
        None => Sha256::digest(raw),
    };
    let mut digits = String::with_capacity(2 * hash.len());
    for byte in hash {
        let _ = write!(digits, "{byte:02x}");
    }
    digits.truncate(ID_DIGITS);
    digits
}

/// Arrivals and ids.
fn files(folder: &Path) -> io::Result<Vec<(SystemTime, String)>> {
    let Some(entries) = unless_missing(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let Some(about) = unless_missing(entry.metadata())? else { continue };
        files.push((about.modified()?, id.to_owned()));
    }
    Ok(files)
}

fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}{SUFFIX}"))
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn summary(id: &str, message: &Message<'_>, arrived: SystemTime) -> Summary {
    let arrived = arrived.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let written = message.date().map(|date| date.to_timestamp().saturating_mul(1000));
    Summary {
        id: id.to_owned(),
        to: first(message.to()),
        subject: message.subject().unwrap_or_default().to_owned(),
        date: Timestamp(written.unwrap_or_else(|| i64::try_from(arrived).unwrap_or(i64::MAX))),
    }
}

fn first(addresses: Option<&Address<'_>>) -> String {
    addresses.and_then(|all| all.first()).and_then(|one| one.address()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(id: usize) -> Vec<u8> {
        format!(
            "Message-ID: <{id}@x>\r\nFrom: t@x.yz\r\nTo: \"A, B\" <{id}@x.yz>\r\nSubject: =?utf-8?Q?Caf=C3=A9?= {id}\r\n\
             Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\nCaf=C3=A9\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn what_is_kept_is_listed_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("mail");
        assert!(list(&folder).unwrap().is_empty());
        for id in [0, 1, 2, 1] {
            keep(&folder, &mail(id)).unwrap();
        }
        let all = list(&folder).unwrap();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|m| m.date == Timestamp(1_795_514_400_000)));
        let one = newest(&folder, 1, |m| m.to == "1@x.yz").unwrap().remove(0);
        assert_eq!(one.subject, "Café 1");
        let letter = read(&folder, &one.id[..6]).unwrap().unwrap();
        assert_eq!((letter.from.as_str(), letter.text.trim()), ("t@x.yz", "Café"));
        assert_eq!(letter.summary, one);
        assert_eq!(read(&folder, "../x").unwrap(), None);
        assert_eq!(read(&folder, "").unwrap(), None, "more than one begins so");
    }
}
