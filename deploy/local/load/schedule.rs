//! When bookings are to begin: fixed before the first one leaves, and moved by nothing that is answered.

use std::time::Duration;

/// A stretch of time with one rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// As the report calls it.
    pub name: String,
    /// Bookings a second.
    pub rate: f64,
    /// How long it lasts.
    pub duration: Duration,
}

impl Phase {
    /// A phase.
    pub fn new(name: &str, rate: f64, duration: Duration) -> Self {
        Self { name: name.to_owned(), rate, duration }
    }

    /// Bookings that begin in it.
    pub fn arrivals(&self) -> u64 {
        (self.rate * self.duration.as_secs_f64() + 1e-9) as u64
    }
}

/// The phases of a run, one after the other without a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// In their order.
    pub phases: Vec<Phase>,
}

/// A booking that is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its intended start, from the beginning of the run.
    pub at: Duration,
    /// Its phase.
    pub phase: usize,
}

impl Schedule {
    /// One phase.
    pub fn steady(rate: f64, duration: Duration) -> Self {
        Self { phases: vec![Phase::new("load", rate, duration)] }
    }

    /// Bookings of all phases.
    pub fn total(&self) -> u64 {
        self.phases.iter().map(Phase::arrivals).sum()
    }

    /// From the first start to the end of the last phase.
    pub fn length(&self) -> Duration {
        self.phases.iter().map(|phase| phase.duration).sum()
    }

    /// When each phase begins.
    pub fn begins(&self) -> Vec<Duration> {
        let begins = self.phases.iter().scan(Duration::ZERO, |end, phase| {
            let begin = *end;
            *end += phase.duration;
            Some(begin)
        });
        begins.collect()
    }

    /// The intended starts in their order, evenly spaced within each phase.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival> + '_ {
        self.phases.iter().zip(self.begins()).enumerate().flat_map(|(number, (phase, begin))| {
            (0..phase.arrivals())
                .map(move |n| Arrival { at: begin + Duration::from_secs_f64(n as f64 / phase.rate), phase: number })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn starts_are_spaced_evenly_from_the_first_moment() {
        let schedule = Schedule::steady(4.0, ms(1_000));
        let at: Vec<_> = schedule.arrivals().map(|arrival| arrival.at).collect();
        assert_eq!(at, [ms(0), ms(250), ms(500), ms(750)]);
        assert_eq!((schedule.total(), schedule.length()), (4, ms(1_000)));
    }

    #[test]
    fn phases_follow_each_other_with_their_own_rates() {
        let phases = vec![Phase::new("calm", 2.0, ms(1_000)), Phase::new("rush", 1_000.0, ms(3))];
        let schedule = Schedule { phases };
        let arrivals: Vec<_> = schedule.arrivals().map(|a| (a.phase, a.at)).collect();
        assert_eq!(arrivals, [(0, ms(0)), (0, ms(500)), (1, ms(1_000)), (1, ms(1_001)), (1, ms(1_002))]);
        assert_eq!(schedule.begins(), [ms(0), ms(1_000)]);
    }

    #[test]
    fn a_rate_that_is_no_whole_number_loses_no_start() {
        assert_eq!(Schedule::steady(0.1 * 3.0, Duration::from_secs(10)).total(), 3);
        assert_eq!(Schedule::steady(7_500.0, Duration::from_secs(60)).arrivals().count(), 450_000);
    }
}
