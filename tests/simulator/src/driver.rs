//! Carries charges to their end, as payments' driver does: calls the gateway, has what was seen committed, goes on from
//! there. A row that waits for its bank or its customer has a task here, too.

use std::cell::Cell;
use std::rc::Rc;

use eventicket_payments::State;
use eventicket_payments::simulation::{Call, Row, Verdict, observe};
use eventicket_planted::Fault as Planted;

use crate::executor::{On, Wait};
use crate::flaws::Flaw;
use crate::mind::Flag;
use crate::processes::ProcessId;
use crate::world::{Sim, World};

/// First and longest waits after a failure, and for what takes time by its nature, ms.
const BACKOFF: (i64, i64) = (100, 5_000);
const SLOW: (i64, i64) = (2_000, 300_000);
/// Shift of a wait that doubles.
const MOST_DOUBLINGS: u32 = 10;

/// A row that has a task here.
#[derive(Debug, Default)]
pub(crate) struct Drive {
    version: Cell<i32>,
    /// Somebody wants to know: answered also where nothing is news.
    owed: Cell<bool>,
    /// It is to be looked at now.
    poked: Rc<Flag>,
}

impl World {
    /// Drives a row on from its committed state; where somebody asked, the gateway is asked at once, and they are answered.
    pub fn drive(self: &Rc<Self>, me: ProcessId, row: Row, asked: bool) {
        let Some(driven) = self.driven.borrow().get(&me).cloned() else { return };
        let drive = Rc::new(Drive::default());
        drive.version.set(row.version());
        drive.owed.set(asked);
        if let Some(known) = driven.rows.borrow().get(row.key()) {
            known.owed.set(known.owed.get() || asked);
            if asked || known.version.get() < row.version() {
                known.poked.raise(0);
            }
            if known.version.get() >= row.version() {
                return;
            }
            drive.owed.set(known.owed.get());
        }
        let former = driven.rows.borrow_mut().insert(row.key().clone(), drive.clone());
        driven.replaced.borrow_mut().extend(former);
        self.mind.knowing(self.mind.hash(&(&row, asked)), || {
            self.tasks.spawn(Some(me), "drive", run(Rc::clone(self), me, row, drive, asked));
        });
    }
}

async fn run(sim: Sim, me: ProcessId, row: Row, drive: Rc<Drive>, asked: bool) {
    let key = row.key().clone();
    if !asked && row.is_slow() {
        wait(&sim, &drive, SLOW.0).await;
    }
    go_on(&sim, me, row, &drive).await;
    let Some(driven) = sim.driven.borrow().get(&me).cloned() else { return };
    let mut rows = driven.rows.borrow_mut();
    if rows.get(&key).is_some_and(|known| Rc::ptr_eq(known, &drive)) {
        rows.remove(&key);
    }
}

async fn go_on(sim: &Sim, me: ProcessId, mut row: Row, drive: &Rc<Drive>) {
    let mut waits = 0;
    let mut next = row.next_call();
    while let Some(call) = next {
        sim.mind.only(&(&row, call, waits));
        let observed = match sim.shop.requests.request(&row, call) {
            Ok(request) => sim.call(me, request, call).await,
            Err(observed) => observed,
        };
        let delay = match observe(&row, call, observed) {
            Verdict::Write(after) => {
                if (Planted::ConfirmBeforeCommit.is_planted() || sim.has_flaw(Flaw::ConfirmBesideCommit))
                    && after.state() == State::Created
                    && let Ok(request) = sim.shop.requests.request(&after, Call::CONFIRM)
                {
                    sim.call(me, request, Call::CONFIRM).await;
                }
                if drive.owed.get() && !after.replies(&row).is_empty() {
                    drive.owed.set(false); // the news is the answer
                }
                let keys = row.next_call() == after.next_call() && row.state() == after.state();
                let Some(after) = sim.record(me, &row, *after, None).await else { return };
                drive.version.set(after.version());
                let slow = after.is_slow();
                waits = if slow && keys { waits } else { 0 };
                row = after;
                slow.then_some(true)
            }
            Verdict::Call(other) => {
                next = Some(other);
                continue;
            }
            Verdict::Later { slow } => Some(slow),
        };
        if let Some(slow) = delay
            && drive.owed.replace(false)
        {
            let replies = row.standing(slow);
            let telling = Rc::clone(sim);
            let tell = async move {
                let _ = crate::worker::send(&telling, me, replies).await;
            };
            sim.beside(me, "replies", tell).await;
        }
        next = row.next_call();
        if let Some(slow) = delay.filter(|_| next.is_some()) {
            let (first, longest) = if slow { SLOW } else { BACKOFF };
            let pause = (first << waits.min(MOST_DOUBLINGS)).min(longest);
            waits += 1;
            sim.mind.only(&(&row, next, waits));
            wait(sim, drive, pause).await;
        }
    }
}

async fn wait(sim: &Sim, drive: &Drive, pause: i64) {
    sim.pause(Wait { until: sim.now() + pause, on: On::Flag(drive.poked.clone()) }).await;
    drive.poked.lower();
}
