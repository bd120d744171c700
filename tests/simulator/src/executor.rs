//! Tasks that run one step at a time, in whatever order the run decides. A step ends where a task waits: for a lock, a
//! message, an answer, the time, or for nothing but its next turn.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::mind::{Flag, Mind};
use crate::network::Stream;
use crate::processes::ProcessId;
use crate::store::Lock;
use crate::world::World;

/// A time that does not come.
pub(crate) const NEVER: i64 = i64::MAX;

/// What a task waits for; it goes on at the time `until` at the latest.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub until: i64,
    pub on: On,
}

#[derive(Clone, Debug)]
pub(crate) enum On {
    Nothing,
    Flag(Rc<Flag>),
    Lock(Lock),
    Mail(Stream),
    /// Replies, or anything else that wakes a replica of the orchestrator.
    Inputs(Rc<Cell<bool>>),
    Check(Check),
    /// Sagas of a replica that is gone, or that replica's counts.
    Orphans(ProcessId),
    /// Holds whose grace has run out.
    Sweep(ProcessId),
    /// Charges of a replica that is gone.
    TakeOver(ProcessId),
    /// Sagas of failed refunds that are not opened yet.
    Starts,
    /// Refunds to look at again.
    Watches(ProcessId),
    /// Something for the operator to do.
    Duty,
    /// Ends at the payment gateway that come by themselves.
    Settlements,
}

impl On {
    /// Whether a task that waits for it keeps nothing in mind but what is stored, in flight, or waited for.
    fn is_outset(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Flag(_) | Self::Lock(_) | Self::Check(_) | Self::Duty)
    }
}

/// A condition that is looked at before each step.
#[derive(Clone)]
pub(crate) struct Check(pub Rc<dyn Fn(&World) -> bool>);

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

impl Wait {
    /// Nothing but the next turn.
    pub fn turn() -> Self {
        Self { until: 0, on: On::Nothing }
    }

    pub fn until(until: i64) -> Self {
        Self { until, on: On::Nothing }
    }

    pub fn on(on: On) -> Self {
        Self { until: NEVER, on }
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    process: Option<ProcessId>,
    name: &'static str,
    /// None while it runs.
    work: Option<Work>,
    wait: Wait,
    number: u64,
    /// What it has met since it last knew nothing, as a hash.
    knows: u64,
}

/// All tasks; the one that ran longest ago is the first.
pub(crate) struct Tasks {
    all: RefCell<Vec<Task>>,
    parked: RefCell<Option<Wait>>,
    number: Cell<u64>,
    mind: Rc<Mind>,
}

impl Tasks {
    pub fn new(mind: Rc<Mind>) -> Self {
        Self { all: RefCell::default(), parked: RefCell::default(), number: Cell::default(), mind }
    }

    /// Adds a task, which ends with its process, and knows what the one that adds it does.
    pub fn spawn(&self, process: Option<ProcessId>, name: &'static str, work: impl Future<Output = ()> + 'static) {
        self.number.set(self.number.get() + 1);
        let number = self.number.get();
        let knows = self.mind.knows();
        let task = Task { process, name, work: Some(Box::pin(work)), wait: Wait::turn(), number, knows };
        self.all.borrow_mut().push(task);
    }

    /// The same with a task that begins with a wait, and waits at once.
    pub fn spawn_waiting(
        &self,
        process: Option<ProcessId>,
        name: &'static str,
        work: impl Future<Output = ()> + 'static,
    ) {
        self.spawn(process, name, work);
        self.run(self.number.get());
    }

    /// The numbers of the tasks that can go on, the one that ran longest ago first.
    pub fn ready(&self, into: &mut Vec<u64>, is_ready: impl Fn(Option<ProcessId>, &Wait) -> bool) {
        into.clear();
        let all = self.all.borrow();
        into.extend(all.iter().filter(|task| is_ready(task.process, &task.wait)).map(|task| task.number));
    }

    /// The earliest time at which a task can go on.
    pub fn next_time(&self, time_of: impl Fn(Option<ProcessId>, &Wait) -> i64) -> i64 {
        self.all.borrow().iter().map(|task| time_of(task.process, &task.wait)).min().unwrap_or(NEVER)
    }

    /// Runs a task up to where it waits.
    pub fn run(&self, number: u64) {
        let (taken, former) = {
            let mut all = self.all.borrow_mut();
            let Some(at) = all.iter().position(|task| task.number == number) else { return };
            let mut task = all.remove(at);
            let (work, former) = (task.work.take(), self.mind.enter(task.knows));
            if let On::Flag(flag) = &task.wait.on {
                self.mind.learn(flag);
            }
            all.push(task);
            (work, former)
        };
        let Some(mut work) = taken else { return self.mind.back(former) };
        let ended = work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let wait = self.parked.borrow_mut().take();
        let knows = self.mind.knows();
        self.mind.back(former);
        {
            let mut all = self.all.borrow_mut();
            if let Some(at) = all.iter().rposition(|task| task.number == number) {
                if ended {
                    all.remove(at);
                } else {
                    all[at].wait = wait.unwrap_or_else(Wait::turn);
                    all[at].knows = if all[at].wait.on.is_outset() { 0 } else { knows };
                    all[at].work = Some(work);
                    return;
                }
            }
        }
        // Its process may have ended meanwhile: dropped here, where nothing is borrowed.
        drop(work);
    }

    /// Drops the tasks of a process where they stand, or all.
    pub fn end(&self, process: Option<ProcessId>) {
        let ended = |task: &Task| process.is_none() || task.process == process;
        let (gone, rest): (Vec<Task>, Vec<Task>) = self.all.take().into_iter().partition(ended);
        self.all.replace(rest);
        drop(gone);
    }

    /// What all tasks wait for, for fingerprints and for those that ask why a run does not end.
    pub fn shown(&self) -> Vec<(Option<ProcessId>, &'static str, String, u64)> {
        let all = self.all.borrow();
        all.iter().map(|t| (t.process, t.name, format!("{:?}", t.wait), t.knows)).collect()
    }
}

/// Waits once.
struct Pause<'w> {
    world: &'w World,
    wait: Option<Wait>,
}

impl Future for Pause<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match self.wait.take() {
            Some(wait) => {
                self.world.tasks.parked.replace(Some(wait));
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl World {
    /// Waits.
    pub async fn pause(&self, wait: Wait) {
        Pause { world: self, wait: Some(wait) }.await;
    }

    /// Lets others go first, or not.
    pub async fn step(&self) {
        if self.settings.is_fine {
            self.pause(Wait::turn()).await;
        }
    }

    /// Lets others go first behind what a process does that may end there.
    pub async fn edge(&self, process: ProcessId) {
        if self.has_edges(process) {
            self.pause(Wait::turn()).await;
        }
    }

    /// The same behind the taking of messages; where each statement is a step, the first one is that.
    pub async fn taken(&self, process: ProcessId) {
        if !self.settings.is_fine {
            self.edge(process).await;
        }
    }

    /// Does something beside what follows; before it where the process does not end between the two: that is the same then,
    /// since whoever takes what is sent may be late.
    pub async fn beside(&self, process: ProcessId, name: &'static str, work: impl Future<Output = ()> + 'static) {
        if self.has_edges(process) {
            self.tasks.spawn(Some(process), name, work);
        } else {
            work.await;
        }
    }

    /// Waits for some time, ms.
    pub async fn sleep(&self, ms: i64) {
        self.pause(Wait::until(self.now() + ms)).await;
    }
}
