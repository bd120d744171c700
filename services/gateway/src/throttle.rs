//! What goes on to the orchestrator in a rush. It tells how much is in flight ([`InFlight`]); what it would refuse for want of
//! room is refused here, at once and for little. Where it tells nothing there is room, and it decides by itself (6.12).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventicket_contracts::sagas::InFlight;
use eventicket_contracts::subjects;
use eventicket_kit::Problem;
use eventicket_nats::Nats;
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend;

/// What was told this long ago means nothing any more: the orchestrator tells it several times in this time.
const FRESH: Duration = Duration::from_secs(1);
/// Most bookings without an answer while nothing is told, as at the beginning of a rush: several of the orchestrator's turns.
const UNTOLD: i64 = 1_024;
/// Time between two tries to hear it.
const AGAIN: Duration = Duration::from_secs(1);

/// The door of new bookings.
#[derive(Default)]
pub struct Throttle(Mutex<Door>);

#[derive(Default)]
struct Door {
    told: Option<(InFlight, Instant)>,
    /// Bookings that went on and are not answered yet.
    unanswered: i64,
    /// Those that the orchestrator had perhaps not counted when it told what is in flight, and those that went on since.
    uncounted: i64,
}

impl Throttle {
    /// Hears what the orchestrator tells until shutdown.
    pub async fn follow(self: Arc<Self>, nats: Nats, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            match nats.subscriber().subscribe(subjects::IN_FLIGHT).await {
                Ok(mut told) => {
                    while let Some(Some(message)) = shutdown.run_until_cancelled(told.next()).await {
                        match serde_json::from_slice(&message.payload) {
                            Ok(in_flight) => self.hear(in_flight),
                            Err(error) => tracing::warn!(%error, "what is in flight cannot be read"),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "what is in flight cannot be heard"),
            }
            shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }

    /// Takes what the orchestrator tells.
    fn hear(&self, in_flight: InFlight) {
        let mut door = self.door();
        // What is not much is told once, and then nothing: it bounds nobody.
        door.told = in_flight.is_much().then(|| (in_flight, Instant::now()));
        door.uncounted = door.unanswered;
    }

    /// Lets a booking through that surely calls these services.
    ///
    /// # Errors
    /// There is no room; it is refused here.
    pub fn pass(&self, called: &[&str]) -> Result<Pass<'_>, Problem> {
        let mut door = self.door();
        let fresh = door.told.as_ref().filter(|(_, at)| at.elapsed() < FRESH);
        let share = |all: &InFlight| all.room(called.iter().copied()) / i64::from(all.askers.max(1));
        if fresh.map_or(UNTOLD - door.unanswered, |(all, _)| share(all) - door.uncounted) <= 0 {
            return Err(backend::busy(None));
        }
        door.unanswered += 1;
        door.uncounted += 1;
        Ok(Pass(self))
    }

    /// What was told last.
    #[cfg(test)]
    pub fn told(&self) -> Option<InFlight> {
        self.door().told.as_ref().map(|(in_flight, _)| in_flight.clone())
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A booking that went on, until it is answered.
pub struct Pass<'a>(&'a Throttle);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.door().unanswered -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: [&str; 1] = ["bookings"];
    const PAID: [&str; 2] = ["bookings", "payments"];

    fn told(bookings: i64, payments: i64, askers: u32) -> InFlight {
        let commands = [("bookings", bookings), ("payments", payments)].map(|(name, n)| (name.to_owned(), n));
        InFlight { limit: 100, commands: commands.into(), askers }
    }

    /// How many pass, and wait.
    fn passing<'a>(throttle: &'a Throttle, called: &[&str]) -> Vec<Pass<'a>> {
        std::iter::from_fn(|| throttle.pass(called).ok()).take(10_000).collect()
    }

    #[test]
    fn rule_12_where_nothing_is_told_all_go_on_unless_many_are_unanswered() {
        let throttle = Throttle::default();
        let first = passing(&throttle, &PAID);
        assert_eq!(i64::try_from(first.len()).unwrap(), UNTOLD);
        drop(first);
        assert!(throttle.pass(&PAID).is_ok());
    }

    #[test]
    fn rule_12_as_many_go_on_as_there_is_room_for() {
        let throttle = Throttle::default();
        throttle.hear(told(30, 60, 1));
        let first = passing(&throttle, &PAID);
        assert_eq!(first.len(), 10);
        throttle.hear(told(30, 60, 1));
        assert_eq!(passing(&throttle, &PAID).len(), 0, "those are under way");
        drop(first);
        assert_eq!(passing(&throttle, &PAID).len(), 0, "answered, but perhaps not counted yet");
        throttle.hear(told(20, 60, 1));
        assert_eq!(passing(&throttle, &PAID).len(), 20);
        throttle.hear(told(30, 40, 3));
        assert_eq!(passing(&throttle, &PAID).len(), 10, "of three who ask each takes a third");
        throttle.hear(told(20, 20, 1));
        assert_eq!(i64::try_from(passing(&throttle, &PAID).len()).unwrap(), UNTOLD, "not much is in flight any more");
    }

    #[test]
    fn rule_12_full_payments_refuse_no_booking_that_does_not_pay() {
        let throttle = Throttle::default();
        throttle.hear(told(30, 90, 1));
        assert_eq!((passing(&throttle, &PAID).len(), passing(&throttle, &FREE).len()), (0, 70));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_soon_forgotten() {
        let throttle = Throttle::default();
        throttle.hear(told(0, 200, 1));
        tokio::time::advance(FRESH / 2).await;
        assert!(throttle.pass(&PAID).is_err());
        tokio::time::advance(FRESH / 2).await;
        assert!(throttle.pass(&PAID).is_ok());
    }
}
