//! The simulated world: its time, its choices, and the loop that lets one task after the other go on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use eventicket_contracts::Timestamp;
use eventicket_mock_gateway::simulation::Gateway;
use eventicket_orchestrator::sagas::Catalogue;
use uuid::Uuid;

use crate::chaos::{Chaos, Kind};
use crate::choices::Choices;
use crate::executor::{NEVER, On, Tasks, Wait};
use crate::flaws::Flaw;
use crate::invariants::{Knowledge, Violation};
use crate::mind::Mind;
use crate::network::{Broker, Slot};
use crate::orchestrator::Inputs;
use crate::payments::Driven;
use crate::processes::{Process, ProcessId};
use crate::scenario::Scenario;
use crate::shop::Shop;
use crate::store::Store;
use crate::timeline::Timeline;

/// When a run begins, ms.
pub(crate) const BEGIN: i64 = 1_800_000_000_000;
/// Steps and time (ms) after which mishaps are over, and steps after which a run should long have ended.
const STORM: u64 = 1_500;
const STORM_TIME: i64 = 2 * 3_600_000;
const MOST_STEPS: u64 = 12_000;
/// No run lasts longer: all deadlines, retries and hands of operators fit in.
const LONGEST: i64 = 60 * 24 * 3_600_000;

pub(crate) type Sim = Rc<World>;

/// How a run is made.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Each statement is a step of its own.
    pub is_fine: bool,
    /// A story is told.
    pub tells: bool,
    pub flaw: Option<Flaw>,
}

pub(crate) struct World {
    pub me: Weak<World>,
    /// The charges that replicas of payments drive.
    pub driven: RefCell<BTreeMap<ProcessId, Rc<Driven>>>,
    pub settings: Settings,
    pub tasks: Tasks,
    pub store: RefCell<Store>,
    pub broker: RefCell<Broker>,
    pub gateway: RefCell<Gateway>,
    pub processes: RefCell<Vec<Process>>,
    pub replicas: RefCell<BTreeMap<ProcessId, Rc<Inputs>>>,
    pub inboxes: RefCell<BTreeMap<String, Rc<Slot>>>,
    pub chaos: RefCell<Chaos>,
    pub knowledge: RefCell<Knowledge>,
    pub violation: RefCell<Option<Violation>>,
    pub story: RefCell<Timeline>,
    pub catalogue: Arc<Catalogue>,
    pub shop: Arc<Shop>,
    pub scenario: Scenario,
    pub commits: Cell<u64>,
    pub steps: Cell<u64>,
    /// What the task that runs knows.
    pub mind: Rc<Mind>,
    /// In a small world, the process that may end: whatever it takes, commits, publishes or carries out ends a step.
    pub victim: Cell<Option<ProcessId>>,
    choices: RefCell<Choices>,
    /// Decisions before this step.
    before: Cell<usize>,
    now: Cell<i64>,
    number: Cell<u64>,
    /// Mishaps are over, and operators do what is left to them.
    calm: Cell<bool>,
}

impl World {
    /// A world before its first step.
    pub fn new(settings: Settings, choices: Choices, shop: Arc<Shop>, scenario: Scenario, chaos: Chaos) -> Sim {
        let gateway = Gateway::new(scenario.webhooks);
        let (catalogue, mind) = (shop.catalogue.clone(), Rc::new(Mind::new(!settings.is_fine)));
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            driven: RefCell::default(),
            story: RefCell::new(Timeline::new(settings.tells)),
            settings,
            tasks: Tasks::new(Rc::clone(&mind)),
            store: RefCell::new(Store::new(Rc::clone(&mind))),
            broker: RefCell::default(),
            gateway: RefCell::new(gateway),
            processes: RefCell::default(),
            replicas: RefCell::default(),
            inboxes: RefCell::default(),
            chaos: RefCell::new(chaos),
            knowledge: RefCell::default(),
            violation: RefCell::default(),
            catalogue,
            shop,
            scenario,
            commits: Cell::new(0),
            steps: Cell::new(0),
            mind,
            victim: Cell::default(),
            choices: RefCell::new(choices),
            before: Cell::new(0),
            now: Cell::new(BEGIN),
            number: Cell::new(0),
            calm: Cell::new(false),
        })
    }

    pub fn now(&self) -> i64 {
        self.mind.looks(self.now.get());
        self.now.get()
    }

    pub fn is_calm(&self) -> bool {
        self.calm.get()
    }

    /// One of so many alternatives; what is not the ordinary one the task that runs knows of.
    pub fn choose(&self, of: u32) -> u32 {
        let value = self.choices.borrow_mut().choose(of);
        if value > 0 {
            self.mind.learn(&(self.decisions() - self.before.get(), value));
        }
        value
    }

    /// Whether others may go first behind whatever a process does.
    pub fn has_edges(&self, process: ProcessId) -> bool {
        self.settings.is_fine || self.victim.get() == Some(process)
    }

    /// Of so many that could go next, the first one in half of the cases.
    pub fn choose_next(&self, of: usize) -> usize {
        if of <= 1 {
            return 0;
        }
        if !self.settings.is_fine {
            return self.choose(u32::try_from(of).unwrap_or(u32::MAX)) as usize;
        }
        let drawn = self.choose(u32::try_from(2 * of).unwrap_or(u32::MAX)) as usize;
        drawn.saturating_sub(of - 1) % of
    }

    pub fn made(&self) -> Vec<crate::choices::Made> {
        self.choices.borrow().made().to_vec()
    }

    /// How many decisions were made.
    pub fn decisions(&self) -> usize {
        self.choices.borrow().made().len()
    }

    pub fn fresh_number(&self) -> u64 {
        self.number.set(self.number.get() + 1);
        self.mind.learn(&self.number.get());
        self.number.get()
    }

    /// An id of version 7 that tells the time and is the same in each repetition of the run.
    pub fn fresh_id(&self) -> Uuid {
        let number = self.fresh_number();
        let mut random = [0_u8; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(self.now()).unwrap_or(0), &random).into_uuid()
    }

    /// The time by a process's clock.
    pub fn clock(&self, process: ProcessId) -> Timestamp {
        Timestamp(self.now() + self.processes.borrow()[process.0].skew)
    }

    /// When it is a certain time by a process's clock.
    pub fn when(&self, process: ProcessId, clock: i64) -> i64 {
        if clock == NEVER { NEVER } else { clock.saturating_sub(self.processes.borrow()[process.0].skew) }
    }

    pub fn has_flaw(&self, flaw: Flaw) -> bool {
        self.settings.flaw == Some(flaw)
    }

    fn is_ready(&self, process: Option<ProcessId>, wait: &Wait) -> bool {
        if process.is_some_and(|id| !self.runs(id)) {
            return false;
        }
        wait.until <= self.now() || self.time_of(wait) <= self.now()
    }

    /// When what is waited for is there, as far as is known now.
    fn time_of(&self, wait: &Wait) -> i64 {
        let flagged = |is: bool| if is { 0 } else { NEVER };
        match &wait.on {
            On::Nothing => wait.until,
            On::Flag(flag) => flagged(flag.is_up()),
            On::Lock(lock) => flagged(self.store.borrow().is_free(lock)),
            On::Mail(stream) => self.broker.borrow().next_mail(*stream),
            On::Inputs(wake) if wake.get() => 0,
            On::Inputs(_) => self.broker.borrow().next_mail(crate::network::Stream::Replies),
            On::Check(check) => flagged((check.0)(self)),
            On::Orphans(me) => self.next_orphans(*me),
            On::Sweep(me) => self.next_sweep(*me),
            On::TakeOver(me) => self.next_take_over(*me),
            On::Starts => flagged(self.store.borrow().tables.starts.values().any(|(_, done)| !done)),
            On::Watches(me) => self.next_watch(*me),
            On::Duty => self.next_duty(),
            On::Settlements => self.gateway.borrow().next_due().unwrap_or(NEVER),
        }
    }

    /// When a waiting task can go on at the earliest.
    fn next_of(&self, process: Option<ProcessId>, wait: &Wait) -> i64 {
        let time = wait.until.min(self.time_of(wait));
        match process {
            Some(id) if time < NEVER => time.max(self.processes.borrow()[id.0].stalled_until),
            _ => time,
        }
    }

    /// The next time at which something can go on.
    fn next_time(&self) -> i64 {
        let tasks = self.tasks.next_time(|process, wait| self.next_of(process, wait));
        tasks.min(self.next_restart())
    }

    /// Lets the world go on until nothing is left to do. `look` sees it before each choice among steps, and may end it.
    pub fn run(self: &Rc<Self>, mut look: impl FnMut(&Sim) -> bool) {
        let mut ready = Vec::new();
        for step in 0_u64.. {
            self.steps.set(step);
            if step >= STORM || self.now() > BEGIN + STORM_TIME {
                self.calm_down();
            }
            if self.violation.borrow().is_some() {
                break;
            }
            if !look(self) {
                return self.tasks.end(None);
            }
            if step > MOST_STEPS || self.now() > BEGIN + LONGEST {
                self.never_ends();
                break;
            }
            self.mind.enter(0);
            self.before.set(self.decisions());
            self.look_after_processes();
            self.mishap();
            self.tasks.ready(&mut ready, |process, wait| self.is_ready(process, wait));
            if ready.is_empty() || self.befalls(Kind::Pass) {
                let next = self.next_time();
                if next < NEVER && next > self.now() {
                    self.now.set(next);
                    continue;
                }
                if ready.is_empty() {
                    if self.is_calm() {
                        break;
                    }
                    self.calm_down();
                    continue;
                }
            }
            let next = ready[self.choose_next(ready.len())];
            if let Err(said) = crate::panics::caught(|| self.tasks.run(next)) {
                self.violate("nothing panics", said);
            }
        }
        if self.violation.borrow().is_none() {
            self.check_the_end();
        }
        self.tasks.end(None);
    }

    /// Mishaps are over. Clocks are set right, too: a start whose asker has given up by the orchestrator's clock is dropped,
    /// however often it is asked for.
    fn calm_down(&self) {
        if !self.calm.replace(true) {
            self.chaos.replace(Chaos::NONE);
            self.processes.borrow_mut().iter_mut().for_each(|process| process.skew = 0);
        }
    }

    fn never_ends(&self) {
        let waiting = self.tasks.shown().into_iter().map(|(_, name, wait, _)| format!("{name}: {wait}"));
        let sagas = self.unfinished();
        self.violate("every saga ends", format!("{sagas}; {}", waiting.collect::<Vec<_>>().join("; ")));
    }

    /// Tells something of the story.
    pub fn tell(&self, who: Option<ProcessId>, what: impl FnOnce() -> String) {
        if self.settings.tells {
            let name = who.map_or_else(String::new, |id| {
                let process = &self.processes.borrow()[id.0];
                format!("{} {}", process.part, process.number)
            });
            self.story.borrow_mut().add(self.now() - BEGIN, name, what());
        }
    }
}
