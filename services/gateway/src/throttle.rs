//! Adaptive throttling of what the orchestrator refuses for want of room: it is asked only for somewhat more than it lately
//! admitted, and the rest is refused at the door. After "Handling Overload" in Google's *Site Reliability Engineering*,
//! chapter 21, with sums that fade instead of a window that slides.
//!
//! The door need not know how much room there is, and each replica of the gateway finds its own share. Bookings that pay have a
//! door of their own, since the orchestrator refuses them for want of room at payments, which others do not need (6.12).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventicket_kit::Problem;
use tokio::time::Instant;

use crate::backend;

/// How many are let through for each one that was admitted: the excess finds out that there is more room again.
const EXCESS: f64 = 1.1;
/// Requests that are let through in [`MEMORY`] whatever happened.
const FLOOR: f64 = 50.0;
/// What happened this long ago counts 1/e.
const MEMORY: Duration = Duration::from_millis(400);

/// The doors of new bookings.
#[derive(Default)]
pub struct Throttles {
    pays: Throttle,
    others: Throttle,
}

impl Throttles {
    /// Lets a booking through that surely pays, or another one, unless too many like it were refused lately.
    ///
    /// # Errors
    /// It is refused here.
    pub fn pass(&self, pays: bool) -> Result<Pass<'_>, Problem> {
        let door = if pays { &self.pays } else { &self.others };
        if door.lets_through(rand::random()) { Ok(Pass(Some(door))) } else { Err(backend::busy(None)) }
    }
}

/// What became of requests lately. Those under way do not count: a burst into an idle platform finds out by itself.
struct Throttle(Mutex<Lately>);

struct Lately {
    at: Instant,
    admitted: f64,
    /// By the orchestrator or here.
    refused: f64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self(Mutex::new(Lately { at: Instant::now(), admitted: 0.0, refused: 0.0 }))
    }
}

impl Throttle {
    /// Whether a request may go on; `luck` is uniform in 0..1. What becomes of it is told later.
    fn lets_through(&self, luck: f64) -> bool {
        let mut lately = self.lately();
        let ended = lately.admitted + lately.refused;
        let beyond = ended - FLOOR - EXCESS * lately.admitted;
        let through = luck * ended >= beyond;
        if !through {
            lately.refused += 1.0;
        }
        through
    }

    /// One that went on was not refused for want of room.
    fn admitted(&self) {
        self.lately().admitted += 1.0;
    }

    /// One that went on was.
    fn refused(&self) {
        self.lately().refused += 1.0;
    }

    /// As of now.
    fn lately(&self) -> MutexGuard<'_, Lately> {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let left = (-now.duration_since(lately.at).as_secs_f64() / MEMORY.as_secs_f64()).exp();
        lately.at = now;
        lately.admitted *= left;
        lately.refused *= left;
        lately
    }
}

/// A new booking that was let through. It counts as admitted when it is dropped, whatever else becomes of it.
pub struct Pass<'a>(Option<&'a Throttle>);

impl Pass<'_> {
    /// There was no room for it.
    pub fn was_refused(mut self) {
        if let Some(door) = self.0.take() {
            door.refused();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(door) = self.0 {
            door.admitted();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reaches the orchestrator and what it admits, in requests a second, once `offered` meet room for `room` for so
    /// many seconds. Requests come evenly; so does luck.
    async fn reached(throttle: &Throttle, offered: u32, room: u32, seconds: u32) -> (u32, u32) {
        let (mut reached, mut admitted, mut luck, mut free) = (0, 0, 0.0, 0.0_f64);
        for n in 0..offered * seconds {
            tokio::time::advance(Duration::from_secs(1) / offered).await;
            free = (free + f64::from(room) / f64::from(offered)).min(20.0);
            luck = (luck + 0.618_034_f64).fract();
            if !throttle.lets_through(luck) {
                continue;
            }
            let last = n >= offered * (seconds - 1);
            reached += u32::from(last);
            if free >= 1.0 {
                free -= 1.0;
                admitted += u32::from(last);
                throttle.admitted();
            } else {
                throttle.refused();
            }
        }
        (reached, admitted)
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_room_nothing_is_refused() {
        let throttle = Throttle::default();
        assert!((0..5_000).all(|_| throttle.lets_through(0.0)), "nobody knows yet");
        assert_eq!(reached(&throttle, 2_000, 4_000, 3).await.0, 2_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_room_is_filled_and_little_beyond_it_is_asked_for() {
        for offered in [2_000, 3_000, 10_000] {
            let (reached, admitted) = reached(&Throttle::default(), offered, 1_000, 5).await;
            assert!((950..=1_020).contains(&admitted), "{admitted} of {offered}");
            assert!(reached <= 1_500, "{reached} of {offered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_room_and_less_demand_are_soon_found() {
        let throttle = Throttle::default();
        assert_eq!(reached(&throttle, 6_000, 0, 3).await.1, 0);
        assert!(reached(&throttle, 6_000, 2_000, 4).await.1 >= 1_900, "within some seconds of none");
        reached(&throttle, 1_000, 2_000, 2).await;
        assert_eq!(reached(&throttle, 1_000, 2_000, 1).await, (1_000, 1_000), "two seconds after the rush");
    }
}
