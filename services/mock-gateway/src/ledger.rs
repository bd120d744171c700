//! The ledger: one JSON line for each change, appended and synced before its answer leaves.
//!
//! All requests that wait share one write and one sync. A line holds the answer's key together with what it changed, so
//! that neither survives without the other. [`read`] serves an audit, also while the gateway runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::answer::json;
pub use crate::intents::{Intent, Refund, RefundStatus, Status};
use crate::intents::{Refusal, Settlement};
use crate::settings::Settings;

/// The file's name in the data folder.
pub const FILE: &str = "ledger.jsonl";
/// Requests that may wait for the next write.
const WAITING: usize = 4096;
/// How long a former process may take to let go of the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the beginnings of two syncs where more than one request waits: a sync costs the processor as much as ten of
/// them. One that comes alone never waits.
const GAP: Duration = Duration::from_millis(2);
/// Between two looks at its lock.
const LOOK: Duration = Duration::from_millis(50);

/// Everything that a ledger says, each intent and refund in its last state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// By id, which is the order of their making.
    pub intents: Vec<Intent>,
    /// By id.
    pub refunds: Vec<Refund>,
}

/// Why a ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be read or written.
    #[error("input or output failed")]
    Io(#[from] io::Error),
    /// A line before the last one is no record.
    #[error("line {0} is no record")]
    Corrupt(usize),
    /// Another process holds it.
    #[error("another process uses it")]
    InUse,
}

/// Reads the ledger in the data folder (or the file itself). A last line that is still being written is left out; a file
/// that does not exist yet is empty.
pub fn read(path: &Path) -> Result<Ledger, LedgerError> {
    let path = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ledger::default()),
        file => file?,
    };
    let (mut intents, mut refunds) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    scan(&file, |record, _| {
        if let Some(intent) = record.intent {
            intents.insert(intent.id.clone(), intent);
        }
        if let Some(refund) = record.refund {
            refunds.insert(refund.id.clone(), refund);
        }
    })?;
    Ok(Ledger { intents: intents.into_values().collect(), refunds: refunds.into_values().collect() })
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Milliseconds since 1970.
    pub at: i64,
    /// The idempotency key that the answer is stored under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// SHA-256 of the request, in hexadecimal, beside a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The answer's HTTP status.
    pub status: u16,
    /// The answer's body, where it is a refusal; else it is the refund's or the intent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// What becomes of the refund, or else of the intent, by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Due>,
    /// How often a flaky round was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirms: Option<Confirms>,
    /// Webhooks that it causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Ids of webhooks that were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delivered: Vec<String>,
    /// As they are from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// An end that comes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Due {
    /// Milliseconds since 1970.
    pub at: i64,
    pub end: Settlement,
}

/// Confirms of a flaky round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Confirms {
    pub round: String,
    pub count: u32,
}

/// A webhook; it shows the record's refund, or else its intent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// `evt_...`
    pub id: String,
    /// As `payment_intent.succeeded`.
    pub kind: String,
}

impl Record {
    pub fn at(at: i64) -> Self {
        Self {
            at,
            key: None,
            request: None,
            status: 200,
            error: None,
            intent: None,
            refund: None,
            due: None,
            confirms: None,
            events: Vec::new(),
            delivered: Vec::new(),
            settings: None,
        }
    }

    pub fn refuse(&mut self, refusal: &Refusal, base: &str) {
        self.status = refusal.status;
        self.error = Some(refusal.body(base));
    }

    /// The body of the answer that it records.
    pub fn body(&self, base: &str) -> Bytes {
        let error = self.error.as_ref().map(json);
        error.or_else(|| self.object(base)).unwrap_or(Bytes::from_static(b"null"))
    }

    /// What it changed, as Stripe shows it.
    pub fn object(&self, base: &str) -> Option<Bytes> {
        let intent = || self.intent.as_ref().map(|intent| json(&intent.shown(base)));
        self.refund.as_ref().map(|refund| json(&refund.shown())).or_else(intent)
    }

    /// The id of what it changed.
    pub fn id(&self) -> Option<&str> {
        let intent = || self.intent.as_ref().map(|intent| intent.id.as_str());
        self.refund.as_ref().map(|refund| refund.id.as_str()).or_else(intent)
    }
}

/// Where a record stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Place {
    offset: u64,
    length: usize,
}

/// A line that waits to be synced; an empty one only waits for those before it.
struct Waiting {
    line: Vec<u8>,
    synced: oneshot::Sender<Place>,
}

/// Appends to the ledger.
#[derive(Clone)]
pub(crate) struct Writer {
    lines: mpsc::Sender<Waiting>,
    file: Arc<File>,
    syncs: Arc<AtomicU64>,
}

/// A place in the queue, taken before the order of the lines is decided.
pub(crate) struct Permit<'a>(mpsc::Permit<'a, Waiting>);

impl Permit<'_> {
    /// Queues a record; the answer comes when it is synced, and never where the ledger broke.
    pub fn append(self, record: &Record) -> oneshot::Receiver<Place> {
        // Records hold no maps with keys that are not texts, so that writing them cannot fail.
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        self.queue(line)
    }

    /// Waits for all that was queued before.
    pub fn barrier(self) -> oneshot::Receiver<Place> {
        self.queue(Vec::new())
    }

    fn queue(self, line: Vec<u8>) -> oneshot::Receiver<Place> {
        let (synced, answer) = oneshot::channel();
        self.0.send(Waiting { line, synced });
        answer
    }
}

impl Writer {
    /// A place in the queue; `None` where the ledger broke.
    pub async fn reserve(&self) -> Option<Permit<'_>> {
        self.lines.reserve().await.ok().map(Permit)
    }

    /// Reads a record back.
    pub fn load(&self, place: Place) -> io::Result<Record> {
        let mut line = vec![0; place.length];
        self.file.read_exact_at(&mut line, place.offset)?;
        serde_json::from_slice(&line).map_err(io::Error::other)
    }

    /// How often the file was synced.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

/// Opens the ledger, hands the records that it has to `take` in their order, cuts off a torn last line, and starts the
/// thread that writes. The receiver yields why it broke.
pub(crate) fn open(
    data: &Path,
    take: impl FnMut(Record, Place),
) -> Result<(Writer, oneshot::Receiver<io::Error>), LedgerError> {
    fs::create_dir_all(data)?;
    let path: PathBuf = data.join(FILE);
    let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
    lock(&file)?;
    let end = scan(&file, take)?;
    if file.metadata()?.len() > end {
        tracing::warn!(path = %path.display(), "a torn last line is cut off");
        file.set_len(end)?;
    }
    file.sync_all()?;
    File::open(data)?.sync_all()?;

    let (lines, queue) = mpsc::channel(WAITING);
    let (broke, broken) = oneshot::channel();
    let (file, syncs) = (Arc::new(file), Arc::new(AtomicU64::new(0)));
    let (held, counter) = (Arc::clone(&file), Arc::clone(&syncs));
    std::thread::Builder::new().name("ledger".into()).spawn(move || {
        if let Err(error) = write(&held, queue, end, &counter) {
            let _ = broke.send(error);
        }
    })?;
    Ok((Writer { lines, file, syncs }, broken))
}

fn lock(file: &File) -> Result<(), LedgerError> {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(LedgerError::InUse)
}

/// Writes whatever waits with one sync, until all writers are gone or the file fails.
fn write(file: &File, mut queue: mpsc::Receiver<Waiting>, mut end: u64, syncs: &AtomicU64) -> io::Result<()> {
    let (mut group, mut bytes) = (Vec::new(), Vec::new());
    let (mut synced, mut is_busy) = (Instant::now(), false);
    while queue.blocking_recv_many(&mut group, WAITING) > 0 {
        if is_busy {
            std::thread::sleep(GAP.saturating_sub(synced.elapsed()));
            while group.len() < WAITING
                && let Ok(more) = queue.try_recv()
            {
                group.push(more);
            }
        }
        is_busy = group.len() > 1;
        synced = Instant::now();
        bytes.clear();
        group.iter().for_each(|waiting| bytes.extend_from_slice(&waiting.line));
        if !bytes.is_empty() {
            let mut file = file;
            file.write_all(&bytes)?;
            file.sync_data()?;
            syncs.fetch_add(1, Ordering::SeqCst);
        }
        for Waiting { line, synced } in group.drain(..) {
            let place = Place { offset: end, length: line.len() };
            end += line.len() as u64;
            let _ = synced.send(place); // the asker may have gone
        }
    }
    Ok(())
}

/// Hands each record to `take` and returns where the last whole line ends. Only the last line may be torn.
fn scan(file: &File, mut take: impl FnMut(Record, Place)) -> Result<u64, LedgerError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut line, mut offset) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 || line.last() != Some(&b'\n') {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(record) => take(record, Place { offset, length }),
            Err(_) if reader.fill_buf()?.is_empty() => break,
            Err(_) => return Err(LedgerError::Corrupt(number)),
        }
        offset += length as u64;
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str) -> Record {
        Record { key: Some(key.into()), request: Some("x".into()), ..Record::at(1) }
    }

    #[tokio::test]
    async fn requests_that_wait_share_a_sync() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _broken) = open(folder.path(), |_, _| panic!("it is new")).unwrap();
        let mut synced = Vec::new();
        for n in 0..1000 {
            synced.push(writer.reserve().await.unwrap().append(&record(&n.to_string())));
        }
        for (n, synced) in synced.into_iter().enumerate() {
            let place = synced.await.unwrap();
            assert_eq!(writer.load(place).unwrap().key, Some(n.to_string()));
        }
        assert!(writer.syncs() < 200, "{} syncs for 1000 records", writer.syncs());
        let before = writer.syncs();
        writer.reserve().await.unwrap().barrier().await.unwrap();
        assert_eq!(writer.syncs(), before, "nothing was left to sync");
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_off_and_any_other_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let whole = format!("{}\n", serde_json::to_string(&record("a")).unwrap());
        for torn in ["{\"at\":1,\"ke", "\0\0\0\n"] {
            fs::write(&path, format!("{whole}{torn}")).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Ledger::default());
            let mut keys = Vec::new();
            let (writer, _broken) = open(folder.path(), |record, _| keys.push(record.key.unwrap())).unwrap();
            assert_eq!(keys, ["a"]);
            writer.reserve().await.unwrap().append(&record("b")).await.unwrap();
            drop((writer, _broken));
            let mut keys = Vec::new();
            let (_writer, _broken) = open(folder.path(), |record, _| keys.push(record.key.unwrap())).unwrap();
            assert_eq!(keys, ["a", "b"]);
        }
        fs::write(&path, format!("nonsense\n{whole}")).unwrap();
        assert!(matches!(read(&path), Err(LedgerError::Corrupt(1))));
    }
}
