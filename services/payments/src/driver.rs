//! Carries charges to their end: calls the gateway, has what was seen committed, goes on from there.
//!
//! A task a row, and a bound of calls in flight; a row that waits for its bank or its customer has no task, see
//! [`Rest`]. Who drives a row holds its version: a change by anyone else (an undo, a webhook, another replica) makes the
//! next write fail, and the task ends. That two tasks drive one row for a moment is harmless: they use the same keys at
//! the gateway, and only one of them writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventicket_contracts::envelope::{Key, Reply};
use eventicket_planted::Fault;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::charge::{Charge, State};
use crate::decide::{self, Call, Delay, Observed, Verdict};
use crate::gateway::Gateway;
use crate::recorder::{Unwritten, Writes};
use crate::rest::{Pace, Rest};
use crate::store::Store;

/// Calls to the gateway in flight.
pub(crate) const CALLS: usize = 256;
/// Charges with a task beyond which new ones are put off; undos never are.
const UNDER_WAY: usize = 20_000;
/// Between two beats of this replica, two looks for dead ones, and two for rows that have waited long enough.
const BEAT: Duration = Duration::from_millis(500);
/// A replica whose beat is older is dead.
const LAPSE_SECONDS: f64 = 2.0;
/// Rows that have waited long enough and are taken up in one beat.
const WAKEN_AT_ONCE: usize = 1_000;

/// Drives the rows of this replica; cheap to clone.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Inner>);

struct Inner {
    gateway: Arc<Gateway>,
    writes: Writes,
    replies: mpsc::Sender<Vec<(String, Reply)>>,
    calls: Semaphore,
    rows: Mutex<Rows>,
    tasks: TaskTracker,
    /// No further calls are begun.
    stop: CancellationToken,
    /// Everything is dropped where it stands.
    kill: CancellationToken,
}

/// A row is in one of them at most.
#[derive(Default)]
struct Rows {
    driven: HashMap<Key, Arc<Drive>>,
    rest: Rest,
}

/// A row that has a task here.
#[derive(Default)]
struct Drive {
    version: AtomicI32,
    /// Somebody wants to know: answered also where nothing is news.
    owed: AtomicBool,
    /// It is to be looked at now.
    poked: AtomicBool,
    /// Ends a wait early.
    wake: Notify,
}

impl Driver {
    pub fn new(gateway: Arc<Gateway>, writes: Writes, replies: mpsc::Sender<Vec<(String, Reply)>>) -> Self {
        Self(Arc::new(Inner {
            gateway,
            writes,
            replies,
            calls: Semaphore::new(CALLS),
            rows: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        }))
    }

    /// Whether new charges have to be put off. Those that wait for a bank or a customer do not count.
    pub fn is_full(&self) -> bool {
        self.0.rows().driven.len() >= UNDER_WAY
    }

    /// Drives a row on from its committed state; one whose next call is not due yet waits for it.
    pub fn take(&self, charge: Charge) {
        let mut rows = self.0.rows();
        if decide::is_slow(&charge) && !rows.know(&charge.key) && !self.0.stop.is_cancelled() {
            rows.rest.put(charge, Pace::default());
            return;
        }
        drop(rows);
        self.begin(charge, false);
    }

    /// The same, but the gateway is asked at once, and who asked is answered.
    pub fn ask(&self, charge: Charge) {
        self.begin(charge, true);
    }

    fn begin(&self, charge: Charge, owed: bool) {
        if self.0.stop.is_cancelled() {
            return; // another replica, or the next start, finds it
        }
        let mut rows = self.0.rows();
        // What waits may be of a later version than what somebody read a moment ago.
        let rested = rows.rest.take(&charge.key);
        // Who asks does not make the looks behind it more frequent.
        let same = rested.as_ref().filter(|(rested, _)| rested.state == charge.state);
        let pace = same.map_or_else(Pace::default, |(_, pace)| *pace);
        let charge = rested.map(|(rested, _)| rested).filter(|r| r.version > charge.version).unwrap_or(charge);
        let drive = Drive { version: charge.version.into(), owed: owed.into(), ..Drive::default() };
        if let Some(known) = rows.driven.get(&charge.key) {
            known.owed.fetch_or(owed, Ordering::SeqCst);
            known.poked.store(true, Ordering::SeqCst);
            known.wake.notify_one();
            if known.version.load(Ordering::SeqCst) >= charge.version {
                return;
            }
            drive.owed.store(known.owed.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.0.spawn(&mut rows, charge, drive, pace);
    }

    /// Keeps this replica known, takes over the rows of dead ones and takes up what has waited, until shutdown; then
    /// finishes the calls in flight. Dropped, it drops all drives.
    pub async fn run(self, store: Store, shutdown: CancellationToken) {
        let _kill = self.0.kill.clone().drop_guard();
        let mut unsure = false;
        while !shutdown.is_cancelled() {
            if let Err(error) = self.look(&store, &mut unsure).await {
                tracing::warn!(%error, "the table of replicas cannot be reached");
            }
            self.waken();
            shutdown.run_until_cancelled(tokio::time::sleep(BEAT)).await;
        }
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if let Err(error) = store.leave().await {
            tracing::debug!(%error, "this replica could not sign off");
        }
    }

    /// `unsure`: rows may have been taken over without our knowledge, by a commit whose answer was lost.
    async fn look(&self, store: &Store, unsure: &mut bool) -> Result<(), sqlx::Error> {
        store.beat().await?;
        if *unsure {
            let own = store.own().await?;
            own.into_iter().filter(|row| !self.0.rows().know(&row.key)).for_each(|row| self.take(row));
        }
        *unsure = true;
        while let Some(rows) = store.take_over(LAPSE_SECONDS).await? {
            if !rows.is_empty() {
                tracing::info!(charges = rows.len(), "charges of a replica that ended are driven on");
            }
            rows.into_iter().for_each(|row| self.take(row));
            store.beat().await?;
        }
        *unsure = false;
        Ok(())
    }

    fn waken(&self) {
        let mut rows = self.0.rows();
        for (charge, pace) in rows.rest.take_due(Instant::now(), WAKEN_AT_ONCE) {
            let drive = Drive { version: charge.version.into(), ..Drive::default() };
            self.0.spawn(&mut rows, charge, drive, pace);
        }
    }
}

/// The pace behind a write, and what its next call waits for; a refund that only gets another key keeps its pace.
fn after_write(before: &Charge, after: &Charge, pace: Pace) -> (Pace, Option<Delay>) {
    let slow = decide::is_slow(after);
    let pace = if slow && decide::is_repeat(before, after) { pace } else { Pace::default() };
    (pace, slow.then_some(Delay::Slow))
}

/// Takes the drive off the map when it ends, also by a panic.
struct Entry<'a> {
    inner: &'a Inner,
    key: Key,
    drive: Arc<Drive>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.inner.rows().forget(&self.key, &self.drive);
    }
}

impl Rows {
    /// Whether the row is driven or rests here.
    fn know(&self, key: &Key) -> bool {
        self.driven.contains_key(key) || self.rest.holds(key)
    }

    /// Whether it was this drive that had the row.
    fn forget(&mut self, key: &Key, drive: &Arc<Drive>) -> bool {
        let mine = self.driven.get(key).is_some_and(|known| Arc::ptr_eq(known, drive));
        if mine {
            self.driven.remove(key);
        }
        mine
    }
}

impl Inner {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(self: &Arc<Self>, rows: &mut Rows, charge: Charge, drive: Drive, pace: Pace) {
        let (inner, key, drive) = (Arc::clone(self), charge.key.clone(), Arc::new(drive));
        rows.driven.insert(key.clone(), Arc::clone(&drive));
        self.tasks.spawn(async move {
            let _entry = Entry { inner: &inner, key, drive: Arc::clone(&drive) };
            let kill = inner.kill.clone();
            kill.run_until_cancelled(inner.drive(charge, &drive, pace)).await;
        });
    }

    async fn drive(&self, mut charge: Charge, drive: &Arc<Drive>, mut pace: Pace) {
        let mut next = decide::next_call(&charge);
        while let Some(call) = next {
            let Ok(permit) = self.calls.acquire().await else { return };
            if self.stop.is_cancelled() {
                return;
            }
            let observed = self.gateway.call(&charge, call).await;
            drop(permit);
            if let Observed::Unknown(reason) = &observed {
                tracing::warn!(charge = %charge.key, ?call, reason, "the payment gateway did not answer the call");
            }
            let delay = match decide::observe(&charge, call, observed) {
                Verdict::Write(after) => {
                    if Fault::ConfirmBeforeCommit.is_planted() && after.state == State::Created {
                        self.gateway.call(&after, Call::Confirm).await;
                    }
                    if drive.owed.load(Ordering::SeqCst) && !after.replies(&charge).is_empty() {
                        drive.owed.store(false, Ordering::SeqCst); // the news is the answer
                    }
                    let (next_pace, delay) = after_write(&charge, &after, pace);
                    match self.writes.write(charge, *after, None).await {
                        Ok(after) => {
                            drive.version.store(after.version, Ordering::SeqCst);
                            (charge, pace) = (after, next_pace);
                            delay
                        }
                        Err(Unwritten::Moved) => return,
                        // It is looked at again at an ever slower pace.
                        Err(Unwritten::Broken(before)) => {
                            charge = *before;
                            Some(Delay::Slow)
                        }
                    }
                }
                Verdict::Call(other) => {
                    next = Some(other);
                    continue;
                }
                Verdict::Later(delay) => Some(delay),
            };
            if let Some(delay) = delay
                && drive.owed.swap(false, Ordering::SeqCst)
            {
                self.tell(charge.standing(delay == Delay::Slow));
            }
            next = decide::next_call(&charge);
            match delay {
                Some(Delay::Slow) if next.is_some() => match self.lay_down(charge, drive, pace) {
                    Some(poked) => (charge, pace) = poked,
                    None => return,
                },
                Some(delay) => self.wait(drive, pace.wait(delay)).await,
                None => {}
            }
        }
    }

    /// Puts a row to rest, which ends its drive; it comes back where somebody has asked for it meanwhile.
    fn lay_down(&self, charge: Charge, drive: &Arc<Drive>, pace: Pace) -> Option<(Charge, Pace)> {
        let mut rows = self.rows();
        if drive.poked.swap(false, Ordering::SeqCst) {
            return Some((charge, pace));
        }
        // Else another one drives it from a later version.
        if rows.forget(&charge.key, drive) {
            rows.rest.put(charge, pace);
        }
        None
    }

    async fn wait(&self, drive: &Drive, wait: Duration) {
        if drive.poked.swap(false, Ordering::SeqCst) {
            return;
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = drive.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    fn tell(&self, replies: Vec<(String, Reply)>) {
        if !replies.is_empty() && self.replies.try_send(replies).is_err() {
            tracing::warn!("replies are not sent: too many wait already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Refusal;
    use eventicket_contracts::SagaId;

    #[test]
    fn rule_06_want_of_balance_makes_refunds_slower_with_each_key() {
        let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 };
        let intent = Some("pi_1".to_owned());
        let mut charge = Charge { intent, ..Charge::new(key, None).next(State::Refunding) };
        let short = Refusal { rejection: decide::declined(), already_refunded: false, for_now: true, status: None };
        let (mut pace, mut waits) = (Pace::default(), Vec::new());
        for _ in 0..10 {
            let seen = Observed::Refused(short.clone());
            let Verdict::Write(after) = decide::observe(&charge, Call::Refund, seen) else { panic!("not tried again") };
            let (kept, delay) = after_write(&charge, &after, pace);
            assert_eq!(delay, Some(Delay::Slow));
            (charge, pace) = (*after, kept);
            waits.push(pace.wait(Delay::Slow));
        }
        assert!(waits[9] > Duration::from_secs(120), "{waits:?}");
        // A change of the row itself begins anew.
        let refund = Charge { refund: Some("re_1".into()), ..charge.next(State::Refunding) };
        let (mut fresh, _) = after_write(&charge, &refund, pace);
        assert!(fresh.wait(Delay::Slow) <= Duration::from_secs(2));
    }
}
