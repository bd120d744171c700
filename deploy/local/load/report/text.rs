//! The report on a terminal.

use std::fmt::Write as _;

use super::{Cpu, OWN, Percentiles, Phase, Report};
use crate::load::knee;
use crate::load::watch::processes::OTHERS;

/// A rate that was tried.
pub fn knee_step(step: &knee::Step) -> String {
    format!(
        "{:>8.0}/s offered  {:>8.0}/s confirmed  p50 {:>8.1} ms  p99 {:>8.1} ms  {}{}",
        step.rate,
        step.goodput,
        step.p50,
        step.p99,
        if step.held { "holds" } else { "does not hold" },
        if step.generator_limited { ", the generator was late" } else { "" }
    )
}

/// Everything that matters of a run, in under a screen.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    if let Some(knee) = &report.knee {
        for step in &knee.steps {
            let _ = writeln!(text, "{}", knee_step(step));
        }
        let _ = writeln!(text, "the highest rate that holds: {:.0}/s\n", knee.rate.unwrap_or_default());
    }
    for phase in &report.phases {
        phase_lines(&mut text, phase);
    }
    if report.ways.len() > 1 {
        ways(&mut text, report);
    }
    if !report.steps.is_empty() {
        let _ = writeln!(text, "\n{:<24} {:>8} {:>8} {:>8}", "step, ms", "p50", "p99", "max");
        for step in &report.steps {
            let l = step.latency;
            let _ = writeln!(text, "{:<24} {:>8.1} {:>8.1} {:>8.1}", step.name, l.p50, l.p99, l.max);
        }
    }
    cpu(&mut text, report);
    after(&mut text, report);
    generator(&mut text, report);
    text.trim_end().to_owned()
}

fn phase_lines(text: &mut String, phase: &Phase) {
    let _ = writeln!(
        text,
        "{}: {:.0}/s offered for {:.0} s, {:.0}/s confirmed; of {} bookings {}",
        phase.name,
        phase.rate,
        phase.seconds,
        phase.goodput,
        phase.offered,
        phase.ends.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", "),
    );
    latencies(text, "start to confirmed", phase.latency);
    latencies(text, "start to 429", phase.refusal);
    latencies(text, "request to 429", phase.refusal_wire);
    latencies(text, "start to 503", phase.unavailable);
    if phase.without_retry_after > 0 {
        let _ = writeln!(text, "  {} answers 429 had no Retry-After", phase.without_retry_after);
    }
    if phase.unexpected > 0 {
        let _ = writeln!(text, "  {} bookings ended otherwise than they must", phase.unexpected);
    }
}

fn latencies(text: &mut String, what: &str, l: Percentiles) {
    if l.count > 0 {
        let _ = writeln!(
            text,
            "  {what:<20} ms: p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
            l.p50, l.p90, l.p99, l.p999, l.max
        );
    }
}

fn ways(text: &mut String, report: &Report) {
    let head = ["bookings", "as must", "else", "p50 ms", "p99 ms"];
    let _ = write!(text, "\n{:<24}", "customers");
    for name in head {
        let _ = write!(text, " {name:>9}");
    }
    text.push('\n');
    for way in &report.ways {
        let l = way.latency;
        let _ = writeln!(
            text,
            "{:<24} {:>9} {:>9} {:>9} {:>9.1} {:>9.1}",
            way.name, way.offered, way.expected, way.unexpected, l.p50, l.p99
        );
    }
}

/// CPU by process; what is not the platform's and not the generator's stands below the sum.
fn cpu(text: &mut String, report: &Report) {
    let _ = writeln!(text, "\n{:<30} {:>8} {:>13}", "CPU", "seconds", "us a booking");
    let row = |text: &mut String, cpu: &Cpu| {
        let _ = writeln!(text, "{:<30} {:>8.2} {:>13.1}", cpu.name, cpu.seconds, cpu.us_a_booking);
    };
    let (others, own): (Vec<_>, Vec<_>) = report.cpu.iter().partition(|cpu| cpu.name == OTHERS);
    own.iter().filter(|cpu| cpu.us_a_booking >= 0.05).for_each(|cpu| row(text, cpu));
    let all = Cpu {
        name: "all of these".to_owned(),
        seconds: own.iter().map(|cpu| cpu.seconds).sum(),
        us_a_booking: own.iter().map(|cpu| cpu.us_a_booking).sum(),
    };
    row(text, &all);
    others.iter().for_each(|cpu| row(text, cpu));
    let threads: Vec<_> = report.threads.iter().filter(|thread| thread.us_a_booking >= 0.5).collect();
    // Of one name only, they tell no more than their process.
    if threads.len() > 1 {
        text.push_str("threads of eventicket\n");
        threads.iter().for_each(|thread| row(text, thread));
    }
    let _ =
        writeln!(text, "{} cores of {}, {:.0} % busy", report.machine.cores, report.machine.model, report.busy * 100.0);
}

fn after(text: &mut String, report: &Report) {
    if let Some(settled) = &report.settled {
        let _ = match settled.after {
            Some(after) => {
                writeln!(text, "normal again {after:.2} s after the rush (p99 {:.1} ms before it)", settled.normal)
            }
            None => writeln!(text, "NOT normal again in the time (p99 {:.1} ms before the rush)", settled.normal),
        };
    }
    if let Some(mails) = report.mails {
        let drained = match mails.drain_seconds {
            Some(seconds) if mails.measured => format!("gone after {seconds:.0} s"),
            Some(seconds) => format!("gone in {seconds:.0} s at this rate"),
            None => "none of them left meanwhile".to_owned(),
        };
        let _ = writeln!(text, "{} mails wait, {:.0}/s leave: {drained}", mails.waiting, mails.rate);
    }
    match &report.audit {
        Some(audit) => {
            let _ = match &audit.error {
                Some(error) => writeln!(text, "audit: {error}"),
                None if audit.violations > 0 => writeln!(text, "audit: {} VIOLATION(S)", audit.violations),
                None => writeln!(text, "audit: clean, {} warning(s)", audit.warnings),
            };
        }
        None => text.push_str("not audited\n"),
    }
}

fn generator(text: &mut String, report: &Report) {
    let own = &report.generator;
    let cost = report.cpu.iter().find(|cpu| cpu.name == OWN).map_or(0.0, |cpu| cpu.us_a_booking);
    let _ = writeln!(
        text,
        "generator: {cost:.1} us a booking, {:.1} us a request of its thread, which used {:.0} % of a core; {} connections; \
         its starts left late by p50 {:.1}, p99 {:.1}, max {:.1} ms",
        own.us_a_request,
        own.busy * 100.0,
        own.connections,
        own.lag.p50,
        own.lag.p99,
        own.lag.max
    );
    for limit in &own.limits {
        let _ = writeln!(text, "THE GENERATOR WAS THE LIMIT: {limit}");
    }
    if !report.machine.release {
        text.push_str("this is a debug build: its figures say nothing about speed\n");
    }
}
