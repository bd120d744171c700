//! Carries charges to their end: calls the gateway, has what was seen committed, goes on from there.
//!
//! A task a row, and a bound of calls in flight. Who drives a row holds its version: a change by anyone else (an undo,
//! another replica) makes the next write fail, and the task ends. That two tasks drive one row for a moment is harmless:
//! they use the same keys at the gateway, and only one of them writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventicket_contracts::envelope::Key;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::charge::Charge;
use crate::decide::{self, Delay, Verdict};
use crate::gateway::Gateway;
use crate::recorder::Write;
use crate::store::Store;

/// Calls to the gateway in flight.
pub(crate) const CALLS: usize = 256;
/// Charges under way beyond which new ones are put off; undos never are.
const UNDER_WAY: usize = 20_000;
/// Between two beats of this replica, and between two looks for dead ones.
const BEAT: Duration = Duration::from_millis(500);
/// A replica whose beat is older is dead.
const LAPSE_SECONDS: f64 = 2.0;
/// First and longest wait for a key that is in use, and after a failure.
const SOON: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between two looks at what takes time by its nature.
const SLOW: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Shift of a wait that doubles; beyond it all waits are the longest.
const MOST_DOUBLINGS: u32 = 10;

/// Drives the rows of this replica; cheap to clone.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Inner>);

struct Inner {
    gateway: Gateway,
    writes: mpsc::Sender<Write>,
    calls: Semaphore,
    under_way: Mutex<HashMap<Key, Arc<Drive>>>,
    tasks: TaskTracker,
    /// No further calls are begun.
    stop: CancellationToken,
    /// Everything is dropped where it stands.
    kill: CancellationToken,
}

/// A row under way here.
struct Drive {
    version: AtomicI32,
    /// Ends a wait early.
    poke: Notify,
}

impl Driver {
    pub fn new(gateway: Gateway, writes: mpsc::Sender<Write>) -> Self {
        Self(Arc::new(Inner {
            gateway,
            writes,
            calls: Semaphore::new(CALLS),
            under_way: Mutex::new(HashMap::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        }))
    }

    /// Whether new charges have to be put off.
    pub fn is_full(&self) -> bool {
        self.0.under_way().len() >= UNDER_WAY
    }

    /// Drives a row on from its committed state. One that is under way at that version is looked at at once.
    pub fn take(&self, charge: Charge) {
        if self.0.stop.is_cancelled() {
            return; // another replica, or the next start, finds it
        }
        let drive = Arc::new(Drive { version: AtomicI32::new(charge.version), poke: Notify::new() });
        let mut under_way = self.0.under_way();
        if let Some(known) = under_way.get(&charge.key) {
            known.poke.notify_one();
            if known.version.load(Ordering::SeqCst) >= charge.version {
                return;
            }
        }
        under_way.insert(charge.key.clone(), Arc::clone(&drive));
        drop(under_way);
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            let _entry = Entry { inner: &inner, key: charge.key.clone(), drive: Arc::clone(&drive) };
            let kill = inner.kill.clone();
            kill.run_until_cancelled(inner.drive(charge, &drive)).await;
        });
    }

    /// Keeps this replica known and takes over the rows of dead ones, until shutdown; then finishes the calls in flight.
    /// Dropped, it drops all drives.
    pub async fn run(self, store: Store, shutdown: CancellationToken) {
        let _kill = self.0.kill.clone().drop_guard();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.look(&store).await {
                tracing::warn!(%error, "the table of replicas cannot be reached");
            }
            shutdown.run_until_cancelled(tokio::time::sleep(BEAT)).await;
        }
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if let Err(error) = store.leave().await {
            tracing::debug!(%error, "this replica could not sign off");
        }
    }

    async fn look(&self, store: &Store) -> Result<(), sqlx::Error> {
        store.beat().await?;
        while let Some(rows) = store.take_over(LAPSE_SECONDS).await? {
            if !rows.is_empty() {
                tracing::info!(charges = rows.len(), "charges of a replica that ended are driven on");
            }
            rows.into_iter().for_each(|row| self.take(row));
            store.beat().await?;
        }
        Ok(())
    }
}

/// Takes the drive off the map when it ends, also by a panic.
struct Entry<'a> {
    inner: &'a Inner,
    key: Key,
    drive: Arc<Drive>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut under_way = self.inner.under_way();
        if under_way.get(&self.key).is_some_and(|drive| Arc::ptr_eq(drive, &self.drive)) {
            under_way.remove(&self.key);
        }
    }
}

impl Inner {
    fn under_way(&self) -> MutexGuard<'_, HashMap<Key, Arc<Drive>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(&self, mut charge: Charge, drive: &Drive) {
        let mut pace = Pace::default();
        let mut wait = decide::is_slow(&charge).then(|| pace.wait(Delay::Slow));
        let mut next = decide::next_call(&charge);
        while let Some(call) = next {
            if let Some(wait) = wait.take() {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = drive.poke.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            let Ok(permit) = self.calls.acquire().await else { return };
            if self.stop.is_cancelled() {
                return;
            }
            let observed = self.gateway.call(&charge, call).await;
            drop(permit);
            if let decide::Observed::Unknown(reason) = &observed {
                tracing::warn!(charge = %charge.key, ?call, reason, "the payment gateway did not answer the call");
            }
            match decide::observe(&charge, call, observed) {
                Verdict::Write(after) => {
                    let Some(after) = self.write(charge, *after).await else { return };
                    drive.version.store(after.version, Ordering::SeqCst);
                    charge = after;
                    pace = Pace::default();
                    wait = decide::is_slow(&charge).then(|| pace.wait(Delay::Slow));
                    next = decide::next_call(&charge);
                }
                Verdict::Call(other) => next = Some(other),
                Verdict::Later(delay) => {
                    wait = Some(pace.wait(delay));
                    next = decide::next_call(&charge);
                }
            }
        }
    }

    /// The row as it is committed; `None` where somebody else has changed it, who drives it on.
    async fn write(&self, before: Charge, after: Charge) -> Option<Charge> {
        let (written, answer) = oneshot::channel();
        self.writes.send(Write { before, after: after.clone(), written }).await.ok()?;
        answer.await.ok()?.then_some(after)
    }
}

/// Waits of one drive, which double from one to the next.
#[derive(Default)]
struct Pace {
    waits: u32,
}

impl Pace {
    /// Between half and the whole of it, so that drives that failed together do not repeat together.
    fn wait(&mut self, delay: Delay) -> Duration {
        let (first, longest) = match delay {
            Delay::Soon => SOON,
            Delay::Backoff => BACKOFF,
            Delay::Slow => SLOW,
        };
        let doubled = first.saturating_mul(1 << self.waits.min(MOST_DOUBLINGS)).min(longest);
        self.waits += 1;
        doubled.mul_f64(rand::random_range(0.5..=1.0))
    }
}
