//! The faults that are planted, in the platform's decisions and in the simulator's surroundings, to see that they are
//! found. Those of the platform are there in builds with debug assertions only.

use eventicket_planted::Fault;

use crate::flaws::Flaw;
use crate::run::{Plan, Simulator, search};

/// A fault that is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// In the platform.
    Platform(Fault),
    /// In the simulator's store, network and glue.
    Surroundings(Flaw),
}

impl Planted {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let platform = Fault::ALL.iter().copied().map(Self::Platform);
        platform.chain(Flaw::ALL.into_iter().map(Self::Surroundings))
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Platform(fault) => fault.name(),
            Self::Surroundings(flaw) => flaw.name(),
        }
    }

    /// How runs are made to find it; one of the platform is planted beside that.
    pub fn plan(self, webhooks: bool) -> Plan {
        Plan { webhooks: Some(webhooks), flaw: self.flaw() }
    }

    /// As one of the surroundings.
    pub(crate) const fn flaw(self) -> Option<Flaw> {
        if let Self::Surroundings(flaw) = self { Some(flaw) } else { None }
    }

    /// Runs with it planted on this thread, where it is one of the platform.
    pub(crate) fn during<T>(fault: Option<Self>, run: impl FnOnce() -> T) -> T {
        match fault {
            Some(Self::Platform(fault)) => eventicket_planted::with(fault, run),
            _ => run(),
        }
    }

    /// Why it cannot show here.
    pub const fn hidden(self) -> Option<&'static str> {
        match self {
            Self::Platform(Fault::ConfirmPanics | Fault::ReleasePanics) => {
                Some("a panic breaks no rule: its command is a dead letter, which tests/e2e has mended and replayed")
            }
            _ => None,
        }
    }
}

/// A fault that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Runs that it took.
    pub runs: u64,
    /// The seed of the last one.
    pub seed: u64,
    /// The invariant that was broken.
    pub rule: &'static str,
}

/// Runs with a fault until it is found, at most so many times.
pub fn hunt(simulator: &Simulator, planted: Planted, webhooks: bool, most: u64) -> Option<Found> {
    let plan = planted.plan(webhooks);
    let (runs, found) = Planted::during(Some(planted), || search(simulator, &plan, 1, most));
    let (seed, outcome) = found?;
    Some(Found { runs, seed, rule: outcome.violation?.rule })
}
