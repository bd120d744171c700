//! `tests/load/README.md`: made of the reports of the suite's runs, never typed.

use std::fmt::Write as _;

use super::html::MIB;
use super::{OWN, Phase, Report, SlowGateway};
use crate::load::tally::REFUSED;
use crate::load::watch::Sample;
use crate::load::watch::processes::{OTHERS, PLATFORM};

const HEAD: &str = "# Load

What `tests/load/run` and `tests/load/traced` measured; this file is written by `eventicket load report`, not by hand.
Everything runs on one machine: PostgreSQL syncing every commit, NATS, all services, the mock payment gateway over HTTP, and
the generator. Bookings begin at intended times, whatever is answered (an open loop), and latencies run from there to
`confirmed`. `tests/load/peers` compares with another engine of sagas. What limits the figures that miss their targets, by its
profile, and what comes next is in [ARCHITECTURE.md](../../ARCHITECTURE.md#10-figures).

```sh
tests/load/run                      # the suite, on a platform of its own; then writes this file
tests/load/traced                   # pairs of runs without and with traces; then writes this file
eventicket load --rate 1000         # one run on the platform that runs
eventicket load report FILE...      # this file, from the JSON of runs
```
";

/// What is asked for: by which run it is answered, what it is, its figure, and whether that is enough.
type Target = (&'static str, &'static str, fn(&Report, &Reports<'_>) -> Option<(String, bool)>);

const TARGETS: [Target; 17] = [
    ("low", "1,000/s: p50 under 25 ms", |r, _| below(load(r)?.latency.p50, 25.0)),
    ("low", "1,000/s: p99 under 60 ms", |r, _| below(load(r)?.latency.p99, 60.0)),
    ("low", "1,000/s: p99.9 under 150 ms", |r, _| below(load(r)?.latency.p999, 150.0)),
    ("high", "5,000/s held on one hot event", |r, _| {
        let phase = load(r)?;
        let held = phase.rate >= 5_000.0 && phase.confirmed as f64 >= 0.99 * phase.offered as f64;
        Some((format!("{:.0}/s", phase.goodput), held))
    }),
    ("high", "5,000/s: p99 under 150 ms", |r, _| below(load(r)?.latency.p99, 150.0)),
    ("ten-events", "ten events are not slower than one", slower_than_knee),
    ("thousand-events", "a thousand events are not slower than one", slower_than_knee),
    ("overload", "1.5 times the knee: goodput at least 90 % of it", |r, all| goodput(r, all, 0.9)),
    ("triple", "three times the knee: goodput at least 70 % of it", |r, all| goodput(r, all, 0.7)),
    ("triple", "three times the knee: goodput, and what refusals and generator cost, at least 95 %", with_refusals),
    ("triple", "three times the knee: accepted bookings p99 under 1 s", |r, _| below(load(r)?.latency.p99, 1_000.0)),
    ("triple", "three times the knee: 429 within 50 ms at p99", |r, _| below(load(r)?.refusal.p99, 50.0)),
    ("triple", "normal within 2 s after it ends", |r, _| {
        let after = r.settled.as_ref()?.after;
        Some((
            after.map_or_else(|| "not in the time".to_owned(), |s| format!("{s:.2} s")),
            after.is_some_and(|s| s <= 2.0),
        ))
    }),
    ("slow-gateway", "a payment gateway at 2 s does not slow free bookings", |r, _| {
        let SlowGateway { p99_before, p99_beside, p99_after, .. } = r.slow_gateway?;
        let text = format!(
            "p99 {p99_beside:.0} ms beside a slow one, {p99_before:.0} and {p99_after:.0} ms beside a quick one"
        );
        Some((text, p99_beside <= f64::midpoint(p99_before, p99_after) * 1.25 + 10.0))
    }),
    ("waiting", "sagas that wait cost no measurable speed", |r, _| {
        let waiting = r.waiting?;
        let text =
            format!("{}: p99 {:.0} ms with, {:.0} ms before", waiting.sagas, waiting.p99_with, waiting.p99_before);
        Some((text, waiting.p99_with <= waiting.p99_before * 1.25 + 10.0))
    }),
    ("waiting", "their expiry: 5,000/s or more, p99 of others under 300 ms", |r, _| {
        let waiting = r.waiting?;
        let text = format!("{:.0}/s, p99 {:.0} ms", waiting.expired_a_second, waiting.p99_meanwhile);
        Some((text, waiting.expired_a_second >= 5_000.0 && waiting.p99_meanwhile < 300.0))
    }),
    ("traced", "traces of one booking in a hundred cost less than 3 % of throughput", |_, all| {
        let (traced, without) = (all.median("traced")?, all.median("untraced")?);
        Some((format!("{traced:.0}/s with, {without:.0}/s without, medians of pairs"), traced > 0.97 * without))
    }),
];

/// All reports by name.
struct Reports<'a>(&'a [Report]);

impl<'a> Reports<'a> {
    fn named(&self, name: &str) -> Option<&'a Report> {
        self.0.iter().find(|report| report.name == name)
    }

    fn knee(&self) -> Option<f64> {
        self.named("knee")?.knee.as_ref()?.rate
    }

    /// The median of the rates that runs of this name confirmed; between the two in the middle of an even number.
    fn median(&self, name: &str) -> Option<f64> {
        let named = self.0.iter().filter(|report| report.name == name);
        let mut rates: Vec<f64> = named.filter_map(load).map(|phase| phase.goodput).collect();
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        Some((rates.get(middle)? + rates[(rates.len() - 1) / 2]) / 2.0)
    }
}

fn load(report: &Report) -> Option<&Phase> {
    report.load()
}

fn below(ms: f64, bound: f64) -> Option<(String, bool)> {
    Some((format!("{ms:.1} ms"), ms < bound))
}

fn goodput(report: &Report, all: &Reports<'_>, share: f64) -> Option<(String, bool)> {
    let (goodput, knee) = (load(report)?.goodput, all.knee()?);
    Some((format!("{goodput:.0}/s, {:.0} % of {knee:.0}/s", 100.0 * goodput / knee), goodput >= share * knee))
}

/// What gateway and generator took beyond their cost of the bookings that were confirmed, as it is at the knee, would have
/// bought bookings at the knee's price.
fn with_refusals(report: &Report, all: &Reports<'_>) -> Option<(String, bool)> {
    let (knee, phase) = (all.named("knee")?, load(report)?);
    let beyond = |name| (us(report, name) - us(knee, name)).max(0.0);
    let seconds = (beyond("gateway") + beyond(OWN)) * phase.confirmed as f64 / 1e6;
    let bought = seconds / (sum(knee) / 1e6) / phase.seconds;
    let (rate, share) = (all.knee()?, (phase.goodput + bought) / all.knee()?);
    Some((format!("{:.0}/s and {bought:.0}/s, {:.0} % of {rate:.0}/s", phase.goodput, 100.0 * share), share >= 0.95))
}

/// CPU of a process or thread, us a booking.
fn us(report: &Report, name: &str) -> f64 {
    let all = report.cpu.iter().chain(&report.threads);
    all.filter(|cpu| cpu.name == name).map(|cpu| cpu.us_a_booking).sum()
}

/// CPU of all that belongs to a booking, us.
fn sum(report: &Report) -> f64 {
    report.cpu.iter().filter(|cpu| cpu.name != OTHERS).map(|cpu| cpu.us_a_booking).sum()
}

/// At the same share of the knee, that is of one event's highest rate, all is confirmed within its bound.
fn slower_than_knee(report: &Report, all: &Reports<'_>) -> Option<(String, bool)> {
    let (phase, demand) = (load(report)?, all.named("knee")?.knee.as_ref()?.demand);
    let confirmed = phase.confirmed as f64 >= demand.share * phase.offered as f64;
    let text = format!(
        "{:.0}/s at {:.0} % of the knee, p99 {:.0} ms",
        phase.goodput,
        100.0 * phase.rate / all.knee()?,
        phase.latency.p99
    );
    Some((text, confirmed && phase.latency.p99 <= demand.p99))
}

/// The whole file.
pub fn render(reports: &[Report]) -> String {
    let all = Reports(reports);
    let mut text = HEAD.to_owned();
    machines(&mut text, reports);
    targets(&mut text, &all);
    if all.named("triple").is_some() {
        text.push_str("\n![Three times the knee: offered, confirmed and refused by second](rush.svg)\n");
    }
    runs(&mut text, reports);
    if let Some(knee) = all.named("knee").and_then(|report| report.knee.as_ref()) {
        let demand = knee.demand;
        let _ = writeln!(
            text,
            "\n## The knee\n\nThe highest rate of which {:.0} % is confirmed with p99 within {:.0} ms: {:.0}/s.\n\n\
             | offered/s | confirmed/s | p50 ms | p99 ms | |\n|---|---|---|---|---|",
            demand.share * 100.0,
            demand.p99,
            knee.rate.unwrap_or_default()
        );
        for step in &knee.steps {
            let holds = match (step.held, step.generator_limited) {
                (true, _) => "holds",
                (false, false) => "",
                (false, true) => "generator late",
            };
            let _ = writeln!(
                text,
                "| {:.0} | {:.0} | {:.1} | {:.1} | {holds} |",
                step.rate, step.goodput, step.p50, step.p99
            );
        }
    }
    for name in ["high", "knee", "low"] {
        if let Some(report) = all.named(name) {
            budget(&mut text, name, report);
        }
    }
    text
}

fn machines(text: &mut String, reports: &[Report]) {
    let mut machines: Vec<(String, Vec<&str>)> = Vec::new();
    for report in reports {
        let machine = &report.machine;
        let build = if machine.release { "" } else { ", a DEBUG build" };
        let line = format!("{} cores of {}{build}", machine.cores, machine.model);
        let commit = machine.commit.as_deref().unwrap_or("unknown");
        match machines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, commits)) if commits.contains(&commit) => {}
            Some((_, commits)) => commits.push(commit),
            None => machines.push((line, vec![commit])),
        }
    }
    let lines = machines.iter().map(|(line, commits)| format!("{line}, commit {}", commits.join(" and ")));
    let _ = writeln!(text, "\nMachine: {}.", lines.collect::<Vec<_>>().join("; "));
}

fn targets(text: &mut String, all: &Reports<'_>) {
    text.push_str("\n## Targets\n\n| target | figure | |\n|---|---|---|\n");
    for (name, what, figure) in TARGETS {
        let found = all.named(name).and_then(|report| figure(report, all));
        let (figure, verdict) = match &found {
            Some((figure, true)) => (figure.as_str(), "met"),
            Some((figure, false)) => (figure.as_str(), "**missed**"),
            None => ("", "not run"),
        };
        let _ = writeln!(text, "| {what} | {figure} | {verdict} |");
    }
}

fn runs(text: &mut String, reports: &[Report]) {
    text.push_str(
        "\n## Runs\n\n| run | offered/s | events | confirmed/s | p50 | p99 | p99.9 ms | refused | 429 p99 ms | us a booking | \
         of it generator | MiB at most | mails that wait | audit | generator |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for report in reports {
        let Some(phase) = report.load() else { continue };
        let all = sum(report);
        let mails = report.mails.map_or_else(String::new, |mails| match mails.drain_seconds {
            Some(seconds) => format!("{}, gone in {seconds:.0} s", mails.waiting),
            None => mails.waiting.to_string(),
        });
        let audit = match &report.audit {
            Some(audit) if audit.error.is_none() && audit.violations == 0 => "clean",
            Some(_) => "**not clean**",
            None => "left out",
        };
        let refusal = if phase.refusal.count > 0 { format!("{:.1}", phase.refusal.p99) } else { String::new() };
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {refusal} | {all:.0} | {:.1} | {:.0} | {mails} | {audit} | {} |",
            report.name,
            phase.rate,
            report.plan.events,
            phase.goodput,
            phase.latency.p50,
            phase.latency.p99,
            phase.latency.p999,
            phase.ends.get(REFUSED).copied().unwrap_or(0),
            us(report, OWN),
            memory(report),
            if report.generator.limits.is_empty() { "kept up" } else { "**was the limit**" },
        );
    }
}

/// The most that services, nats-server and the mock payment gateway, which keeps every intent, held together, MiB.
/// PostgreSQL's processes share what each of them shows.
fn memory(report: &Report) -> f64 {
    let ours = |sample: &Sample| {
        let own = sample.memory.iter().filter(|(name, _)| !name.starts_with("postgres") && *name != OWN);
        own.map(|(_, bytes)| *bytes as f64).sum::<f64>()
    };
    report.samples.iter().map(ours).fold(0.0, f64::max) / MIB
}

fn budget(text: &mut String, name: &str, report: &Report) {
    let Some(phase) = report.load() else { return };
    let _ = writeln!(text, "\n## CPU of one booking at {:.0}/s (`{name}`)\n\n| process | us |\n|---|---|", phase.rate);
    for cpu in report.cpu.iter().filter(|cpu| cpu.name != OTHERS && cpu.us_a_booking >= 0.5) {
        let _ = writeln!(text, "| {} | {:.0} |", cpu.name, cpu.us_a_booking);
        if cpu.name == PLATFORM {
            for part in report.threads.iter().filter(|part| part.us_a_booking >= 0.5) {
                let _ = writeln!(text, "| – of it {} | {:.0} |", part.name, part.us_a_booking);
            }
        }
    }
    let _ = writeln!(text, "\nThe machine was {:.0} % busy.", report.busy * 100.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::knee::{Demand, Knee};
    use crate::load::report::{Cpu, Generator, Machine, Percentiles, Plan};

    fn report(name: &str, rate: f64, goodput: f64, p99: f64) -> Report {
        let latency = Percentiles { count: 1, p50: p99 / 2.0, p99, ..Percentiles::default() };
        let (offered, confirmed) = (rate as u64, goodput as u64);
        let phase = Phase { name: "load".into(), rate, offered, confirmed, goodput, latency, ..Phase::default() };
        Report {
            at: String::new(),
            command: String::new(),
            name: name.into(),
            machine: Machine { cores: 2, model: "a | chip".into(), release: true, ..Machine::default() },
            plan: Plan::default(),
            phases: vec![phase],
            seconds: Vec::new(),
            ways: Vec::new(),
            generator: Generator::default(),
            cpu: Vec::new(),
            threads: Vec::new(),
            busy: 0.5,
            samples: Vec::new(),
            steps: Vec::new(),
            audit: None,
            mails: None,
            settled: None,
            knee: None,
            waiting: None,
            slow_gateway: None,
        }
    }

    fn line<'a>(text: &'a str, what: &str) -> &'a str {
        text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what} in {text}"))
    }

    #[test]
    fn a_target_is_met_missed_or_not_run() {
        let text = render(&[report("high", 5_000.0, 4_999.0, 151.0)]);
        assert!(line(&text, "5,000/s held").ends_with("| 4999/s | met |"));
        assert!(line(&text, "5,000/s: p99").ends_with("| 151.0 ms | **missed** |"));
        assert!(line(&text, "1,000/s: p50").ends_with("|  | not run |"));
    }

    #[test]
    fn overload_is_measured_against_the_knee() {
        let mut knee = report("knee", 6_000.0, 6_000.0, 80.0);
        knee.knee = Some(Knee { demand: Demand::default(), steps: Vec::new(), rate: Some(6_000.0) });
        let cpu = |name: &str, us_a_booking| Cpu { name: name.into(), seconds: 0.0, us_a_booking };
        knee.cpu = vec![cpu("eventicket", 280.0), cpu(OWN, 20.0)];
        knee.threads = vec![cpu("gateway", 50.0)];
        let mut triple = report("triple", 18_000.0, 3_000.0, 900.0);
        triple.phases[0].seconds = 1.0;
        triple.cpu = vec![cpu("eventicket", 500.0), cpu(OWN, 50.0)];
        triple.threads = vec![cpu("gateway", 250.0)];
        let text = render(&[triple, knee]);
        assert!(line(&text, "goodput at least 70 %").ends_with("| 3000/s, 50 % of 6000/s | **missed** |"));
        // 230 us for each of 3,000, at 300 us a booking.
        assert!(line(&text, "what refusals").ends_with("| 3000/s and 2300/s, 88 % of 6000/s | **missed** |"));
        assert!(line(&text, "p99 under 1 s").ends_with("met |"));
    }

    #[test]
    fn traces_are_judged_by_the_medians_of_pairs() {
        let run = |name: &str, goodput| report(name, 4_000.0, goodput, 90.0);
        let mut runs = vec![run("untraced", 3_000.0), run("traced", 2_800.0), run("untraced", 3_200.0)];
        runs.push(run("traced", 3_300.0));
        assert!(line(&render(&runs), "traces of").contains("| 3050/s with, 3100/s without"));
        assert!(line(&render(&runs), "traces of").ends_with("| met |"));
        assert!(line(&render(&runs[..3]), "traces of").ends_with("| **missed** |"));
        assert!(line(&render(&runs[..1]), "traces of").ends_with("|  | not run |"));
    }

    #[test]
    fn a_process_is_told_with_its_parts() {
        let mut low = report("low", 1_000.0, 1_000.0, 50.0);
        low.cpu =
            [PLATFORM, "nats-server"].map(|name| Cpu { name: name.into(), seconds: 0.0, us_a_booking: 80.0 }).into();
        low.threads = vec![Cpu { name: "payments".into(), seconds: 0.0, us_a_booking: 30.4 }];
        assert!(render(&[low]).contains("| eventicket | 80 |\n| – of it payments | 30 |\n| nats-server | 80 |\n"));
    }

    #[test]
    fn a_machine_is_named_once_with_all_its_commits() {
        let of = |commit: &str| {
            let mut report = report("low", 1_000.0, 1_000.0, 50.0);
            report.machine.commit = Some(commit.into());
            report
        };
        let text = render(&[of("a1"), of("b2"), of("a1")]);
        assert!(line(&text, "Machine:").ends_with("2 cores of a | chip, commit a1 and b2."));
    }

    #[test]
    fn reports_survive_their_file() {
        let text = serde_json::to_string(&report("low", 1_000.0, 1_000.0, 50.0)).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(render(&[read]), render(&[report("low", 1_000.0, 1_000.0, 50.0)]));
    }
}
