//! The processes of the platform: started, ended, standing still, with clocks of their own.

use std::rc::Rc;

use crate::executor::NEVER;
use crate::flaws::Flaw;
use crate::store::Name;
use crate::world::World;

/// A heart that has not beaten for so long is dead, ms.
pub(crate) const LAPSE: i64 = 2_000;

/// A process of the platform, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId(pub usize);

/// A process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub part: &'static str,
    pub number: u32,
    pub is_up: bool,
    /// How far its clock is ahead, ms.
    pub skew: i64,
    /// The furthest that it ever was.
    pub furthest: i64,
    pub stalled_until: i64,
    /// New at each start.
    pub name: Name,
    /// When its heart last beat, while it is down or stands still.
    pub last_beat: i64,
}

impl World {
    pub fn name(&self, process: ProcessId) -> Name {
        self.processes.borrow()[process.0].name
    }

    /// Adds a process and starts it.
    pub fn add_process(self: &Rc<Self>, part: &'static str, number: u32) {
        let id = ProcessId(self.processes.borrow().len());
        let process =
            Process { part, number, is_up: true, skew: 0, furthest: 0, stalled_until: 0, name: 0, last_beat: 0 };
        self.processes.borrow_mut().push(process);
        self.start(id);
    }

    fn start(self: &Rc<Self>, id: ProcessId) {
        let name = self.fresh_number();
        let part = {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[id.0];
            (process.is_up, process.name) = (true, name);
            process.part
        };
        match part {
            "orchestrator" => crate::orchestrator::start(self, id),
            "bookings" => crate::bookings::start(self, id),
            "payments" => crate::payments::start(self, id),
            "notifications" => crate::notifications::start(self, id),
            _ => crate::gateway::start(self, id),
        }
    }

    /// A process ends where it stands, and starts again after a pause.
    pub fn crash(&self, id: ProcessId, pause: i64) {
        {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[id.0];
            if !process.is_up {
                return;
            }
            if process.stalled_until <= self.now() {
                process.last_beat = self.now();
            }
            (process.is_up, process.stalled_until) = (false, self.now() + pause);
        }
        self.victim.take();
        self.knowledge.borrow_mut().gone(self.name(id), self.processes.borrow()[id.0].last_beat);
        self.replicas.borrow_mut().remove(&id);
        self.tasks.end(Some(id));
        if self.processes.borrow()[id.0].part == "gateway" {
            self.gateway.borrow_mut().forget_keys(self.has_flaw(Flaw::GatewayForgets));
        }
    }

    /// A process stands still for a while.
    pub fn stall(&self, id: ProcessId, pause: i64) {
        let mut processes = self.processes.borrow_mut();
        let process = &mut processes[id.0];
        if process.is_up {
            if process.stalled_until <= self.now() {
                process.last_beat = self.now();
            }
            process.stalled_until = process.stalled_until.max(self.now() + pause);
        }
    }

    pub fn jump(&self, id: ProcessId, by: i64) {
        let process = &mut self.processes.borrow_mut()[id.0];
        process.skew += by;
        process.furthest = process.furthest.max(process.skew);
    }

    pub fn runs(&self, id: ProcessId) -> bool {
        let process = &self.processes.borrow()[id.0];
        process.is_up && process.stalled_until <= self.now()
    }

    /// The processes of a part that run.
    pub fn living(&self, part: &str) -> Vec<ProcessId> {
        let count = self.processes.borrow().len();
        let of_part = |id: &ProcessId| self.processes.borrow()[id.0].part == part;
        let living = (0..count).map(ProcessId).filter(|id| of_part(id) && self.runs(*id)).collect();
        self.mind.learn(&living);
        living
    }

    /// How long the heart of a replica of this name has not beaten.
    pub fn silence(&self, name: Name) -> i64 {
        let processes = self.processes.borrow();
        let here = processes.iter().find(|p| p.name == name);
        match here {
            Some(p) if p.is_up && p.stalled_until <= self.now() => 0,
            Some(p) => self.now() - p.last_beat,
            None => self.knowledge.borrow().silence(name, self.now()),
        }
    }

    /// Restarts what is down, and ends what stands still.
    pub fn look_after_processes(self: &Rc<Self>) {
        let now = self.now();
        let count = self.processes.borrow().len();
        for at in 0..count {
            let (is_up, until) = {
                let process = &self.processes.borrow()[at];
                (process.is_up, process.stalled_until)
            };
            if !is_up && until <= now {
                self.tell(Some(ProcessId(at)), || "starts again".to_owned());
                self.start(ProcessId(at));
            } else if until > now {
                self.store.borrow_mut().end_idle(ProcessId(at), now);
            }
        }
    }

    pub fn next_restart(&self) -> i64 {
        let processes = self.processes.borrow();
        processes.iter().filter(|p| !p.is_up).map(|p| p.stalled_until).min().unwrap_or(NEVER)
    }
}
