//! Drains the table of deliveries: claims what is due in bounded batches and sends it side by side.
//!
//! A claim is a lease: where a process dies, its mails are tried again by any other. Such a mail may have left already;
//! its `Message-ID` stays the same.

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::metrics as names;
use eventicket_contracts::{Clock, Timestamp};
use eventicket_kit::Context;
use eventicket_nats::trace::{Span, Telling, within};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::outgoing::{Failure, Outgoing};
use crate::store::{Claim, Outcome, Store};

/// Mails under way at once.
pub(crate) const CONCURRENT: usize = 16;
/// Mails of one claim.
const BATCH: usize = 32;
/// Longer than a batch can take: twice (its tickets' query, its talk with the mail server), and the query of the users.
const LEASE: Duration = Duration::from_secs(90);
/// How often the table is looked at without a reason, for what other replicas recorded.
const POLL: Duration = Duration::from_secs(5);
/// After the database could not be read or written.
const PAUSE: Duration = Duration::from_millis(250);
/// How often an outcome is written before the lease is left to end.
const SETTLE_TRIES: u32 = 8;
/// The delay after the first failure, which doubles with each further one up to the longest.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(15 * 60);
/// How often the queue is measured.
const MEASURE: Duration = Duration::from_secs(15);

/// The part of the service that sends.
pub(crate) struct Mailer {
    store: Store,
    outgoing: Outgoing,
    clock: Clock,
    give_up: Duration,
    /// Bookings come first: in a rush mail waits in its table.
    per_second: u32,
    wake: Arc<Notify>,
}

/// When the next batch may follow.
enum Next {
    /// After this time, whatever is recorded meanwhile.
    Pace(Duration),
    /// After this time, or when something is recorded.
    Idle(Duration),
}

impl Mailer {
    pub fn new(ctx: &Context, store: Store) -> anyhow::Result<Self> {
        Ok(Self {
            store,
            outgoing: Outgoing::new(&ctx.nats, &ctx.settings)?,
            clock: ctx.clock.clone(),
            give_up: Duration::from_secs(u64::from(ctx.settings.mail_give_up_hours) * 3600),
            per_second: ctx.settings.mail_per_second,
            wake: Arc::new(Notify::new()),
        })
    }

    /// Notified when new deliveries are committed.
    pub fn waker(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Sends until shutdown; what is on its way then is finished, what is only claimed is given back.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut measured: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            if measured.is_none_or(|at| at.elapsed() >= MEASURE) {
                self.measure().await;
                measured = Some(Instant::now());
            }
            let next = match self.round(&shutdown).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "the table of deliveries cannot be used");
                    Next::Pace(PAUSE)
                }
            };
            let (wait, woken) = match next {
                Next::Pace(wait) => (wait, false),
                Next::Idle(wait) => (wait, true),
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.wake.notified(), if woken => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.outgoing.close().await;
    }

    /// Sends one batch, and says when the next one may follow.
    async fn round(&self, shutdown: &CancellationToken) -> Result<Next, sqlx::Error> {
        let started = Instant::now();
        let claims = self.store.claim(BATCH, self.clock.now(), LEASE).await?;
        if claims.is_empty() {
            let due = self.store.next_due().await?;
            let wait = due.map_or(POLL, |due| due.since(self.clock.now()).clamp(Duration::from_millis(5), POLL));
            return Ok(Next::Idle(wait));
        }
        let share = Duration::from_secs_f64(claims.len() as f64 / f64::from(self.per_second));
        let tries = match self.outgoing.users(&claims).await {
            Ok(users) => {
                let attempt = async |claim: Claim| {
                    if shutdown.is_cancelled() {
                        return (claim, Outcome::GivenBack);
                    }
                    let mut span = span(&claim);
                    let sent = self.outgoing.send(&claim, users.get(&claim.customer));
                    let sent = within(span.as_ref().map(Span::place), sent).await;
                    if let (Some(span), Err(failure)) = (&mut span, &sent) {
                        span.fail(failure.to_string()); // which names nobody
                    }
                    let outcome = self.outcome(&claim, sent);
                    (claim, outcome)
                };
                stream::iter(claims).map(attempt).buffer_unordered(CONCURRENT).collect::<Vec<_>>().await
            }
            Err(Failure::Later(why) | Failure::Never(why)) => {
                let outcome = |claim: &Claim| self.outcome(claim, Err(Failure::Later(why.clone())));
                claims.into_iter().map(|claim| (outcome(&claim), claim)).map(|(o, c)| (c, o)).collect()
            }
        };
        self.settle(&tries, shutdown).await;
        Ok(Next::Pace(share.saturating_sub(started.elapsed())))
    }

    fn outcome(&self, claim: &Claim, sent: Result<(), Failure>) -> Outcome {
        let now = self.clock.now();
        let outcome = match sent {
            Ok(()) => Outcome::Sent,
            Err(Failure::Never(why)) => Outcome::GivenUp(why),
            Err(Failure::Later(why)) if now.since(claim.created_at) >= self.give_up => Outcome::GivenUp(why),
            Err(Failure::Later(why)) => Outcome::Later(next_try(claim.tries, rand::random(), now), why),
        };
        match &outcome {
            Outcome::Sent => metrics::counter!(names::MAILS_SENT).increment(1),
            Outcome::Later(..) => metrics::counter!(names::MAILS_RETRIED).increment(1),
            Outcome::GivenUp(reason) => {
                metrics::counter!(names::MAILS_FAILED).increment(1);
                tracing::warn!(delivery = %claim.key, reason, tries = claim.tries, "a mail is given up");
            }
            Outcome::GivenBack => {}
        }
        outcome
    }

    /// Writes what became of a batch. Where that fails for long, the leases end and the mails leave once more.
    async fn settle(&self, tries: &[(Claim, Outcome)], shutdown: &CancellationToken) {
        for attempt in 1..=SETTLE_TRIES {
            match self.store.settle(tries, self.clock.now()).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, attempt, "what became of mails cannot be written"),
            }
            let pause = if shutdown.is_cancelled() { PAUSE } else { PAUSE * 2_u32.pow(attempt.min(5)) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn measure(&self) {
        match self.store.backlog().await {
            Ok((waiting, oldest)) => {
                metrics::gauge!(names::MAILS_WAITING).set(waiting as f64);
                let age = oldest.map_or(Duration::ZERO, |oldest| self.clock.now().since(oldest));
                metrics::gauge!(names::MAILS_OLDEST).set(age.as_secs_f64());
            }
            Err(error) => tracing::debug!(%error, "the queue of mails cannot be measured"),
        }
    }
}

/// The span of a try, where the trace of its booking is recorded.
fn span(claim: &Claim) -> Option<Span> {
    let mut span = Span::below(claim.trace.as_deref(), Telling::Client, || format!("mail {}", claim.template))?;
    span.set("eventicket.saga", claim.key.saga.to_string());
    span.set("eventicket.attempt", i64::from(claim.tries));
    Some(span)
}

/// When a mail is tried again after its `tries`th failure. `random`, in 0..1, takes away up to half of the delay.
fn next_try(tries: u32, random: f64, now: Timestamp) -> Timestamp {
    let doubled = FIRST_DELAY.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
    now.plus(doubled.min(LONGEST_DELAY).mul_f64(1.0 - random / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_limit() {
        let delay = |tries, random| next_try(tries, random, Timestamp(0)).millis();
        assert_eq!([delay(1, 0.0), delay(2, 0.0), delay(5, 0.0)], [1_000, 2_000, 16_000]);
        assert_eq!((delay(11, 0.0), delay(4_000_000_000, 0.0)), (900_000, 900_000));
        assert_eq!(delay(3, 1.0), 2_000);
    }
}
