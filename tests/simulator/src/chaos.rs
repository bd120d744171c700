//! What goes wrong: each kind of mishap has its own rate, and a run has only so many of them. Afterwards the world is calm,
//! and everything has to come to its end.

use crate::processes::ProcessId;
use crate::world::World;

/// A kind of mishap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message, a request, an answer or an acknowledgement is lost.
    Loss,
    /// A message or a request comes twice.
    Repeat,
    /// A message or a request comes late.
    Late,
    /// An answer of the payment gateway comes late.
    LateAnswer,
    /// The answer to a commit is lost, with the commit or without it.
    Commit,
    /// A statement fails.
    Statement,
    /// A process ends where it stands.
    Crash,
    /// A process stands still for a while.
    Stall,
    /// A clock jumps.
    Clock,
    /// The payment gateway fails.
    Gateway,
    /// The broker is away, or has lost its store.
    Broker,
    /// An operator acts.
    Operator,
    /// An operator sets a breaker.
    Breaker,
    /// Time passes while something could go on.
    Pass,
}

/// All kinds.
pub const KINDS: [Kind; 14] = [
    Kind::Loss,
    Kind::Repeat,
    Kind::Late,
    Kind::LateAnswer,
    Kind::Commit,
    Kind::Statement,
    Kind::Crash,
    Kind::Stall,
    Kind::Clock,
    Kind::Gateway,
    Kind::Broker,
    Kind::Operator,
    Kind::Breaker,
    Kind::Pass,
];

/// How often each kind happens, and how many mishaps are left.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// One in so many occasions; 0 is never.
    pub rates: [u32; KINDS.len()],
    /// Of each kind.
    pub left: [u32; KINDS.len()],
    /// Of all kinds together.
    pub budget: u32,
}

impl Chaos {
    /// A calm world.
    pub const NONE: Self = Self { rates: [0; KINDS.len()], left: [0; KINDS.len()], budget: 0 };

    /// The mishaps of a random run; a stormy one has many.
    pub fn drawn(storm: u32) -> Self {
        let mut chaos = Self { left: [u32::MAX; KINDS.len()], ..Self::NONE };
        let often = [(0, 0), (3, 2), (8, 1), (16, 1)][storm.min(3) as usize];
        chaos.budget = often.0;
        for (kind, one_in) in [
            (Kind::Loss, 30),
            (Kind::Repeat, 24),
            (Kind::Late, 20),
            (Kind::LateAnswer, 20),
            (Kind::Commit, 20),
            (Kind::Statement, 150),
            (Kind::Crash, 150),
            (Kind::Stall, 220),
            (Kind::Clock, 400),
            (Kind::Gateway, 14),
            (Kind::Broker, 400),
            (Kind::Operator, 120),
            (Kind::Breaker, 600),
            (Kind::Pass, 40),
        ] {
            chaos.rates[kind as usize] = one_in * often.1;
        }
        chaos
    }

    /// So many mishaps of the given kinds, on every occasion.
    pub fn only(kinds: &[(Kind, u32)]) -> Self {
        let mut chaos = Self { budget: u32::MAX, ..Self::NONE };
        for (kind, most) in kinds {
            (chaos.rates[*kind as usize], chaos.left[*kind as usize]) = (2, *most);
        }
        chaos
    }
}

impl World {
    /// Whether a mishap of this kind happens now.
    pub fn befalls(&self, kind: Kind) -> bool {
        let mut chaos = self.chaos.borrow_mut();
        let at = kind as usize;
        let (rate, left) = (chaos.rates[at], chaos.left[at]);
        if rate == 0 || left == 0 || chaos.budget == 0 || self.choose(rate) != rate - 1 {
            return false;
        }
        chaos.left[at] -= u32::from(left < u32::MAX);
        // That time passes is ordinary.
        chaos.budget -= u32::from(kind != Kind::Pass && chaos.budget < u32::MAX);
        drop(chaos);
        true
    }

    /// A delay, ms: the last two are beyond a hold and beyond its grace.
    pub fn lateness(&self) -> i64 {
        let most = if self.settings.is_fine { 6 } else { 2 };
        [40, 4_000, 700, 12_000, 61_000, 700_000][self.choose(most) as usize]
    }

    /// Mishaps that come between two steps.
    pub fn mishap(&self) {
        if self.befalls(Kind::Crash) {
            let process = self.victim.get().unwrap_or_else(|| self.some_process());
            let pause = [300, 3_000, 40_000][self.choose(if self.settings.is_fine { 3 } else { 1 }) as usize];
            self.tell(Some(process), || format!("crashes, and starts again in {pause} ms"));
            self.crash(process, pause);
        }
        if self.befalls(Kind::Stall) {
            let process = self.some_process();
            let pause = [900, 5_000, 33_000][self.choose(3) as usize];
            self.tell(Some(process), || format!("stands still for {pause} ms"));
            self.stall(process, pause);
        }
        if self.befalls(Kind::Clock) {
            let process = self.some_process();
            let jump = [2_000, -2_000, 70_000, -70_000, 700_000][self.choose(5) as usize];
            self.tell(Some(process), || format!("its clock jumps by {jump} ms"));
            self.jump(process, jump);
        }
        if self.befalls(Kind::Broker) {
            let (pause, loses) = ([500, 7_000][self.choose(2) as usize], self.choose(2) == 1);
            self.tell(None, || {
                format!("the broker is away for {pause} ms{}", if loses { ", and loses its store" } else { "" })
            });
            let mut broker = self.broker.borrow_mut();
            broker.down_until = self.now() + pause;
            if loses {
                broker.lose();
                drop(broker);
                self.store_was_lost(pause);
            }
        }
        if self.befalls(Kind::Operator) {
            self.operator_acts();
        }
        if self.befalls(Kind::Breaker) {
            self.operator_sets_a_breaker();
        }
    }

    /// One of all.
    pub fn some_process(&self) -> ProcessId {
        let count = u32::try_from(self.processes.borrow().len()).unwrap_or(1);
        ProcessId(self.choose(count) as usize)
    }
}
