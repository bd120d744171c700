//! Random definitions under random inputs: what must always hold, and a count of how often each arm of the transition
//! was met.

mod arms;
mod chaos;
mod definitions;
mod table;

use std::sync::Arc;

use chaos::{Chaos, Counts};
use definitions::Bodies;
use eventicket_saga::Json;
use eventicket_saga::testing::{Choices, Play, World};

/// Generated runs.
const RUNS: u64 = 500_000;
/// Most random inputs of a run, before services answer and before it has ended.
const MOST_CHAOS: usize = 120;
/// Threads that share them.
const THREADS: u64 = 2;

#[test]
fn whatever_comes_a_saga_keeps_its_promises_and_ends() {
    let mut counts = Counts::new();
    std::thread::scope(|scope| {
        let part = |first: u64| move || runs((first..RUNS).step_by(usize::try_from(THREADS).unwrap()));
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(part(first))).collect();
        for thread in threads {
            for (arm, n) in thread.join().unwrap() {
                *counts.entry(arm).or_default() += n;
            }
        }
    });
    show(&counts);
    let all = table::all();
    let never: Vec<_> = all.iter().filter(|arm| !counts.contains_key(*arm)).collect();
    assert!(never.is_empty(), "arms that were never met: {never:#?}");
    let unknown: Vec<_> = counts.keys().filter(|arm| !all.contains(*arm)).collect();
    assert!(unknown.is_empty(), "arms that the table does not know: {unknown:#?}");
}

fn runs(seeds: impl Iterator<Item = u64>) -> Counts {
    let bodies = Bodies::new();
    let outputs: eventicket_saga::testing::Outputs = Arc::new(|_, now| definitions::output(now).into());
    let mut counts = Counts::new();
    for seed in seeds {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(seed, &bodies, World::new(outputs.clone()), &mut counts);
        }));
        assert!(ran.is_ok(), "with seed {seed}");
    }
    counts
}

fn run(seed: u64, bodies: &Bodies, world: World, counts: &mut Counts) {
    let mut choices = Choices::random(seed);
    let definition = definitions::definition(&mut choices, bodies);
    let strays = choices.one_in(2);
    let play = Play::new(&definition, Json::NULL, world);
    let mut chaos = Chaos { play, choices, counts, strays, marked: false, by_hand: false };
    chaos.behave();
    if chaos.choices.one_in(8) {
        let _ = chaos.feed(eventicket_saga::Input::Timer);
    }
    chaos.feed(eventicket_saga::Input::Start).unwrap();
    for _ in 0..chaos.choices.choose(MOST_CHAOS) {
        chaos.anything();
        if chaos.play.saga.ended() {
            break;
        }
    }
    chaos.end_well();
    chaos.play.read_back();
    chaos.check_end();
    // Nothing changes what has ended.
    let end = chaos.play.saga.clone();
    for _ in 0..8 {
        chaos.anything();
    }
    // But that an operator takes note of its marks.
    if !end.attention.is_empty() {
        (chaos.play.saga.attention, chaos.play.saga.seq) = (end.attention.clone(), end.seq);
    }
    assert_eq!(chaos.play.saga, end);
}

#[allow(clippy::print_stdout)] // seen with --nocapture
fn show(counts: &Counts) {
    println!("{:>9}  {:<12} {:<24} input", "times", "phase", "state");
    for ((phase, state, input), n) in counts {
        println!("{n:>9}  {phase:<12} {state:<24} {input}");
    }
}
