//! How much is in flight, as the orchestrator tells those who start sagas.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Broadcast on [`crate::subjects::IN_FLIGHT`] after each turn while much is in flight, and once more when it is not; a hint,
/// which may be lost, and which means nothing any more after a second. Who keeps to it need not ask for what would be
/// refused (6.12).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Commands in flight at all the services together that a new saga surely calls, from which on none may begin.
    pub limit: i64,
    /// Commands in flight by service, over all replicas.
    pub commands: BTreeMap<String, i64>,
    /// How many asked for starts lately: each should take no more than its share of the room.
    pub askers: u32,
}

impl InFlight {
    /// How many sagas may begin that surely call these services, see [`room`].
    pub fn room<'a>(&self, called: impl IntoIterator<Item = &'a str>) -> i64 {
        room(self.limit, called.into_iter().map(|service| self.commands.get(service).copied().unwrap_or(0)))
    }

    /// Whether so much is in flight that somebody should hear of it.
    pub fn is_much(&self) -> bool {
        self.room(self.commands.keys().map(String::as_str)) < self.limit / 2
    }
}

/// How many sagas may begin that surely call services with so many commands in flight; any number of those that call none.
///
/// A saga waits for one command at a time, so that the sum over its services bounds how many are ahead of it, and with that
/// its time. Each service by itself would let as many wait at every one of its steps.
pub fn room(limit: i64, in_flight: impl IntoIterator<Item = i64>) -> i64 {
    let in_flight = in_flight.into_iter().map(|commands| commands.max(0));
    in_flight.reduce(|sum, commands| sum + commands).map_or(i64::MAX, |sum| limit - sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_12_a_start_is_weighed_against_all_its_services_together() {
        let commands = [("bookings", 30), ("payments", 60), ("events", -5)].map(|(name, n)| (name.to_owned(), n));
        let all = InFlight { limit: 100, commands: commands.into(), askers: 1 };
        for (called, room) in [
            (&["bookings", "payments"][..], 10),
            (&["bookings"], 70),
            (&["events", "payments"], 40),
            (&["elsewhere"], 100),
            (&[], i64::MAX),
        ] {
            assert_eq!(all.room(called.iter().copied()), room, "{called:?}");
        }
        assert!(all.is_much());
        assert!(!InFlight { limit: 180, ..all }.is_much(), "half is left");
        assert!(!InFlight::default().is_much());
    }
}
