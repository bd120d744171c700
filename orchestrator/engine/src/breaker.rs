//! The breaker of a service: when its commands are held.
//!
//! Closed, it counts failures in a window; open, it holds everything until `open_for` has passed; half-open, it lets one
//! probe through at a time, claimed with a lease so that a probe that dies holds nobody. Rejections are successes: the
//! service has answered. An operator may force it open or closed; then nothing is counted and nothing is probed. Times
//! are ms.

use eventicket_planted::Fault;
use serde::{Deserialize, Serialize};

/// When a breaker trips and recovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures in `window` that open it, where they are also more than half of the answers.
    pub failures: u32,
    /// Length of the counting window, ms.
    pub window: i64,
    /// How long it stays open before the first probe, ms.
    pub open_for: i64,
    /// How long a probe may take, ms: one attempt's time-out.
    pub lease: i64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { failures: 20, window: 10_000, open_for: 5_000, lease: 5_000 }
    }
}

/// How a breaker is moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By what it counts.
    #[default]
    Auto,
    /// Forced open: nothing passes until it is set otherwise, not even a probe.
    Open,
    /// Forced closed: everything passes until it is set otherwise.
    Closed,
}

impl Mode {
    /// As it is stored and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Auto, Self::Open, Self::Closed].into_iter().find(|mode| mode.name() == name)
    }
}

/// What its counting has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Everything passes.
    #[default]
    Closed,
    /// Nothing passes before this time.
    Open(i64),
    /// One probe is under way until this time.
    HalfOpen(i64),
}

/// A breaker, shared by the replicas through the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Whether it counts.
    pub mode: Mode,
    /// Where it stands in [`Mode::Auto`]; closed in the others.
    pub state: State,
}

/// What a replica counts in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    started: i64,
    failures: u32,
    successes: u32,
}

impl Counts {
    /// Counts one answer; true where the breaker must open.
    pub fn record(&mut self, policy: &Policy, failed: bool, now: i64) -> bool {
        if now - self.started > policy.window {
            *self = Self { started: now, failures: 0, successes: 0 };
        }
        if failed {
            self.failures += 1;
        } else {
            self.successes += 1;
        }
        failed && self.failures >= policy.failures && self.failures > self.successes
    }

    /// Forgets what was counted.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Breaker {
    /// The breaker once an operator has set it: it counts from closed, or not at all.
    pub const fn set(mode: Mode) -> Self {
        Self { mode, state: State::Closed }
    }

    /// Whether an ordinary command may pass.
    pub fn passes(self) -> bool {
        match self.mode {
            Mode::Auto => self.state == State::Closed,
            Mode::Open => false,
            Mode::Closed => true,
        }
    }

    /// `closed`, `open` or `half_open`.
    pub fn shown(self) -> &'static str {
        match (self.mode, self.state) {
            (Mode::Closed, _) | (Mode::Auto, State::Closed) => "closed",
            (Mode::Open, _) | (Mode::Auto, State::Open(_)) => "open",
            (Mode::Auto, State::HalfOpen(_)) => "half_open",
        }
    }

    /// When the next probe may go, or the one under way counts as lost.
    pub fn until(self) -> Option<i64> {
        match (self.mode, self.state) {
            (Mode::Auto, State::Open(until) | State::HalfOpen(until)) => Some(until),
            _ => None,
        }
    }

    /// The breaker after a claim of the probe; `None` where no probe may go now.
    pub fn claim(self, policy: &Policy, now: i64) -> Option<Self> {
        let lease = if Fault::ProbeWithoutLease.is_planted() { i64::from(u32::MAX) } else { policy.lease };
        let due = self.until().is_some_and(|until| until <= now);
        due.then(|| Self { state: State::HalfOpen(now + lease), ..self })
    }

    /// The breaker after an answer of the service.
    pub fn answered(self, policy: &Policy, counts: &mut Counts, failed: bool, now: i64) -> Self {
        let state = match (self.mode, self.state, failed) {
            (Mode::Auto, State::Closed, _) if counts.record(policy, failed, now) => State::Open(now + policy.open_for),
            (Mode::Auto, State::HalfOpen(_), true) => State::Open(now + policy.open_for),
            (Mode::Auto, State::HalfOpen(_), false) => State::Closed,
            _ => return self,
        };
        counts.reset();
        Self { state, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { failures: 3, window: 1_000, open_for: 500, lease: 200 };

    fn auto(state: State) -> Breaker {
        Breaker { mode: Mode::Auto, state }
    }

    fn answered(breaker: Breaker, failed: bool) -> Breaker {
        breaker.answered(&POLICY, &mut Counts::default(), failed, 1_000)
    }

    #[test]
    fn trips_probes_and_recovers() {
        let mut counts = Counts::default();
        let mut breaker = Breaker::default();
        for now in 0..3 {
            assert!(breaker.passes());
            breaker = breaker.answered(&POLICY, &mut counts, true, now);
        }
        assert_eq!(breaker, auto(State::Open(502)));
        assert_eq!(breaker.claim(&POLICY, 501), None);
        let probing = breaker.claim(&POLICY, 502).unwrap();
        assert_eq!(probing.answered(&POLICY, &mut counts, false, 550), auto(State::Closed));
        assert_eq!(probing.answered(&POLICY, &mut counts, true, 550), auto(State::Open(1_050)));
    }

    #[test]
    fn rule_18_a_probe_has_a_lease() {
        let probing = auto(State::Open(500)).claim(&POLICY, 500).unwrap();
        assert_eq!(probing, auto(State::HalfOpen(700)));
        assert_eq!(probing.claim(&POLICY, 699), None, "one probe at a time");
        assert_eq!(probing.claim(&POLICY, 700), Some(auto(State::HalfOpen(900))), "a dead probe's lease ends");
    }

    #[test]
    fn does_not_trip_while_most_answers_are_good() {
        let (mut counts, mut breaker) = (Counts::default(), Breaker::default());
        for now in 0..100 {
            breaker = breaker.answered(&POLICY, &mut counts, now % 3 == 0, now);
        }
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn failures_are_counted_within_a_window() {
        let (mut counts, mut breaker) = (Counts::default(), Breaker::default());
        for now in [0, 10, 1_011, 1_020] {
            breaker = breaker.answered(&POLICY, &mut counts, true, now);
        }
        assert!(breaker.passes(), "two in each window");
        assert!(!breaker.answered(&POLICY, &mut counts, true, 1_030).passes(), "the third");
    }

    /// By mode and state: shown as, passes, until, claimed at 600, after a failure and after an answer at 1,000.
    #[test]
    fn every_mode_and_state_has_its_ways() {
        let (closed, open, half) = (State::Closed, State::Open(600), State::HalfOpen(600));
        let again = auto(State::Open(1_500));
        for (breaker, shown, passes, until, claimed, failed, good) in [
            (auto(closed), "closed", true, None, None, auto(closed), auto(closed)),
            (auto(open), "open", false, Some(600), Some(auto(State::HalfOpen(800))), auto(open), auto(open)),
            (auto(half), "half_open", false, Some(600), Some(auto(State::HalfOpen(800))), again, auto(closed)),
            (Breaker::set(Mode::Open), "open", false, None, None, Breaker::set(Mode::Open), Breaker::set(Mode::Open)),
            (
                Breaker::set(Mode::Closed),
                "closed",
                true,
                None,
                None,
                Breaker::set(Mode::Closed),
                Breaker::set(Mode::Closed),
            ),
        ] {
            assert_eq!((breaker.shown(), breaker.passes(), breaker.until()), (shown, passes, until), "{breaker:?}");
            assert_eq!(breaker.claim(&POLICY, 600), claimed, "{breaker:?}");
            assert_eq!((answered(breaker, true), answered(breaker, false)), (failed, good), "{breaker:?}");
        }
    }

    #[test]
    fn forced_it_counts_nothing_and_auto_counts_from_closed() {
        let mut counts = Counts::default();
        for mode in [Mode::Open, Mode::Closed] {
            let forced = Breaker::set(mode);
            for now in 0..10 {
                assert_eq!(forced.answered(&POLICY, &mut counts, true, now), forced);
            }
        }
        assert_eq!(counts, Counts::default());
        assert!(Breaker::set(Mode::Auto).passes());
    }

    #[test]
    fn modes_are_known_by_their_names() {
        for mode in [Mode::Auto, Mode::Open, Mode::Closed] {
            assert_eq!(Mode::named(mode.name()), Some(mode));
        }
        assert_eq!(Mode::named("ajar"), None);
    }
}
