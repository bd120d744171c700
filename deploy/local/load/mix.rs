//! Which ways customers go, and how often.

use serde::{Deserialize, Serialize};

use super::story::Kind;

/// A mix of customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// One ticket with a good card each.
    Plain,
    /// Mostly the same, and some of everything else that customers and payment gateways do.
    Realistic,
    /// Bookings that hold their tickets without a payment method.
    Waiting,
}

/// Of each hundred bookings of the realistic mix, what is not plain; one in a thousand has a slow card beside them.
const REALISTIC: [(Kind, u64); 8] = [
    (Kind::Several, 20),
    (Kind::Declined, 5),
    (Kind::PaysLater, 5),
    (Kind::Cancels, 3),
    (Kind::Expires, 2),
    (Kind::LostAnswer, 2),
    (Kind::GivenUp, 1),
    (Kind::Settles, 1),
];
/// Spreads the kinds over a hundred: coprime to it.
const STRIDE: u64 = 37;

impl Mix {
    /// As it stands on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Realistic => "realistic",
            Self::Waiting => "waiting",
        }
    }

    /// The way of the `number`th booking: the same in each run.
    pub fn kind(self, number: u64) -> Kind {
        match self {
            Self::Plain => Kind::Plain,
            Self::Waiting => Kind::Waits,
            Self::Realistic if number % 1_000 == 999 => Kind::Slow,
            Self::Realistic => {
                let mut place = number * STRIDE % 100;
                for (kind, share) in REALISTIC {
                    if place < share {
                        return kind;
                    }
                    place -= share;
                }
                Kind::Plain
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_realistic_mix_has_every_way_in_its_share() {
        let count = |kind| (0..100_000).filter(|&n| Mix::Realistic.kind(n) == kind).count();
        assert_eq!(count(Kind::Slow), 100);
        for (kind, share) in REALISTIC {
            let expected = share as usize * 1_000;
            assert!(count(kind).abs_diff(expected) <= 100, "{kind:?}: {}", count(kind));
        }
        assert!((60_000..62_000).contains(&count(Kind::Plain)));
    }

    #[test]
    fn ways_are_mixed_and_not_in_blocks() {
        let longest =
            (0..1_000).map(|n| Mix::Realistic.kind(n)).fold((0, 0, Kind::Plain), |(most, run, last), kind| {
                let run = if kind == last { run + 1 } else { 1 };
                (most.max(run), run, kind)
            });
        assert!(longest.0 <= 5, "{} in a row", longest.0);
    }
}
