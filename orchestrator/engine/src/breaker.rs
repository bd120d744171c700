//! The breaker of a service: when its commands are held.
//!
//! Closed, it counts failures in a window; open, it holds everything until `open_for` has passed; half-open, it lets one
//! probe through at a time, claimed with a lease so that a probe that dies holds nobody. Rejections are successes: the
//! service has answered. Times are ms.

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

/// Its state, shared by the replicas through the store.
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

impl State {
    /// Whether an ordinary command may pass.
    pub fn passes(self) -> bool {
        self == Self::Closed
    }

    /// The state after a claim of the probe; `None` where no probe may go now.
    pub fn claim(self, policy: &Policy, now: i64) -> Option<Self> {
        match self {
            Self::Open(until) | Self::HalfOpen(until) if until <= now => Some(Self::HalfOpen(now + policy.lease)),
            _ => None,
        }
    }

    /// The state after an answer of the service.
    pub fn answered(self, policy: &Policy, counts: &mut Counts, failed: bool, now: i64) -> Self {
        match (self, failed) {
            (Self::Closed, _) if counts.record(policy, failed, now) => {
                counts.reset();
                Self::Open(now + policy.open_for)
            }
            (Self::HalfOpen(_), true) => Self::Open(now + policy.open_for),
            (Self::HalfOpen(_), false) => {
                counts.reset();
                Self::Closed
            }
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { failures: 3, window: 1_000, open_for: 500, lease: 200 };

    #[test]
    fn trips_probes_and_recovers() {
        let mut counts = Counts::default();
        let mut state = State::Closed;
        for now in 0..3 {
            assert!(state.passes());
            state = state.answered(&POLICY, &mut counts, true, now);
        }
        assert_eq!(state, State::Open(502));
        assert_eq!(state.claim(&POLICY, 501), None);
        let probing = state.claim(&POLICY, 502).unwrap();
        assert_eq!(probing.claim(&POLICY, 600), None, "one probe at a time");
        assert!(probing.claim(&POLICY, 702).is_some(), "a dead probe's lease ends");
        assert_eq!(probing.answered(&POLICY, &mut counts, false, 550), State::Closed);
        assert_eq!(probing.answered(&POLICY, &mut counts, true, 550), State::Open(1_050));
    }

    #[test]
    fn does_not_trip_while_most_answers_are_good() {
        let (mut counts, mut state) = (Counts::default(), State::Closed);
        for now in 0..100 {
            state = state.answered(&POLICY, &mut counts, now % 3 == 0, now);
        }
        assert_eq!(state, State::Closed);
    }
}
