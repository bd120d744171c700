//! The report as one HTML file: what the terminal shows, and charts of what happened meanwhile. It loads nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::svg::{Chart, Series, escape};
use super::{Report, Second, text};
use crate::load::watch::Sample;

/// Cores below which a process is left out of the charts.
const LITTLE: f64 = 0.02;
/// Bytes.
pub const MIB: f64 = 1_048_576.0;
const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222}\
    pre{background:#f5f5f5;padding:1em;overflow-x:auto;font-size:13px}svg{width:100%;height:auto;margin:.6em 0}";

/// The whole file.
pub fn render(report: &Report) -> String {
    let title = if report.name.is_empty() { "Load" } else { &report.name };
    let charts: String = charts(report).iter().map(Chart::render).collect();
    let machine = &report.machine;
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1>\n<p>{} on {} cores of {}, version {}{}<br><code>eventicket {}</code></p>\n<pre>{}</pre>\n{charts}</body></html>\n",
        escape(&report.at),
        machine.cores,
        escape(&machine.model),
        escape(&machine.version),
        machine.commit.as_ref().map(|commit| format!(", commit {}", escape(commit))).unwrap_or_default(),
        escape(&report.command),
        escape(&text::render(report)),
        title = escape(title),
    )
}

/// The charts in their order.
pub fn charts(report: &Report) -> Vec<Chart> {
    let samples = &report.samples;
    let mib = |sample: &Sample| sample.memory.iter().map(|(name, bytes)| (name.clone(), *bytes as f64 / MIB)).collect();
    let queues = |sample: &Sample| sample.queues.iter().map(|(name, count)| (name.clone(), *count as f64)).collect();
    let in_flight =
        |sample: &Sample| sample.in_flight.iter().map(|(name, count)| (name.clone(), *count as f64)).collect();
    vec![
        throughput(&report.seconds),
        latency(&report.seconds),
        sampled("Commands in flight", "commands", samples, 0.0, in_flight),
        sampled("Queue lengths", "messages", samples, 0.0, queues),
        sampled("CPU by process", "cores", samples, LITTLE, |sample| sample.cores.clone()),
        sampled("Memory by process", "MiB", samples, 0.0, mib),
    ]
}

/// Bookings offered, confirmed and refused.
pub fn throughput(seconds: &[Second]) -> Chart {
    // The last second is a part of one.
    let seconds = &seconds[..seconds.len().saturating_sub(1)];
    let one = |name: &str, count: fn(&Second) -> u32| Series {
        name: name.to_owned(),
        points: seconds.iter().map(|second| (second.at, f64::from(count(second)))).collect(),
    };
    let all = vec![
        one("offered", |s| s.offered),
        one("confirmed", |s| s.confirmed),
        one("refused", |s| s.refused),
        one("ended otherwise", |s| s.other),
    ];
    let series = all.into_iter().filter(|series| series.points.iter().any(|(_, y)| *y > 0.0)).collect();
    Chart { title: "Throughput".to_owned(), unit: "bookings/s", series }
}

/// Latencies by the second of the intended start.
pub fn latency(seconds: &[Second]) -> Chart {
    let one = |name: &str, value: fn(&Second) -> f64| Series {
        name: name.to_owned(),
        points: seconds.iter().filter(|second| second.p50 > 0.0).map(|second| (second.at, value(second))).collect(),
    };
    let series = vec![one("p50", |s| s.p50), one("p99", |s| s.p99), one("longest", |s| s.max)];
    Chart { title: "From the intended start to confirmed".to_owned(), unit: "ms", series }
}

/// A line for each name that the samples have; those that never exceed `least` are left out.
fn sampled(
    title: &str,
    unit: &'static str,
    samples: &[Sample],
    least: f64,
    values: impl Fn(&Sample) -> BTreeMap<String, f64>,
) -> Chart {
    let all: Vec<(f64, BTreeMap<String, f64>)> = samples.iter().map(|sample| (sample.at, values(sample))).collect();
    let names: BTreeSet<&String> = all.iter().flat_map(|(_, values)| values.keys()).collect();
    let one = |name: &String| Series {
        name: name.clone(),
        points: all.iter().filter_map(|(at, values)| Some((*at, *values.get(name)?))).collect(),
    };
    let most = |series: &Series| series.points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
    let mut series: Vec<Series> = names.into_iter().map(one).filter(|series| most(series) > least).collect();
    series.sort_by(|a, b| most(b).total_cmp(&most(a)));
    // As many as the legend has room for.
    series.truncate(13);
    Chart { title: title.to_owned(), unit, series }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, cores: &[(&str, f64)]) -> Sample {
        let cores = cores.iter().map(|&(name, cores)| (name.to_owned(), cores)).collect();
        Sample { at, cores, ..Sample::default() }
    }

    #[test]
    fn processes_are_drawn_largest_first_without_the_idle_ones() {
        let samples = [sample(1.0, &[("a", 0.1), ("b", 0.5), ("c", 0.001)]), sample(2.0, &[("a", 0.2)])];
        let chart = sampled("CPU", "cores", &samples, LITTLE, |sample| sample.cores.clone());
        let drawn: Vec<_> = chart.series.iter().map(|s| (s.name.as_str(), s.points.len())).collect();
        assert_eq!(drawn, [("b", 1), ("a", 2)]);
    }

    #[test]
    fn throughput_leaves_out_what_never_happened() {
        let second = |at| Second { at, offered: 10, confirmed: 9, ..Second::default() };
        let chart = throughput(&[second(0.0), second(1.0), second(2.0)]);
        let names: Vec<_> = chart.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!((names, chart.series[0].points.len()), (vec!["offered", "confirmed"], 2));
    }
}
