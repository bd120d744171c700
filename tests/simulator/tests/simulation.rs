//! The simulator's own tests: a bounded number of its runs, and the faults that it has to find.

use eventicket_simulator::explore::{WORLDS, explore};
use eventicket_simulator::faults::{Planted, hunt};
use eventicket_simulator::{Plan, Simulator, search, shrink};

/// Runs in the tests; `eventicket simulate` makes more.
const RUNS: u64 = 2_000;
/// Each fault is found within so many runs.
const HUNT: u64 = 10_000;

#[test]
#[ignore = "not seen to pass yet"]
fn no_run_breaks_anything() {
    let simulator = Simulator::default();
    let plan = Plan::default();
    let (_, found) = search(&simulator, &plan, 1, RUNS);
    if let Some((seed, outcome)) = found {
        let values = outcome.made.iter().map(|made| made.value).collect();
        let story = shrink(&simulator, &plan, values, 2_000).map(|story| story.told.to_string());
        panic!("seed {seed}: {:?}\n{}", outcome.violation, story.unwrap_or_default());
    }
}

#[test]
#[ignore = "not seen to pass yet"]
fn a_run_repeats_from_its_seed_and_from_its_decisions() {
    let simulator = Simulator::default();
    for seed in 1..60 {
        let first = simulator.seed(&Plan::default(), seed, true);
        let again = simulator.seed(&Plan::default(), seed, true);
        assert_eq!(first.story.to_string(), again.story.to_string(), "seed {seed}");
        let values = first.made.iter().map(|made| made.value).collect();
        let given = simulator.given(&Plan::default(), values, true);
        assert_eq!((given.made, given.commits), (first.made, first.commits), "seed {seed}");
    }
}

#[test]
#[ignore = "not seen to pass yet"]
fn every_planted_fault_is_found_with_webhooks_and_without() {
    let simulator = Simulator::default();
    let mut missed = Vec::new();
    for planted in Planted::all().filter(|planted| planted.hidden().is_none()) {
        for webhooks in [true, false] {
            if hunt(&simulator, planted, webhooks, HUNT).is_none() {
                missed.push((planted.name(), webhooks));
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
#[ignore = "not seen to pass yet"]
fn small_worlds_hold_in_all_ways() {
    let simulator = Simulator::default();
    for world in &WORLDS[..1] {
        let explored = explore(&simulator, world, 20_000);
        assert!(explored.broken.is_none(), "{}: {:?}", world.name, explored.broken);
        assert!(explored.complete && explored.states > 50, "{}: {explored:?}", world.name);
    }
}
