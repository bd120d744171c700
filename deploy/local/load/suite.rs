//! The runs that `tests/load` is made of, one after the other on a running platform. Each writes its report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::LOAD;
use super::knee::Demand;
use super::order::Order;
use super::report::{Report, SlowGateway, Waiting, html, text};
use super::rush;
use super::schedule::{Phase, Schedule};
use super::tally::Tally;
use super::trial::Trial;
use super::watch::Sample;
use super::watch::metrics::SAGAS_COMPENSATED;
use crate::output;

/// The share of the knee at which numbers of events are compared.
const BELOW_KNEE: f64 = 0.7;
/// How long a rate is tried when the knee is looked for.
const KNEE_STEP: Duration = Duration::from_secs(15);
/// How long it is looked whether all is normal after a rush.
const SETTLE: Duration = Duration::from_secs(15);
/// The slow payment gateway's latency, and the bookings by card beside the free ones.
const SLOW_MS: u64 = 2_000;
const SLOW_RATE: f64 = 100.0;
/// Before the first of the sagas that wait expires: time to compare, and until the load stands that must not notice.
const MARGIN: Duration = Duration::from_secs(20);
/// After they are made, until what made them is worked off.
const CALM: Duration = Duration::from_secs(5);

/// A run of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Run {
    /// How long mails wait.
    Mails,
    /// A rate that every platform should hold.
    Low,
    /// The rate that is asked for.
    High,
    /// The highest rate that holds.
    Knee,
    /// Ten events at once.
    TenEvents,
    /// A thousand events at once.
    ThousandEvents,
    /// One and a half times the knee.
    Overload,
    /// Three times the knee.
    Triple,
    /// Free events while the payment gateway is slow.
    SlowGateway,
    /// Very many bookings that wait, and expire together.
    Waiting,
    /// All kinds of customers.
    Realistic,
}

impl Run {
    /// In the order in which they are run: mails before those that leave very many, the knee before those that need it.
    pub const ALL: [Self; 11] = [
        Self::Mails,
        Self::Low,
        Self::High,
        Self::Knee,
        Self::TenEvents,
        Self::ThousandEvents,
        Self::Overload,
        Self::Triple,
        Self::SlowGateway,
        Self::Waiting,
        Self::Realistic,
    ];

    /// As its file is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mails => "mails",
            Self::Low => "low",
            Self::High => "high",
            Self::Knee => "knee",
            Self::TenEvents => "ten-events",
            Self::ThousandEvents => "thousand-events",
            Self::Overload => "overload",
            Self::Triple => "triple",
            Self::SlowGateway => "slow-gateway",
            Self::Waiting => "waiting",
            Self::Realistic => "realistic",
        }
    }
}

/// Rates and lengths.
#[derive(Clone, Debug)]
pub struct Suite {
    /// What all runs have in common.
    pub order: Order,
    /// Where the platform is.
    pub home: PathBuf,
    /// Where reports go.
    pub out: PathBuf,
    /// Length of a run.
    pub duration: Duration,
    /// The low rate.
    pub low: f64,
    /// The high rate.
    pub high: f64,
    /// Sagas that wait.
    pub waiting: u64,
}

impl Suite {
    /// Runs one of them, and writes its report.
    ///
    /// # Errors
    /// It cannot be run, or its report cannot be written.
    pub async fn run(&self, run: Run) -> anyhow::Result<Report> {
        output::line(&format!("== {}", run.name()));
        let mut report = match run {
            Run::Low => self.steady(&self.order.at(self.low)).await?,
            Run::High => self.steady(&self.order.at(self.high)).await?,
            Run::Knee => {
                let order = self.order.at(self.high * 2.0);
                let mut trial = order.prepare(&self.home).await?;
                let report = trial.find_knee(self.low * 2.0, KNEE_STEP, Demand::default()).await?;
                self.audited(&trial, report).await
            }
            Run::TenEvents => self.steady(&self.order.at(self.knee()? * BELOW_KNEE).on(10)).await?,
            Run::ThousandEvents => self.steady(&self.order.at(self.knee()? * BELOW_KNEE).on(1_000)).await?,
            Run::Overload => self.rush(self.knee()?, 1.5).await?,
            Run::Triple => self.rush(self.knee()?, 3.0).await?,
            Run::SlowGateway => self.slow_gateway().await?,
            Run::Waiting => self.waiting().await?,
            Run::Realistic => {
                let hold = Duration::from_secs(20);
                let mut order = self.order.at(self.low / 2.0);
                order.mix = super::mix::Mix::Realistic;
                order.offer.hold = hold;
                self.steady(&order).await?
            }
            Run::Mails => {
                let order = self.order.at(self.low);
                let mut trial = order.prepare(&self.home).await?;
                let (mut report, _) = trial.run(&Schedule::steady(order.rate, Duration::from_secs(10))).await?;
                report.mails = trial.mails(true).await;
                self.audited(&trial, report).await
            }
        };
        run.name().clone_into(&mut report.name);
        output::line(&text::render(&report));
        self.write(&report)?;
        Ok(report)
    }

    async fn steady(&self, order: &Order) -> anyhow::Result<Report> {
        let mut trial = order.prepare(&self.home).await?;
        let (mut report, tally) = trial.run(&Schedule::steady(order.rate, self.duration)).await?;
        report.steps = trial.steps(&tally.samples).await;
        report.mails = trial.mails(false).await;
        Ok(self.audited(&trial, report).await)
    }

    async fn rush(&self, knee: f64, factor: f64) -> anyhow::Result<Report> {
        let order = self.order.at(knee * factor);
        let mut trial = order.prepare(&self.home).await?;
        let schedule = rush::schedule(knee / 2.0, knee * factor, self.duration, SETTLE);
        let (mut report, tally) = trial.run(&schedule).await?;
        report.settled = rush::settled(&schedule, &tally);
        report.mails = trial.mails(false).await;
        Ok(self.audited(&trial, report).await)
    }

    /// The same free and paid bookings three times: beside a quick payment gateway, a slow one, and a quick one again, since
    /// the machine changes meanwhile.
    async fn slow_gateway(&self) -> anyhow::Result<Report> {
        let (free, paid) = (self.order.at(self.low).free(), self.order.at(SLOW_RATE));
        let (mut trial, mut beside) = (free.prepare(&self.home).await?, paid.prepare(&self.home).await?);
        let before = self.free_beside(&mut trial, &mut beside).await?;
        set_latency(&trial, SLOW_MS).await?;
        let measured = self.free_beside(&mut trial, &mut beside).await;
        set_latency(&trial, 0).await?;
        let mut report = measured?;
        let after = self.free_beside(&mut trial, &mut beside).await?;
        let p99 = |report: &Report| report.load().map_or(0.0, |phase| phase.latency.p99);
        report.slow_gateway = Some(SlowGateway {
            latency_ms: SLOW_MS,
            paid_rate: SLOW_RATE,
            p99_before: p99(&before),
            p99_beside: p99(&report),
            p99_after: p99(&after),
        });
        Ok(self.audited(&trial, report).await)
    }

    /// Runs one beside another, which begins first and ends last.
    async fn free_beside(&self, trial: &mut Trial, other: &mut Trial) -> anyhow::Result<Report> {
        let lead = Duration::from_secs(5);
        let longer = Schedule::steady(SLOW_RATE, self.duration + lead * 2);
        let schedule = Schedule::steady(self.low, self.duration);
        let later = async {
            tokio::time::sleep(lead).await;
            trial.run(&schedule).await
        };
        let (beside, measured) = tokio::join!(other.run(&longer), later);
        beside?;
        Ok(measured?.0)
    }

    async fn waiting(&self) -> anyhow::Result<Report> {
        let rate = self.low;
        let mut plain = self.order.at(rate).prepare(&self.home).await?;
        let (before, _) = plain.run(&Schedule::steady(rate, self.duration)).await?;
        let seconds = (self.waiting as f64 / self.high).ceil().max(1.0) as u32;
        let fill = self.order.at((self.waiting as f64 / f64::from(seconds)).floor());
        let filling = Duration::from_secs(seconds.into());
        let hold = filling + MARGIN + self.duration;
        let mut filler = fill.waiting(seconds, hold).prepare(&self.home).await?;
        let begun = tokio::time::Instant::now();
        let (filled, _) = filler.run(&Schedule::steady(fill.rate, filling)).await?;
        let sagas = filled.phases.iter().filter_map(|phase| phase.ends.get("awaiting_payment")).sum();
        tokio::time::sleep(CALM).await;
        let (with, _) = plain.run(&Schedule::steady(rate, self.duration / 2)).await?;
        let left = (begun + hold).saturating_duration_since(tokio::time::Instant::now());
        ensure!(left > Duration::ZERO, "the sagas expired before they could be watched");
        // A second before they expire, until they are worked off even at a slow rate.
        tokio::time::sleep(left.saturating_sub(Duration::from_secs(1))).await;
        let schedule = Schedule { phases: vec![Phase::new(LOAD, rate, self.duration)] };
        let (mut report, tally): (Report, Tally) = plain.run(&schedule).await?;
        let p99 = |report: &Report| report.load().map_or(0.0, |phase| phase.latency.p99);
        report.steps = plain.steps(&tally.samples).await;
        report.waiting = Some(Waiting {
            sagas,
            p99_before: p99(&before),
            p99_with: p99(&with),
            p99_meanwhile: p99(&report),
            expired_a_second: worked_off(&report.samples).unwrap_or_default(),
        });
        Ok(self.audited(&plain, report).await)
    }

    async fn audited(&self, trial: &Trial, mut report: Report) -> Report {
        report.audit = trial.audit().await;
        report
    }

    /// The knee that a run before this one found.
    fn knee(&self) -> anyhow::Result<f64> {
        let file = self.file(Run::Knee.name(), "json");
        let report = read(&file).context("the knee must be found first: run `knee`")?;
        report.knee.and_then(|knee| knee.rate).context("no rate held")
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.out.join(format!("{name}.{kind}"))
    }

    fn write(&self, report: &Report) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        std::fs::write(self.file(&report.name, "json"), serde_json::to_string(report)? + "\n")?;
        std::fs::write(self.file(&report.name, "html"), html::render(report))?;
        Ok(())
    }
}

/// Reads a report.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read(file: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no report", file.display()))
}

/// Sets how long each change at the mock payment gateway takes.
async fn set_latency(trial: &Trial, ms: u64) -> anyhow::Result<()> {
    let local = trial.local.as_ref().context("the payment gateway's settings are not ours to change")?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let at = format!("{}/test/settings", local.platform.payment_gateway_url);
    let asked = http.post(at).bearer_auth(&local.settings.payment_gateway_key).json(&json!({"latency_ms": ms}));
    asked.send().await?.error_for_status().context("the mock payment gateway does not take the latency")?;
    Ok(())
}

/// Compensated sagas a second between the first and the last second in which some were; none where there were none.
fn worked_off(samples: &[Sample]) -> Option<f64> {
    let counts: Vec<(f64, f64)> =
        samples.iter().filter_map(|sample| Some((sample.at, *sample.metrics.get(SAGAS_COMPENSATED)?))).collect();
    let rising = |pair: &[(f64, f64)]| pair[1].1 > pair[0].1;
    let first = counts.windows(2).position(rising)?;
    let last = counts.windows(2).rposition(rising)? + 1;
    let (begin, end) = (counts[first], counts[last]);
    Some((end.1 - begin.1) / (end.0 - begin.0).max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, compensated: f64) -> Sample {
        let metrics = [(SAGAS_COMPENSATED.to_owned(), compensated)].into();
        Sample { at, metrics, ..Sample::default() }
    }

    #[test]
    fn expiries_are_counted_from_the_first_to_the_last() {
        let counts = [7.0, 7.0, 4_007.0, 10_007.0, 10_007.0];
        let samples: Vec<_> = counts.iter().zip(1..).map(|(&count, at)| sample(f64::from(at), count)).collect();
        assert_eq!(worked_off(&samples), Some(5_000.0));
        assert_eq!(worked_off(&samples[..2]), None);
    }

    #[test]
    fn every_run_has_a_file_of_its_own_and_the_knee_comes_before_what_needs_it() {
        let names: std::collections::BTreeSet<_> = Run::ALL.iter().map(|run| run.name()).collect();
        assert_eq!(names.len(), Run::ALL.len());
        let at = |run| Run::ALL.iter().position(|other| *other == run).unwrap();
        assert!(
            [Run::TenEvents, Run::ThousandEvents, Run::Overload, Run::Triple]
                .iter()
                .all(|run| at(*run) > at(Run::Knee))
        );
    }
}
