//! `eventicket load`: an open-loop load of bookings on a running platform, and what came of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::load::knee::Demand;
use crate::load::mix::Mix;
use crate::load::order::Order;
use crate::load::report::{self, Report, html, readme, text};
use crate::load::rush;
use crate::load::schedule::Schedule;
use crate::load::site::{Login, Offer};
use crate::load::suite::{self, Run, Suite};
use crate::output;

/// Exit code where the audit found a violation or could not read something, or bookings ended otherwise than they must.
const WRONG: u8 = 2;
/// Exit code where the generator was the limit: the figures are not the platform's.
const LIMITED: u8 = 3;

/// Send an open-loop load of bookings to a running platform
///
/// Exit codes: 0 all is well; 1 it could not be run; 2 the audit found a violation, or bookings ended otherwise than they
/// must; 3 the generator itself was the limit.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run all that tests/load is made of, on the platform that runs
    Suite(SuiteArgs),
    /// Print tests/load/README.md, made of the JSON of runs
    Report {
        /// Files that `--json` or the suite wrote
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Draw the throughput of three times the knee here, as SVG
        #[arg(long)]
        plot: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Load {
    /// Bookings a second
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Seconds
    #[arg(long, default_value_t = 20.0)]
    duration: f64,
    /// Events that are booked in turn; those that are missing are made
    #[arg(long, default_value_t = 1, conflicts_with = "event")]
    events: u32,
    /// One event that is there
    #[arg(long)]
    event: Option<String>,
    /// Price of a ticket in cents; 0 is free
    #[arg(long, default_value_t = 4_200)]
    price: i64,
    /// Seconds that tickets are held [default: 600, or 20 with the realistic mix]
    #[arg(long)]
    hold: Option<u32>,
    /// What customers do
    #[arg(long, value_enum, default_value_t = Mix::Plain)]
    mix: Mix,
    /// Raise the rate, from --rate on, until it no longer holds; each is sent for --duration
    #[arg(long, conflicts_with = "settle")]
    find_knee: bool,
    /// Longest p99 of a rate that holds, ms
    #[arg(long, default_value_t = 1_000.0)]
    knee_p99: f64,
    /// After the load, look so many seconds when all is as before it; needs --calm
    #[arg(long, requires = "calm")]
    settle: Option<f64>,
    /// Bookings a second before the load, and after it
    #[arg(long, requires = "settle")]
    calm: Option<f64>,
    /// Wait until all mails have left
    #[arg(long)]
    drain_mails: bool,
    /// Customers that book in turn [default: enough for the rate]
    #[arg(long)]
    customers: Option<u32>,
    /// Most connections
    #[arg(long, default_value_t = 16_000)]
    connections: usize,
    #[command(flatten)]
    site: Site,
    /// Write the figures as JSON; `-` is standard output
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the figures with charts as HTML
    #[arg(long)]
    html: Option<PathBuf>,
    /// A name for the run, for the tables that are made of its JSON
    #[arg(long, default_value = "")]
    name: String,
    /// Leave the audit out
    #[arg(long)]
    no_audit: bool,
}

/// Which platform, and who may do what there.
#[derive(Debug, clap::Args)]
struct Site {
    /// The API [default: the platform that runs in EVENTICKET_HOME]
    #[arg(long)]
    url: Option<String>,
    /// File with a customer's access token a line; without it, accounts are made
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// EMAIL:PASSWORD of who makes the events [default: the demo's organizer]
    #[arg(long, default_value = "organizer@demo.test:demo-password", hide_default_value = true)]
    organizer: Login,
    /// EMAIL:PASSWORD of who reads the histories of sagas [default: the demo's operator]
    #[arg(long, default_value = "operator@demo.test:demo-password", hide_default_value = true)]
    operator: Login,
}

#[derive(Debug, clap::Args)]
struct SuiteArgs {
    #[command(flatten)]
    site: Site,
    /// Folder for the reports
    #[arg(long, default_value = "tests/load/results")]
    out: PathBuf,
    /// Only these, in this order
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Run>,
    /// Seconds of each run
    #[arg(long, default_value_t = 60.0)]
    duration: f64,
    /// Bookings a second that every platform should hold
    #[arg(long, default_value_t = 1_000.0)]
    low: f64,
    /// Bookings a second that are asked for
    #[arg(long, default_value_t = 5_000.0)]
    high: f64,
    /// Bookings that wait for a payment method, and expire together
    #[arg(long, default_value_t = 100_000)]
    waiting: u64,
}

/// Sends the load and tells what came of it.
///
/// # Errors
/// The platform does not run, its events cannot be made, or a file cannot be read or written.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    match args.command {
        None => one(&args.load, home).await,
        Some(Command::Suite(suite)) => all(suite, home).await,
        Some(Command::Report { files, plot }) => {
            let reports = files.iter().map(|file| suite::read(file)).collect::<anyhow::Result<Vec<_>>>()?;
            if let (Some(file), Some(rush)) = (plot, reports.iter().find(|r| r.name == suite::Run::Triple.name())) {
                write_file(&file, html::throughput(&rush.seconds).render())?;
            }
            output::line(readme::render(&reports).trim_end());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn one(args: &Load, home: &Path) -> anyhow::Result<ExitCode> {
    super::up::raise_open_files();
    ensure!(args.rate > 0.0 && args.rate <= 1e6, "--rate is above 0 and at most a million");
    let (duration, order) = (Duration::try_from_secs_f64(args.duration)?, order(args));
    let mut trial = order.prepare(home).await?;
    ensure!(args.mix == Mix::Plain || trial.programme.paid, "--mix {} needs an event with a price", args.mix.name());
    let mut report = if args.find_knee {
        trial.find_knee(args.rate, duration, Demand { p99: args.knee_p99, ..Demand::default() }).await?
    } else {
        let schedule = match args.settle.zip(args.calm) {
            Some((settle, calm)) => rush::schedule(calm, args.rate, duration, Duration::try_from_secs_f64(settle)?),
            None => Schedule::steady(args.rate, duration),
        };
        let (mut report, tally) = trial.run(&schedule).await?;
        report.settled = args.settle.and_then(|_| rush::settled(&schedule, &tally));
        report.steps = trial.steps(&tally.samples).await;
        report
    };
    report.name.clone_from(&args.name);
    report.mails = trial.mails(args.drain_mails).await;
    if !args.no_audit {
        report.audit = trial.audit().await;
    }
    write(args, &report)?;
    Ok(ExitCode::from(code(&report)))
}

fn order(args: &Load) -> Order {
    let hold = args.hold.unwrap_or(if args.mix == Mix::Realistic { 20 } else { 600 });
    let hold = Duration::from_secs(hold.into());
    Order {
        url: args.site.url.clone(),
        tokens: args.site.tokens.clone(),
        customers: args.customers,
        rate: args.rate,
        event: args.event.clone(),
        offer: Offer { events: args.events, price: args.price, hold, stagger: Duration::ZERO },
        organizer: args.site.organizer.clone(),
        operator: args.site.operator.clone(),
        mix: args.mix,
        block: 1,
        connections: args.connections,
    }
}

async fn all(args: SuiteArgs, home: &Path) -> anyhow::Result<ExitCode> {
    super::up::raise_open_files();
    let order = Order {
        url: args.site.url,
        tokens: args.site.tokens,
        customers: None,
        rate: args.low,
        event: None,
        offer: Offer { events: 1, price: 4_200, hold: Duration::from_secs(600), stagger: Duration::ZERO },
        organizer: args.site.organizer,
        operator: args.site.operator,
        mix: Mix::Plain,
        block: 1,
        connections: 16_000,
    };
    let suite = Suite {
        order,
        home: home.to_owned(),
        out: args.out,
        duration: Duration::try_from_secs_f64(args.duration)?,
        low: args.low,
        high: args.high,
        waiting: args.waiting,
    };
    let runs = if args.only.is_empty() { Run::ALL.to_vec() } else { args.only };
    let mut codes = Vec::new();
    for run in runs {
        codes.push(code(&suite.run(run).await.with_context(|| format!("the run {}", run.name()))?));
    }
    // What is wrong weighs more than a generator that was the limit.
    let worst = [WRONG, LIMITED].into_iter().find(|code| codes.contains(code));
    Ok(ExitCode::from(worst.unwrap_or(0)))
}

fn write(args: &Load, report: &Report) -> anyhow::Result<()> {
    if let Some(file) = &args.html {
        write_file(file, html::render(report))?;
    }
    match args.json.as_deref() {
        Some(file) if file == Path::new("-") => output::line(&serde_json::to_string(report)?),
        Some(file) => {
            write_file(file, serde_json::to_string(report)? + "\n")?;
            output::line(&text::render(report));
        }
        None => output::line(&text::render(report)),
    }
    Ok(())
}

fn write_file(file: &Path, text: String) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

fn code(report: &Report) -> u8 {
    let audit_failed = report.audit.as_ref().is_some_and(|audit| audit.violations > 0 || audit.error.is_some());
    if audit_failed || report::is_wrong(report) {
        WRONG
    } else if report.generator.limits.is_empty() {
        0
    } else {
        LIMITED
    }
}
