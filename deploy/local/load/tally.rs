//! What is counted while a run goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use eventicket_contracts::sagas::BookingStatus;
use hdrhistogram::Histogram;

use super::story::{Answer, Kind};
use super::wire::ID;

/// Length of a window.
pub const WINDOW: Duration = Duration::from_millis(250);
/// A start that leaves later than this is the generator's fault.
pub const LATE: Duration = Duration::from_millis(10);
/// Longest latency that is told apart, microseconds.
const LONGEST: u64 = 120_000_000;
/// Bookings that are remembered, so that their sagas' histories can be read.
const SAMPLES: u64 = 200;

/// A histogram of microseconds.
#[derive(Clone)]
pub struct Latencies(Histogram<u32>);

impl Latencies {
    /// Empty, with so many significant digits.
    fn new(digits: u8) -> Self {
        // These bounds are fine, and an empty one of the default bounds would only resize itself.
        Self(
            Histogram::new_with_bounds(1, LONGEST, digits).unwrap_or_else(|_| unreachable!("the bounds are constants")),
        )
    }

    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
    }

    /// Adds those of another one.
    pub fn add(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }

    /// Microseconds below which the share of them is, up to 1; 0 where there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(share) }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// Three digits, for a whole run.
impl Default for Latencies {
    fn default() -> Self {
        Self::new(3)
    }
}

/// What became of the bookings of a phase.
#[derive(Clone, Default)]
pub struct Phase {
    /// Begun.
    pub offered: u64,
    /// By how they ended.
    pub ends: BTreeMap<String, u64>,
    /// Of those that ended otherwise than their kind must, refusals apart.
    pub unexpected: u64,
    /// From the intended start to `confirmed`, of the prompt kinds.
    pub confirmed: Latencies,
    /// From the intended start to 429.
    pub refused: Latencies,
    /// From the request to 429: without the generator's own lag.
    pub refused_wire: Latencies,
    /// 429 without `Retry-After`.
    pub without_retry_after: u64,
    /// From the intended start to 503.
    pub unavailable: Latencies,
}

impl Phase {
    /// Those that ended so.
    pub fn ended(&self, name: &str) -> u64 {
        self.ends.get(name).copied().unwrap_or(0)
    }
}

/// What happened in a quarter of a second.
#[derive(Clone)]
pub struct Window {
    /// Bookings that were to begin in it.
    pub offered: u32,
    /// Confirmed in it, whenever they began.
    pub confirmed: u32,
    /// Refused with 429 in it.
    pub refused: u32,
    /// Ended otherwise in it.
    pub other: u32,
    /// Latencies of the prompt kinds that were to begin in it and were confirmed.
    pub latencies: Latencies,
}

impl Default for Window {
    fn default() -> Self {
        Self { offered: 0, confirmed: 0, refused: 0, other: 0, latencies: Latencies::new(2) }
    }
}

/// What became of a kind of customers.
#[derive(Clone, Default)]
pub struct Way {
    /// Begun.
    pub offered: u64,
    /// Ended as they must.
    pub expected: u64,
    /// Ended otherwise, refusals and 503 apart.
    pub unexpected: u64,
    /// From the last thing that the customer did to its end.
    pub latencies: Latencies,
}

/// How the generator itself did.
#[derive(Clone, Default)]
pub struct Own {
    /// From the intended start to the moment that the request was handed to the kernel.
    pub lag: Latencies,
    /// Starts beyond [`LATE`].
    pub late: u64,
    /// Starts that found all connections in use.
    pub without_connection: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// CPU seconds of the generator's thread.
    pub cpu: f64,
}

/// Everything that is counted.
#[derive(Clone)]
pub struct Tally {
    /// By phase.
    pub phases: Vec<Phase>,
    /// From the beginning, without a gap.
    pub windows: Vec<Window>,
    /// By kind, as [`Kind::ALL`].
    pub ways: Vec<Way>,
    /// The generator.
    pub own: Own,
    /// Ids of some bookings of plain customers.
    pub samples: Vec<[u8; ID]>,
    /// Every so manieth booking is one of them.
    stride: u64,
    /// From the first start to the last end.
    pub elapsed: Duration,
}

/// A booking at its end.
pub struct Ended {
    /// What its customer did.
    pub kind: Kind,
    /// When it was to begin.
    pub phase: usize,
    /// From the beginning of the run, when its booking was to begin.
    pub begun: Duration,
    /// When the last thing that its customer did was to be done.
    pub intended: Duration,
    /// When that was sent.
    pub sent: Duration,
    /// Now.
    pub now: Duration,
    /// The last answer.
    pub answer: Answer,
    /// Whether it says when to come again.
    pub retry_after: bool,
}

impl Tally {
    /// Nothing yet, of so many bookings.
    pub fn new(phases: usize, bookings: u64) -> Self {
        Self {
            stride: (bookings / SAMPLES).max(1),
            phases: vec![Phase::default(); phases],
            windows: Vec::new(),
            ways: vec![Way::default(); Kind::ALL.len()],
            own: Own::default(),
            samples: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// A booking begins.
    pub fn begin(&mut self, kind: Kind, phase: usize, intended: Duration, now: Duration) {
        self.phases[phase].offered += 1;
        self.ways[kind as usize].offered += 1;
        self.window(intended).offered += 1;
        let lag = now.saturating_sub(intended);
        self.own.lag.record(lag);
        self.own.late += u64::from(lag > LATE);
    }

    /// A booking has ended.
    pub fn end(&mut self, ended: &Ended) {
        let latency = ended.now.saturating_sub(ended.intended);
        let is_confirmed = ended.answer == Answer::Booking(BookingStatus::Confirmed);
        let (phase, way) = (&mut self.phases[ended.phase], &mut self.ways[ended.kind as usize]);
        count(&mut phase.ends, ended.answer);
        match ended.answer {
            Answer::Refused => {
                phase.refused.record(latency);
                phase.refused_wire.record(ended.now.saturating_sub(ended.sent));
                phase.without_retry_after += u64::from(!ended.retry_after);
            }
            Answer::Unavailable => phase.unavailable.record(latency),
            answer if answer == Answer::Booking(ended.kind.expected()) => {
                way.expected += 1;
                way.latencies.record(latency);
            }
            _ => {
                way.unexpected += 1;
                phase.unexpected += 1;
            }
        }
        if is_confirmed && ended.kind.is_prompt() {
            phase.confirmed.record(latency);
            self.window(ended.begun).latencies.record(latency);
        }
        let window = self.window(ended.now);
        match ended.answer {
            Answer::Booking(BookingStatus::Confirmed) => window.confirmed += 1,
            Answer::Refused => window.refused += 1,
            _ => window.other += 1,
        }
        self.elapsed = self.elapsed.max(ended.now);
    }

    /// Whether the `number`th booking is to be remembered.
    pub const fn wants(&self, number: u64) -> bool {
        number.is_multiple_of(self.stride)
    }

    /// All bookings that ended so.
    pub fn ended(&self, name: &str) -> u64 {
        self.phases.iter().map(|phase| phase.ended(name)).sum()
    }

    fn window(&mut self, at: Duration) -> &mut Window {
        let number = (at.as_millis() / WINDOW.as_millis()) as usize;
        if self.windows.len() <= number {
            self.windows.resize_with(number + 1, Window::default);
        }
        &mut self.windows[number]
    }
}

/// What 429 is called among the ends.
pub const REFUSED: &str = "refused";
/// What 503 is called among the ends.
pub const UNAVAILABLE: &str = "unavailable";
/// What no answer is called among the ends.
pub const LOST: &str = "lost";

fn count(ends: &mut BTreeMap<String, u64>, answer: Answer) {
    let other;
    let name = match answer {
        Answer::Booking(status) => status.name(),
        Answer::Refused => REFUSED,
        Answer::Unavailable => UNAVAILABLE,
        Answer::Lost => LOST,
        Answer::Other(status) => {
            other = format!("http {status}");
            &other
        }
    };
    match ends.get_mut(name) {
        Some(number) => *number += 1,
        None => drop(ends.insert(name.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn ended(kind: Kind, answer: Answer, begun: u64, now: u64) -> Ended {
        let (begun, now) = (ms(begun), ms(now));
        Ended { kind, phase: 0, begun, intended: begun, sent: begun + ms(1), now, answer, retry_after: false }
    }

    const CONFIRMED: Answer = Answer::Booking(BookingStatus::Confirmed);

    #[test]
    fn latency_counts_in_the_window_of_its_start_and_the_end_in_its_own() {
        let mut tally = Tally::new(1, 10);
        tally.begin(Kind::Plain, 0, ms(100), ms(105));
        tally.end(&ended(Kind::Plain, CONFIRMED, 100, 600));
        let seen: Vec<_> = tally.windows.iter().map(|w| (w.offered, w.confirmed, w.latencies.count())).collect();
        assert_eq!(seen, [(1, 0, 1), (0, 0, 0), (0, 1, 0)]);
        assert_eq!((tally.ended("confirmed"), tally.elapsed), (1, ms(600)));
        assert_eq!(tally.phases[0].confirmed.quantile(0.5) / 1_000, 500);
    }

    #[test]
    fn refusals_have_latencies_of_their_own_and_must_say_when_to_come_again() {
        let mut tally = Tally::new(1, 10);
        tally.end(&ended(Kind::Plain, Answer::Refused, 0, 30));
        let phase = &tally.phases[0];
        assert_eq!((phase.ended(REFUSED), phase.without_retry_after, phase.unexpected), (1, 1, 0));
        assert_eq!((phase.refused.quantile(1.0), phase.confirmed.count()), (30_015, 0));
        assert_eq!(phase.refused_wire.quantile(1.0) / 1_000, 29);
    }

    #[test]
    fn ways_that_wait_for_their_customers_are_no_latency_of_the_platform() {
        let mut tally = Tally::new(1, 10);
        tally.end(&ended(Kind::PaysLater, CONFIRMED, 0, 30));
        tally.end(&ended(Kind::Expires, CONFIRMED, 0, 30));
        assert_eq!(tally.phases[0].confirmed.count(), 0);
        let (later, expires) = (&tally.ways[Kind::PaysLater as usize], &tally.ways[Kind::Expires as usize]);
        assert_eq!((later.expected, later.unexpected, later.latencies.count()), (1, 0, 1));
        assert_eq!((expires.expected, expires.unexpected), (0, 1));
    }

    #[test]
    fn only_late_starts_are_late() {
        let mut tally = Tally::new(1, 10);
        tally.begin(Kind::Plain, 0, ms(0), LATE);
        tally.begin(Kind::Plain, 0, ms(0), LATE + ms(1));
        assert_eq!((tally.own.late, tally.own.lag.count()), (1, 2));
    }

    #[test]
    fn percentiles_are_those_of_the_numbers() {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|n| latencies.record(ms(n)));
        let near = |share, expected: u64| latencies.quantile(share).abs_diff(expected) * 1_000 <= expected;
        assert!(near(0.5, 500_000) && near(0.99, 990_000) && near(0.999, 999_000) && near(1.0, 1_000_000));
        assert_eq!(Latencies::default().quantile(0.5), 0);
    }
}
