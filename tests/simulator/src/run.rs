//! One run, and many.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::chaos::{Chaos, Kind};
use crate::choices::{Choices, Made};
use crate::flaws::Flaw;
use crate::invariants::Violation;
use crate::scenario::Scenario;
use crate::shop::Shop;
use crate::timeline::Timeline;
use crate::world::{Settings, Sim, World};

/// How runs are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Webhooks on or off; as it is drawn where there is none.
    pub webhooks: Option<bool>,
    /// A fault of the simulator's own surroundings.
    pub flaw: Option<Flaw>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The invariant that was broken.
    pub violation: Option<Violation>,
    /// Its decisions.
    pub made: Vec<Made>,
    /// Its story, where one was asked for.
    pub story: Timeline,
    /// Steps that were taken.
    pub steps: u64,
    /// Transactions that were committed.
    pub commits: u64,
}

/// Makes runs.
pub struct Simulator {
    shop: Arc<Shop>,
}

impl Default for Simulator {
    fn default() -> Self {
        crate::panics::keep_silent();
        Self { shop: Shop::open() }
    }
}

impl Simulator {
    /// The run of a seed.
    pub fn seed(&self, plan: &Plan, seed: u64, tells: bool) -> Outcome {
        self.run(plan, Choices::random(seed), tells)
    }

    /// The run of given decisions.
    pub fn given(&self, plan: &Plan, values: Vec<u32>, tells: bool) -> Outcome {
        self.run(plan, Choices::given(values), tells)
    }

    fn run(&self, plan: &Plan, mut choices: Choices, tells: bool) -> Outcome {
        let scenario = Scenario::draw(&mut choices, plan.webhooks);
        let storm = choices.choose(4);
        let settings = Settings { is_fine: true, tells, flaw: plan.flaw };
        let sim = World::new(settings, choices, Arc::clone(&self.shop), scenario, Chaos::drawn(storm));
        begin(&sim);
        sim.run(|_| true);
        outcome(&sim)
    }

    /// A small world with given decisions and mishaps; `look` sees it before each step, and may end it.
    pub(crate) fn small(
        &self,
        scenario: Scenario,
        chaos: Chaos,
        settings: Settings,
        values: Vec<u32>,
        look: impl FnMut(&Sim) -> bool,
    ) -> Outcome {
        let crashes = chaos.left[Kind::Crash as usize] > 0;
        let sim = World::new(settings, Choices::given(values), Arc::clone(&self.shop), scenario, chaos);
        begin(&sim);
        sim.victim.set(crashes.then(|| sim.some_process()));
        sim.run(look);
        outcome(&sim)
    }
}

fn begin(sim: &Sim) {
    for number in 1..=2 {
        for part in ["orchestrator", "bookings", "payments"] {
            if number == 1 || sim.settings.is_fine {
                sim.add_process(part, number);
            }
        }
    }
    sim.add_process("notifications", 1);
    sim.add_process("gateway", 1);
    crate::scenario::put_on_sale(sim);
    sim.tell(None, || format!("{:?}", sim.scenario));
    // In a small world they are alike: which of them is the first one does not matter, and it brings the next one.
    let come = if sim.settings.is_fine { sim.scenario.bookings.len() } else { 1 };
    (0..come).for_each(|number| crate::customers::come(sim, number));
    for number in 0..sim.scenario.changes.len() {
        sim.tasks.spawn_waiting(None, "organizer", crate::scenario::change(Rc::clone(sim), number));
    }
    crate::operator::start(sim);
}

fn outcome(sim: &Sim) -> Outcome {
    Outcome {
        violation: sim.violation.borrow().clone(),
        made: sim.made(),
        story: sim.story.borrow().clone(),
        steps: sim.steps.get(),
        commits: sim.commits.get(),
    }
}

/// Runs from seed to seed until an invariant is broken, at most so many. Tells the number of runs, and the seed that broke
/// one.
pub fn search(simulator: &Simulator, plan: &Plan, first: u64, most: u64) -> (u64, Option<(u64, Outcome)>) {
    for number in 0..most {
        let outcome = simulator.seed(plan, first + number, false);
        if outcome.violation.is_some() {
            return (number + 1, Some((first + number, outcome)));
        }
    }
    (most, None)
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// Runs that were made.
    pub runs: u64,
    /// Transactions that were committed in them.
    pub commits: u64,
    /// A seed whose run broke an invariant.
    pub broken: Option<(u64, Outcome)>,
}

/// Makes runs from seed to seed on all processors, until an invariant is broken. Hears after each run how many there are.
pub fn sweep(plan: &Plan, first: u64, most: u64, hear: impl Fn(u64) + Sync) -> Sum {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, ends, sum) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let work = || {
        let simulator = Simulator::default();
        while !ends.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= most {
                break;
            }
            let seed = first.wrapping_add(number);
            let outcome = simulator.seed(plan, seed, false);
            let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (sum.runs, sum.commits) = (sum.runs + 1, sum.commits + outcome.commits);
            if outcome.violation.is_some() {
                ends.store(true, Ordering::Relaxed);
                sum.broken = Some((seed, outcome));
            }
            hear(sum.runs);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
