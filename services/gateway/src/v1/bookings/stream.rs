//! `GET /v1/bookings/{id}/stream`: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use eventicket_contracts::sagas::{BookingStatus, BookingView};
use eventicket_contracts::{BookingId, CustomerId};
use eventicket_kit::Problem;
use futures::stream::{Stream, unfold};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::read;
use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::backend;
use crate::extract::Id;
use crate::status::Waiter;

/// Pause between two comments that keep the connection open; after it the booking is read again, since a hint can be
/// lost.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest life of a stream; clients come again by themselves.
const MAX_LIFE: Duration = Duration::from_secs(3_600);
/// When a client should come again.
const RETRY: Duration = Duration::from_secs(2);

/// An event of the stream. It is written as such, so that this form only documents it.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct StatusEvent {
    /// Always `status`.
    event: String,
    /// The booking's version.
    id: String,
    /// The booking in JSON, as it is shown.
    data: String,
    /// Milliseconds after which a client whose connection was cut comes again.
    retry: u32,
}

/// Follow a booking
///
/// Server-sent events: an event `status` with the booking at once and at each change, until its status is final
/// (`confirmed`, `failed`, `expired`, `cancelled`, `refunded`).
#[utoipa::path(
    get, path = "/v1/bookings/{id}/stream", tag = "bookings", operation_id = "stream_booking",
    params(("id" = BookingId, Path, description = "The booking")),
    responses(
        (status = 200, description = "The changes", body = StatusEvent, content_type = "text/event-stream", example = json!(
            "event: status\nid: 5\ndata: {\"id\":\"01936f0e-8f4e-7cc2-9a56-0242ac120002\",\"status\":\"confirmed\"}\n\n")),
        (status = 429, description = "`busy`: too many streams are open; or `rate_limited`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn stream(
    State(app): State<Shared>,
    caller: Caller,
    Id(id): Id<BookingId>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let permit = app.streams.clone().try_acquire_owned().map_err(|_| backend::busy(Some(RETRY)))?;
    let waiter = app.status.wait(id);
    let first = read(&app, id, caller.reads()).await?;
    let follower = Follower {
        owner: caller.reads(),
        until: Instant::now() + MAX_LIFE,
        app,
        waiter,
        known: first,
        told: None,
        _permit: permit,
    };
    let events = unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// One stream.
struct Follower {
    app: Arc<App>,
    owner: Option<CustomerId>,
    waiter: Waiter,
    known: BookingView,
    /// The version that was told last.
    told: Option<i64>,
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// The next change; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        while self.told.is_some_and(|told| told >= self.known.version) {
            if is_final(self.known.status) {
                return None;
            }
            tokio::select! {
                () = self.waiter.changed() => {}
                () = tokio::time::sleep(KEEP_ALIVE) => {}
                () = tokio::time::sleep_until(self.until) => return None,
                () = self.app.shutdown.cancelled() => return None,
            }
            match read(&self.app, self.known.id, self.owner).await {
                Ok(now) => self.known = now,
                // The client comes again, and is told then what is wrong.
                Err(_) => return None,
            }
        }
        self.told = Some(self.known.version);
        let event = Event::default().event("status").id(self.known.version.to_string()).retry(RETRY);
        event.json_data(&self.known).ok()
    }
}

fn is_final(status: BookingStatus) -> bool {
    !matches!(status, BookingStatus::Pending | BookingStatus::AwaitingPayment)
}
