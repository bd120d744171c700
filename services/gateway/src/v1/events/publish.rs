//! `POST /v1/events/{id}/publish`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use eventicket_contracts::EventId;
use eventicket_contracts::events::{Event, EventState, OwnEvent, PUBLISH, Viewer};
use eventicket_kit::Problem;
use tokio::time::Instant;

use crate::app::{App, Shared};
use crate::auth::Organizer;
use crate::backend::EVENTS;
use crate::etag::{self, IfMatch};
use crate::extract::Id;

/// How long the publication is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at it: publications are few.
const LOOK: Duration = Duration::from_millis(50);

/// Put an event on sale
///
/// Answered when it is on sale; 202 where that takes longer, and then the event's `state` tells. Publishing what is
/// published changes nothing.
#[utoipa::path(
    post, path = "/v1/events/{id}/publish", tag = "events", operation_id = "publish_event",
    params(
        ("id" = EventId, Path, description = "The event"),
        ("If-Match" = Option<String>, Header, description = "Only this version", example = "\"1\""),
    ),
    responses(
        (status = 200, description = "It is on sale", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example("published"))),
        (status = 202, description = "It will be on sale", body = Event, example = json!(super::example("publishing"))),
        (status = 409, description = "`event_over`: it has ended"),
        (status = 412, description = "`version_conflict`: it was changed since it was read"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn publish(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    Id(id): Id<EventId>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let viewer = caller.viewer();
    let version = meant(&app, id, viewer, &if_match).await?;
    let accepted: Option<Event> = app.backend.write(EVENTS, PUBLISH, &OwnEvent { id, viewer, version }).await?;
    let event = settled(&app, accepted.ok_or_else(Problem::not_found)?, viewer).await;
    let status = if event.state == EventState::Publishing { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(etag::tagged(event.version, (status, Json(&event)).into_response()))
}

/// The version that a request is about, where it names one.
pub async fn meant(app: &App, id: EventId, viewer: Viewer, if_match: &IfMatch) -> Result<Option<i64>, Problem> {
    if matches!(if_match, IfMatch::Absent | IfMatch::Any) {
        return Ok(None);
    }
    let current = super::read(app, id, viewer).await?;
    if_match.check(current.version)?;
    Ok(Some(current.version))
}

/// The event once its publication has ended, or as it is when that takes too long.
async fn settled(app: &App, mut event: Event, viewer: Viewer) -> Event {
    let until = Instant::now() + PATIENCE;
    while event.state == EventState::Publishing && Instant::now() < until {
        let woken = app.shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        match super::read(app, event.id, viewer).await {
            Ok(now) if woken.is_some() => event = now,
            _ => return event, // it was accepted: that much is known
        }
    }
    event
}
