//! What is written about a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::customers;
use crate::faults::{Fault, Kind, Target};
use crate::order::Order;

/// The figures stand between these lines of the README.
const MARKS: [&str; 2] = ["<!-- figures: tests/chaos/run --readme -->", "<!-- end of figures -->"];
const README: &str = "tests/chaos/README.md";
/// Of what is wrong; JSON has all.
const SHOWN: usize = 40;

/// What became of one fault.
pub struct Outcome {
    /// As it was drawn.
    pub fault: Fault,
    /// When it began, since the load did.
    pub at: Duration,
    /// What exactly was struck.
    pub struck: String,
    /// From its beginning, or where it lasts from its end, to full speed; `None` where that did not come back in time.
    pub full_after: Option<Duration>,
}

impl Outcome {
    /// One line of the timeline.
    pub fn line(&self) -> String {
        let Self { fault, at, struck, full_after } = self;
        let full = full_after
            .map_or("no full speed".to_owned(), |after| format!("full speed after {:.1} s", after.as_secs_f64()));
        format!("{:>7.1} s  {fault} [{struck}]: {full}", at.as_secs_f64())
    }
}

/// A run.
pub struct Report {
    pub seed: u64,
    /// Bookings a second.
    pub rate: f64,
    /// Confirmed bookings a second, over the whole run.
    pub confirmed: f64,
    pub outcomes: Vec<Outcome>,
    /// How bookings ended, by what their customers did.
    pub ends: BTreeMap<(customers::Kind, &'static str), usize>,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// Times to full speed of one kind of fault, in order.
struct Row {
    kind: Kind,
    target: Target,
    times: Vec<Duration>,
}

impl Row {
    fn median(&self) -> f64 {
        self.times.get((self.times.len().max(1) - 1) / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }

    fn max(&self) -> f64 {
        self.times.last().map_or(f64::NAN, Duration::as_secs_f64)
    }
}

impl Report {
    fn rows(&self) -> Vec<Row> {
        let mut by_kind: BTreeMap<(Kind, Target), Vec<Duration>> = BTreeMap::new();
        for outcome in &self.outcomes {
            by_kind.entry((outcome.fault.kind, outcome.fault.target)).or_default().extend(outcome.full_after);
        }
        let row = |((kind, target), mut times): (_, Vec<Duration>)| {
            times.sort_unstable();
            Row { kind, target, times }
        };
        by_kind.into_iter().map(row).collect()
    }

    fn bookings(&self) -> usize {
        self.ends.values().sum()
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{:<32} {:<14} {:>3} {:>8} {:>8}\n", "FAULT", "OF", "N", "MEDIAN s", "MAX s");
        for row in self.rows() {
            let (kind, target, n) = (row.kind.name(), row.target.name(), row.times.len());
            let _ = writeln!(text, "{kind:<32} {target:<14} {n:>3} {:>8.1} {:>8.1}", row.median(), row.max());
        }
        for ((kind, end), count) in &self.ends {
            let _ = writeln!(text, "{count:>9}  {end:<12} {kind:?}");
        }
        let _ = write!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        format!(
            "seed {}, {} faults, {} bookings at {} a second, {:.0} confirmed a second over the whole run, {} contradictions",
            self.seed,
            self.outcomes.len(),
            self.bookings(),
            self.rate,
            self.confirmed,
            self.wrong.len(),
        )
    }

    /// What happened, and what is wrong with it.
    pub fn story(&self) -> String {
        let mut lines: Vec<String> = self.outcomes.iter().map(Outcome::line).collect();
        lines.extend(self.wrong.iter().take(SHOWN).cloned());
        if self.wrong.len() > SHOWN {
            lines.push(format!("... and {} more", self.wrong.len() - SHOWN));
        }
        lines.push(self.summary());
        lines.join("\n")
    }

    /// Writes what the order asks for.
    pub fn write(&self, order: &Order) -> anyhow::Result<()> {
        if let Some(path) = &order.json {
            let text = serde_json::to_string_pretty(&self.json())? + "\n";
            std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        if order.readme && self.wrong.is_empty() {
            let readme = std::fs::read_to_string(README).with_context(|| format!("{README} cannot be read"))?;
            let readme =
                between(&readme, &self.figures()).with_context(|| format!("{README} has no place for figures"))?;
            std::fs::write(Path::new(README), readme)?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let outcome = |o: &Outcome| {
            json!({
                "kind": o.fault.kind, "target": o.fault.target.name(), "struck": o.struck,
                "at_s": o.at.as_secs_f64(), "lasts_s": o.fault.lasts.as_secs_f64(),
                "full_speed_after_s": o.full_after.map(|after| after.as_secs_f64()),
            })
        };
        let end = |((kind, end), count): (&(customers::Kind, &str), &usize)| json!({"customer": format!("{kind:?}"), "end": end, "bookings": count});
        json!({
            "seed": self.seed, "rate": self.rate, "confirmed_per_second": self.confirmed, "commit": commit(), "machine": machine(),
            "bookings": self.bookings(),
            "faults": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
            "ends": self.ends.iter().map(end).collect::<Vec<_>>(),
            "wrong": self.wrong,
        })
    }

    /// For the README.
    fn figures(&self) -> String {
        let mut text = format!("{}.\n{}, commit {}.\n\n", self.summary(), machine(), commit());
        text.push_str("| fault | of | n | median s | max s |\n|---|---|---|---|---|\n");
        for row in self.rows() {
            let (kind, target, n) = (row.kind.name(), row.target.name(), row.times.len());
            let _ = writeln!(text, "| {kind} | {target} | {n} | {:.1} | {:.1} |", row.median(), row.max());
        }
        text
    }
}

/// The text with other figures between the marks.
fn between(readme: &str, figures: &str) -> Option<String> {
    let (before, rest) = readme.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n\n{figures}\n{}{after}", MARKS[0], MARKS[1]))
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    format!("{cores} cores, {}", model.map_or("of an unknown kind", |(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::draw;

    fn report(times: &[(usize, u64)]) -> Report {
        let faults = draw(1, 80);
        let outcome = |&(fault, seconds): &(usize, u64)| Outcome {
            fault: faults[fault],
            at: Duration::ZERO,
            struck: "it".to_owned(),
            full_after: Some(Duration::from_secs(seconds)),
        };
        let outcomes = times.iter().map(outcome).collect();
        Report { seed: 1, rate: 60.0, confirmed: 50.0, outcomes, ends: BTreeMap::new(), wrong: Vec::new() }
    }

    #[test]
    fn the_table_has_median_and_worst_of_each_kind() {
        let rows = report(&[(0, 9), (0, 1), (0, 2), (1, 4)]).rows();
        let mut figures: Vec<_> = rows.iter().map(|row| (row.times.len(), row.median(), row.max())).collect();
        figures.sort_by_key(|figure| figure.0);
        assert_eq!(figures, [(1, 4.0, 4.0), (3, 2.0, 9.0)]);
    }

    #[test]
    fn figures_take_the_place_of_earlier_ones() {
        let readme = format!("before\n{}\nold\n{}\nafter\n", MARKS[0], MARKS[1]);
        let new = between(&readme, "new\n").unwrap();
        assert_eq!(new, format!("before\n{}\n\nnew\n\n{}\nafter\n", MARKS[0], MARKS[1]));
        assert_eq!(between(&new, "new\n").unwrap(), new);
        assert_eq!(between("nothing", "new"), None);
    }
}
