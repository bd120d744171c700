//! Reads of single bookings: those that are ready leave in one question. In a rush customers look at their bookings more
//! often than they book, and looks one by one would cost the orchestrator as much as its sagas.

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::codes;
use eventicket_contracts::sagas::{BookingView, GET_BOOKINGS, GetBooking};
use eventicket_nats::trace::{self, Span, Traceparent};
use eventicket_nats::{Nats, QueryError, QueryFailure};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::backend::{ORCHESTRATOR, PATIENCE};

/// Reads that may wait; a further one is refused at once.
const WAITING: usize = 1_024;
/// Most reads of one question.
const BATCH: usize = 256;
/// Questions under way; the next one leaves when one of them is answered, with all that came meanwhile.
const QUESTIONS: usize = 2;
/// When a read that was refused is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(3);

type Answer = Result<Option<BookingView>, QueryFailure>;

struct Read {
    query: GetBooking,
    /// Of who asks, where its trace is recorded.
    place: Option<Traceparent>,
    tell: oneshot::Sender<Answer>,
}

/// Reads bookings.
pub struct Reads(mpsc::Sender<Read>);

impl Reads {
    /// Asks over this connection, until it is dropped.
    pub fn begin(nats: Nats) -> Self {
        let (queue, asked) = mpsc::channel(WAITING);
        tokio::spawn(ask(nats, asked));
        Self(queue)
    }

    /// One booking.
    ///
    /// # Errors
    /// Too many ask, or there is no answer.
    pub async fn booking(&self, query: GetBooking) -> Answer {
        let (tell, told) = oneshot::channel();
        let place = trace::here().as_deref().and_then(Traceparent::parse).filter(|place| place.sampled);
        self.0.try_send(Read { query, place, tell }).map_err(|_| too_many())?;
        let told = tokio::time::timeout(PATIENCE, told).await.map_err(|_| QueryFailure::TimedOut)?;
        told.unwrap_or(Err(QueryFailure::Disconnected))
    }
}

fn too_many() -> QueryFailure {
    let details = Some(json!({ "retry_after_ms": RETRY_AFTER.as_millis() }));
    QueryFailure::Refused(QueryError { details, ..QueryError::new(codes::BUSY, "too many look at bookings") })
}

async fn ask(nats: Nats, mut asked: mpsc::Receiver<Read>) {
    let (questions, mut ready) = (Arc::new(Semaphore::new(QUESTIONS)), Vec::new());
    while let Ok(permit) = questions.clone().acquire_owned().await {
        if asked.recv_many(&mut ready, BATCH).await == 0 {
            return;
        }
        let (nats, reads) = (nats.clone(), std::mem::take(&mut ready));
        tokio::spawn(async move {
            answer(&nats, reads).await;
            drop(permit);
        });
    }
}

/// Asks until each read is answered, or none can be.
async fn answer(nats: &Nats, mut reads: Vec<Read>) {
    // Who gave up needs none.
    reads.retain(|read| !read.tell.is_closed());
    // A trace of its own, linked to those of who asked.
    let span = Span::linked("look at bookings", reads.iter().filter_map(|read| read.place));
    let place = span.as_ref().map(Span::place);
    while !reads.is_empty() {
        let queries: Vec<&GetBooking> = reads.iter().map(|read| &read.query).collect();
        let asked = nats.query::<Vec<Option<BookingView>>>(ORCHESTRATOR, GET_BOOKINGS, &queries);
        match trace::within(place, asked).await {
            Ok(bookings) if (1..=reads.len()).contains(&bookings.len()) => {
                let answered = reads.drain(..bookings.len()).zip(bookings);
                answered.for_each(|(read, booking)| drop(read.tell.send(Ok(booking))));
            }
            Ok(_) => return fail(reads, &QueryFailure::Malformed("not as many bookings as were asked for".into())),
            Err(failure) => return fail(reads, &failure),
        }
    }
}

fn fail(reads: Vec<Read>, failure: &QueryFailure) {
    reads.into_iter().for_each(|read| drop(read.tell.send(Err(failure.clone()))));
}
