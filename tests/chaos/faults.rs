//! The faults, and how a seed draws them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// kill -9.
    Killed,
    /// SIGTERM, or what the server takes for it; it is started again.
    Restarted,
    /// SIGSTOP for seconds, then SIGCONT.
    Paused,
    /// kill -9 of one session's process, upon which PostgreSQL recovers as from a crash.
    SessionKilled,
    /// JetStream's folder is deleted while the server is down.
    StoreDeleted,
    /// One stream is deleted over the API.
    StreamDeleted,
    /// One durable consumer is deleted over the API.
    ConsumerDeleted,
    /// Connections end: all of them, or every second one.
    Cut,
    /// Every packet waits for some tens of milliseconds.
    Slowed,
    /// Nothing comes through for seconds, and connections stay.
    Stalled,
}

impl Kind {
    /// As the table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Restarted => "restarted",
            Self::Paused => "paused for 1 to 5 s",
            Self::SessionKilled => "a session killed",
            Self::StoreDeleted => "store deleted",
            Self::StreamDeleted => "a stream deleted",
            Self::ConsumerDeleted => "a consumer deleted",
            Self::Cut => "connections cut",
            Self::Slowed => "connections slowed for 1 to 5 s",
            Self::Stalled => "connections stalled for 1 to 5 s",
        }
    }

    /// Whether it goes on for a time, and then ends.
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Paused | Self::Slowed | Self::Stalled)
    }

    /// Whether dead letters may go with it.
    pub const fn loses_streams(self) -> bool {
        matches!(self, Self::StoreDeleted | Self::StreamDeleted)
    }
}

/// What it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One replica of a part of the platform.
    Part(&'static str),
    /// nats-server.
    Nats,
    /// PostgreSQL.
    Postgres,
}

impl Target {
    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Part(part) => part,
            Self::Nats => "nats-server",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// The platform's parts that have processes.
pub const PARTS: [&str; 8] =
    ["gateway", "identity", "events", "bookings", "payments", "notifications", "orchestrator", "mock-gateway"];
/// The part that has one process however many replicas there are.
pub const ALONE: &str = "mock-gateway";

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// What it happens to.
    pub target: Target,
    /// Chooses among replicas, streams, sessions and their like.
    pub which: u64,
    /// How long, where it lasts.
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target.name(), self.kind.name())?;
        if self.kind.lasts() { write!(f, " ({:.1} s)", self.lasts.as_secs_f64()) } else { Ok(()) }
    }
}

/// The faults of a seed. They are drawn as from a pack of cards, which is shuffled again when it is used up: so each
/// kind has come once before one comes twice.
pub fn draw(seed: u64, number: usize) -> Vec<Fault> {
    let (mut dice, mut faults) = (Dice(seed), Vec::with_capacity(number));
    let mut left = Vec::new();
    while faults.len() < number {
        if left.is_empty() {
            left = pack();
        }
        let (kind, target) = left.swap_remove(dice.below(left.len() as u64) as usize);
        let lasts = if kind.lasts() { 1_000 + dice.below(4_001) } else { 0 };
        faults.push(Fault { kind, target, which: dice.below(1 << 32), lasts: Duration::from_millis(lasts) });
    }
    faults
}

fn pack() -> Vec<(Kind, Target)> {
    use Kind::{
        ConsumerDeleted, Cut, Killed, Paused, Restarted, SessionKilled, Slowed, Stalled, StoreDeleted, StreamDeleted,
    };
    let targets = PARTS.into_iter().map(Target::Part).chain([Target::Nats, Target::Postgres]);
    let mut pack: Vec<_> = targets.flat_map(|target| [Killed, Restarted, Paused].map(|kind| (kind, target))).collect();
    for server in [Target::Nats, Target::Postgres] {
        pack.extend([Cut, Slowed, Stalled].map(|kind| (kind, server)));
    }
    pack.extend([StoreDeleted, StreamDeleted, ConsumerDeleted].map(|kind| (kind, Target::Nats)));
    pack.push((SessionKilled, Target::Postgres));
    pack
}

/// A SplitMix64 generator: a seed means the same faults whatever becomes of libraries.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_and_another_one_others() {
        assert_eq!(draw(7, 50), draw(7, 50));
        assert_ne!(draw(7, 50), draw(8, 50));
        assert_eq!(draw(7, 50)[..10], draw(7, 10)[..], "a shorter run is the beginning of a longer one");
    }

    #[test]
    fn each_kind_comes_once_before_one_comes_twice() {
        let pack = pack().len();
        let kinds: Vec<_> = draw(3, 2 * pack).iter().map(|fault| (fault.kind, fault.target)).collect();
        for round in kinds.chunks(pack) {
            assert_eq!(round.iter().collect::<HashSet<_>>().len(), pack);
        }
        assert_ne!(kinds[..pack], kinds[pack..], "in another order");
    }

    #[test]
    fn what_lasts_does_so_for_one_to_five_seconds() {
        for fault in draw(1, 400) {
            let seconds = fault.lasts.as_secs_f64();
            assert!(if fault.kind.lasts() { (1.0..=5.0).contains(&seconds) } else { seconds == 0.0 }, "{fault}");
        }
    }
}
