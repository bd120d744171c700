//! `POST /v1/events`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use eventicket_contracts::events::{CREATE, CreateEvent, Event};
use eventicket_kit::Problem;

use super::NewEvent;
use crate::app::Shared;
use crate::auth::Organizer;
use crate::backend::EVENTS;
use crate::etag;
use crate::extract::EventBody;

/// Make an event
///
/// A draft, seen by its organizer only until it is published. A ticket type is numbered where it has `seats`: at most
/// 10,000 labels of 1 to 24 characters, each once in the event, in the plan's order, and as many as its `quantity`. The
/// body has at most 512 KiB. A repeat with the same `Idempotency-Key` finds the first.
#[utoipa::path(
    post, path = "/v1/events", tag = "events", operation_id = "create_event",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters", example = "a1b2c3")),
    request_body(content = NewEvent, example = json!(super::example_body())),
    responses(
        (status = 201, description = "The draft", body = Event, headers(
            ("Location" = String, description = "Where it is"),
            ("ETag" = String, description = "Its version"),
        ), example = json!(super::example("draft"))),
        (status = 422, description = "`validation`: some fields are not valid; or `idempotency_key_reused`"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn create(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    body: EventBody<NewEvent>,
) -> Result<Response, Problem> {
    let command = CreateEvent { organizer: caller.id, details: body.value.into(), idempotency: body.idempotency };
    let event: Event = app.backend.write(EVENTS, CREATE, &command).await?;
    let location = [(header::LOCATION, format!("/v1/events/{}", event.id))];
    Ok(etag::tagged(event.version, (StatusCode::CREATED, location, Json(&event)).into_response()))
}
