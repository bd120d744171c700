//! `PATCH /v1/events/{id}`.

use axum::extract::State;
use axum::response::Response;
use eventicket_contracts::events::{Event, NewTicketType, UPDATE, UpdateEvent};
use eventicket_contracts::{EventId, Timestamp};
use eventicket_kit::Problem;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::NewEvent;
use super::decision::decided;
use crate::app::Shared;
use crate::auth::Organizer;
use crate::backend::EVENTS;
use crate::etag::IfMatch;
use crate::extract::{EventBody, Id, located};
use crate::prefer::Wait;

/// Fields of an event that are not written.
const READ_ONLY: [&str; 7] = ["id", "organizer_id", "state", "version", "change", "created_at", "updated_at"];

/// What changes of an event; fields that are not given stay. It is read as a patch, so that this form only documents it.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct EventPatch {
    /// Its title.
    #[schema(nullable = false, min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    title: Option<String>,
    /// Plain text.
    #[schema(max_length = 10000, pattern = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$")]
    description: Option<String>,
    /// As `concert`, `match`, `workshop`, `theatre`.
    #[schema(nullable = false, min_length = 1, max_length = 50, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    category: Option<String>,
    /// Begin.
    #[schema(nullable = false)]
    starts_at: Option<Timestamp>,
    /// End, after the begin.
    #[schema(nullable = false)]
    ends_at: Option<Timestamp>,
    /// IANA name.
    #[schema(nullable = false, max_length = 64)]
    timezone: Option<String>,
    /// Any fields of a `Venue`.
    #[schema(nullable = false)]
    venue: Option<VenuePatch>,
    /// All of them; each that stays with its `id`.
    #[schema(nullable = false, min_items = 1, max_items = 50)]
    ticket_types: Option<Vec<NewTicketType>>,
    /// Length of a hold in seconds.
    #[schema(minimum = 1, maximum = 86400)]
    hold_seconds: Option<u32>,
    /// Most tickets of the event for one customer, over all bookings.
    #[schema(minimum = 1)]
    max_per_customer: Option<u32>,
}

/// What changes of a venue; fields that are not given stay.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct VenuePatch {
    /// Its name.
    #[schema(nullable = false, min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    name: Option<String>,
    /// Street and number.
    #[schema(max_length = 300, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    address: Option<String>,
    /// City.
    #[schema(nullable = false, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    city: Option<String>,
    /// ISO 3166 code of two letters.
    #[schema(nullable = false, pattern = "^[A-Z]{2}$")]
    country: Option<String>,
    /// Degrees north.
    #[schema(minimum = -90, maximum = 90)]
    latitude: Option<f64>,
    /// Degrees east.
    #[schema(minimum = -180, maximum = 180)]
    longitude: Option<f64>,
}

/// Edit an event
///
/// A JSON merge patch (RFC 7396) of the fields of `NewEvent`: fields that are not given stay, null takes one away, and
/// `ticket_types` is given whole, each type that stays with its `id`.
///
/// A draft changes at once, and so does, in every state, what is only shown: description, category, time zone and venue.
/// The rest of an event that is or was on sale is what bookings sells, and bookings decides on the change, until the event
/// is over: the event is shown as it was until then. Answered when it has decided; 202 where that takes longer, and then
/// the event's `change` tells. After a refusal the event is as it was, of a new version.
#[utoipa::path(
    patch, path = "/v1/events/{id}", tag = "events", operation_id = "edit_event",
    params(
        ("id" = EventId, Path, description = "The event"),
        ("If-Match" = String, Header, description = "The `ETag` of the version that was read", example = "\"1\""),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: how many seconds to wait, at most 30; 5 where it is not sent", example = "wait=10"),
    ),
    request_body(content = EventPatch, content_type = "application/merge-patch+json",
        description = "Any of these fields", example = json!({"title": "Midsummer Night", "venue": {"city": "Graz"}})),
    responses(
        (status = 200, description = "The event as it is now", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example("published"))),
        (status = 202, description = "Bookings has not decided yet", body = Event, headers(("ETag" = String, description = "Its version")), example = json!(super::example_under_way("published"))),
        (status = 409, description = "`below_sold`: fewer tickets than are held or sold, or another refusal of bookings, as `has_bookings`; `change_pending`: bookings still decides on another change of the last minute; `event_over`: it has ended; or `event_cancelled`"),
        (status = 412, description = "`version_conflict`: it was changed since it was read"),
        (status = 428, description = "`precondition_required`: `If-Match` is missing"),
    ),
    security(("bearer" = ["organizer", "admin"])),
)]
pub async fn edit(
    State(app): State<Shared>,
    Organizer(caller): Organizer,
    Id(id): Id<EventId>,
    if_match: IfMatch,
    wait: Wait,
    body: EventBody<Map<String, Value>>,
) -> Result<Response, Problem> {
    let if_match = if_match.required()?;
    let current = super::read(&app, id, caller.viewer()).await?;
    if_match.check(current.version)?;
    let version = current.version;
    let details = patched(&current, body.value)?;
    let update = UpdateEvent { id, viewer: caller.viewer(), version, details: details.into() };
    let updated: Option<Event> = app.backend.write(EVENTS, UPDATE, &update).await?;
    let event = updated.ok_or_else(Problem::not_found)?;
    decided(&app, event, caller.viewer(), wait).await
}

/// The event's own fields with the patch merged in; what is not known is refused with its name.
fn patched(current: &Event, patch: Map<String, Value>) -> Result<NewEvent, Problem> {
    let mut merged = serde_json::to_value(current).map_err(|_| Problem::internal())?;
    if let Some(fields) = merged.as_object_mut() {
        fields.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    }
    merge(&mut merged, Value::Object(patch));
    located(merged)
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else { return *target = patch };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patch(with: Value) -> Result<NewEvent, Problem> {
        let current: Event = serde_json::from_value(super::super::example("draft")).unwrap();
        let Value::Object(with) = with else { panic!("a patch is an object") };
        patched(&current, with)
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        let event =
            patch(json!({"title": "New", "hold_seconds": 60, "venue": {"city": "Graz", "address": "Main 1"}})).unwrap();
        assert_eq!((event.title.as_str(), event.hold_seconds, event.venue.city.as_str()), ("New", Some(60), "Graz"));
        assert_eq!((event.category.as_str(), event.venue.name.as_str()), ("concert", "Arena"));
        assert!(event.ticket_types[0].id.is_some(), "a type keeps its id");
    }

    #[test]
    fn faults_name_their_field() {
        for (with, field, code) in [
            (json!({"titel": "x"}), "titel", "unknown_field"),
            (json!({"state": "published"}), "state", "unknown_field"),
            (json!({"change": null, "venue": {"town": "Graz"}}), "venue.town", "unknown_field"),
            (
                json!({"ticket_types": [{"name": "A", "price": {"amount": 1, "currency": "EUR", "vat": 2}, "quantity": 1}]}),
                "ticket_types[0].price.vat",
                "unknown_field",
            ),
            (json!({"title": null}), "title", "required"),
            (json!({"ticket_types": [{"name": "A"}]}), "ticket_types[0].price", "required"),
            (json!({"starts_at": "tomorrow"}), "starts_at", "invalid"),
        ] {
            let errors = patch(with).err().unwrap().errors;
            assert_eq!((errors[0].field.as_str(), errors[0].code.as_str()), (field, code));
        }
    }
}
