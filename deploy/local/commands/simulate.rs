//! `eventicket simulate`: the platform's own decisions in a simulated world, from a seed. No servers are needed.

use std::path::Path;
use std::process::ExitCode;

use eventicket_simulator::explore::{WORLDS, explore};
use eventicket_simulator::faults::{Planted, hunt};
use eventicket_simulator::{Outcome, Plan, Simulator, Sum, shrink, sweep};

use crate::output;

/// Runs between two lines of progress.
const PROGRESS: u64 = 50_000;
/// Runs to make a story short.
const SHRINK: u32 = 6_000;

/// Simulate bookings under crashes, losses and races, and check that every promise holds
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first run's seed; run N has this seed plus N
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of runs
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// Webhooks of the payment gateway on or off in all runs; drawn for each where it is not given
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new())]
    webhooks: Option<bool>,
    /// Tell the story of the first run, whether it breaks anything or not
    #[arg(long)]
    story: bool,
    /// Go through small worlds in all ways instead, beginning at most --runs ways in each
    #[arg(long, conflicts_with_all = ["faults", "story"])]
    explore: bool,
    /// Only the small worlds whose name has this in it
    #[arg(long, requires = "explore")]
    world: Option<String>,
    /// Plant one fault after the other, and see that each is found within --runs runs, with webhooks and without
    #[arg(long, conflicts_with = "story")]
    faults: bool,
}

/// Runs the simulation on a thread of its own.
///
/// # Errors
/// The thread ended by a panic.
pub async fn run(args: Args, _: &Path) -> anyhow::Result<ExitCode> {
    let sound = tokio::task::spawn_blocking(move || {
        let simulator = Simulator::default();
        match (args.explore, args.faults) {
            (true, _) => explored(&simulator, args.world.as_deref().unwrap_or_default(), args.runs),
            (_, true) => hunted(&simulator, args.runs),
            _ => simulated(&simulator, &args),
        }
    });
    Ok(if sound.await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn simulated(simulator: &Simulator, args: &Args) -> bool {
    let plan = Plan { webhooks: args.webhooks, ..Plan::default() };
    if args.story {
        let outcome = simulator.seed(&plan, args.seed, true);
        output::line(outcome.story.to_string().trim_end());
        return outcome.violation.is_none();
    }
    let started = tokio::time::Instant::now();
    let Sum { runs, commits, broken: found } = sweep(&plan, args.seed, args.runs, |runs| {
        if runs % PROGRESS == 0 {
            output::line(&format!("{runs} runs"));
        }
    });
    if let Some((seed, outcome)) = found {
        broken(simulator, &plan, seed, &outcome);
        return false;
    }
    let seconds = started.elapsed().as_secs_f64();
    output::line(&format!("{runs} runs, {commits} commits, nothing broken, {seconds:.1} s"));
    true
}

fn broken(simulator: &Simulator, plan: &Plan, seed: u64, outcome: &Outcome) {
    output::line(&format!("seed {seed} breaks an invariant; it is made shorter"));
    let values = outcome.made.iter().map(|made| made.value).collect();
    let Some(story) = shrink(simulator, plan, values, SHRINK) else {
        output::line(&format!("it does not do so again: {:?}", outcome.violation));
        return;
    };
    output::line(story.told.to_string().trim_end());
    output::line(&format!("{}: {}", story.violation.rule, story.violation.found));
    output::line(&format!("decisions: {:?}", story.values));
}

fn explored(simulator: &Simulator, name: &str, most: u64) -> bool {
    let worlds: Vec<_> = WORLDS.iter().filter(|world| world.name.contains(name)).collect();
    let mut sound = !worlds.is_empty();
    if !sound {
        output::line(&format!("no world has `{name}` in its name"));
    }
    for world in worlds {
        let explored = explore(simulator, world, None, most);
        let end = if explored.complete { "all" } else { "not all" };
        output::line(&format!(
            "{:<48} {:>9} states, {end} of its ways in {}",
            world.name, explored.states, explored.ways
        ));
        if let Some((violation, told)) = explored.broken {
            output::line(told.to_string().trim_end());
            output::line(&format!("{}: {}", violation.rule, violation.found));
            sound = false;
        }
    }
    sound
}

fn hunted(simulator: &Simulator, most: u64) -> bool {
    let mut all = true;
    output::line(&format!("{:<28} {:>10} {:>10}  found by", "fault", "webhooks", "without"));
    for planted in Planted::all() {
        if let Some(why) = planted.hidden() {
            output::line(&format!("{:<28} {:>10} {:>10}  {why}", planted.name(), "-", "-"));
            continue;
        }
        if matches!(planted, Planted::Platform(_)) && !cfg!(debug_assertions) {
            output::line(&format!(
                "{:<28} {:>10} {:>10}  only in builds with debug assertions",
                planted.name(),
                "-",
                "-"
            ));
            continue;
        }
        let [on, off] = [true, false].map(|webhooks| hunt(simulator, planted, webhooks, most));
        all &= on.is_some() && off.is_some();
        let runs = |found: &Option<eventicket_simulator::faults::Found>| {
            found.as_ref().map_or_else(|| "not found".to_owned(), |found| found.runs.to_string())
        };
        let rule = on.as_ref().or(off.as_ref()).map_or("", |found| found.rule);
        output::line(&format!("{:<28} {:>10} {:>10}  {rule}", planted.name(), runs(&on), runs(&off)));
    }
    all
}
