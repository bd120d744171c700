//! Events: made as drafts, then published. What is sold of them is decided by bookings, which [`decision`] waits for.

pub mod availability;
pub mod cancel;
pub mod create;
mod decision;
pub mod delete;
pub mod edit;
pub mod list;
pub mod publish;
pub mod show;
pub mod stop;

use eventicket_contracts::EventId;
use eventicket_contracts::Timestamp;
use eventicket_contracts::events::{Event, EventDetails, GET, GetEvent, NewTicketType, OwnEvent, Venue, Viewer};
use eventicket_kit::Problem;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::backend::EVENTS;
use crate::etag::IfMatch;

/// What an organizer writes of an event.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Its title.
    #[schema(example = "Midsummer Concert", min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    title: String,
    /// Plain text.
    #[serde(default)]
    #[schema(max_length = 10000, pattern = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$")]
    description: String,
    /// As `concert`, `match`, `workshop`, `theatre`.
    #[schema(example = "concert", min_length = 1, max_length = 50, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    category: String,
    /// Begin.
    starts_at: Timestamp,
    /// End, after the begin.
    ends_at: Timestamp,
    /// IANA name.
    #[schema(example = "Europe/Vienna", max_length = 64)]
    timezone: String,
    /// Where.
    venue: Venue,
    /// All of one currency.
    #[schema(min_items = 1, max_items = 50)]
    ticket_types: Vec<NewTicketType>,
    /// Length of a hold in seconds; 600 where none.
    #[schema(minimum = 1, maximum = 86400)]
    hold_seconds: Option<u32>,
    /// Most tickets of the event for one customer, over all bookings; no limit where none.
    #[schema(minimum = 1)]
    max_per_customer: Option<u32>,
}

/// The events service checks lengths, ranges and dates; here it is only made sure that nothing else is said.
impl From<NewEvent> for EventDetails<NewTicketType> {
    fn from(new: NewEvent) -> Self {
        Self {
            title: new.title,
            description: new.description,
            category: new.category,
            starts_at: new.starts_at,
            ends_at: new.ends_at,
            timezone: new.timezone,
            venue: new.venue,
            ticket_types: new.ticket_types,
            hold_seconds: new.hold_seconds,
            max_per_customer: new.max_per_customer,
        }
    }
}

/// The event, as far as the viewer sees it.
async fn read(app: &App, id: EventId, viewer: Viewer) -> Result<Event, Problem> {
    let event: Option<Event> = app.backend.read(EVENTS, GET, &GetEvent { id, viewer }).await?;
    event.ok_or_else(Problem::not_found)
}

/// The version that a request is about, where it names one.
async fn meant(app: &App, id: EventId, viewer: Viewer, if_match: &IfMatch) -> Result<Option<i64>, Problem> {
    if matches!(if_match, IfMatch::Absent | IfMatch::Any) {
        return Ok(None);
    }
    let current = read(app, id, viewer).await?;
    if_match.check(current.version)?;
    Ok(Some(current.version))
}

/// Asks the events service to put an event on sale or off; the event as it then is.
async fn turn(app: &App, name: &str, id: EventId, viewer: Viewer, if_match: &IfMatch) -> Result<Event, Problem> {
    let version = meant(app, id, viewer, if_match).await?;
    let turned: Option<Event> = app.backend.write(EVENTS, name, &OwnEvent { id, viewer, version }).await?;
    turned.ok_or_else(Problem::not_found)
}

/// A body for the documentation.
fn example_body() -> Value {
    json!({
        "title": "Midsummer Concert",
        "description": "An evening under the open sky.",
        "category": "concert",
        "starts_at": "2027-06-20T18:00:00Z",
        "ends_at": "2027-06-20T21:00:00Z",
        "timezone": "Europe/Vienna",
        "venue": {"name": "Arena", "city": "Vienna", "country": "AT"},
        "ticket_types": [
            {"name": "Standing", "price": {"amount": 4200, "currency": "EUR"}, "quantity": 500, "max_per_order": 8},
            {"name": "Box", "price": {"amount": 9000, "currency": "EUR"}, "quantity": 3, "seats": ["L-1", "L-2", "L-3"]},
        ],
        "max_per_customer": 10,
    })
}

/// An event for the documentation.
fn example(state: &str) -> Value {
    let mut event = example_body();
    event["id"] = json!("01936f0e-8f4e-7cc2-9a56-0242ac120002");
    event["organizer_id"] = json!("01936f0e-0000-7cc2-9a56-0242ac120003");
    event["state"] = json!(state);
    event["version"] = json!(1);
    event["created_at"] = json!("2027-01-12T09:30:00.000Z");
    event["updated_at"] = json!("2027-01-12T09:30:00.000Z");
    event["starts_at"] = json!("2027-06-20T18:00:00.000Z");
    event["ends_at"] = json!("2027-06-20T21:00:00.000Z");
    event["ticket_types"][0]["id"] = json!("01936f0e-1111-7cc2-9a56-0242ac120004");
    event["ticket_types"][1]["id"] = json!("01936f0e-1111-7cc2-9a56-0242ac120014");
    event
}

/// The same with a change that bookings has not decided yet.
fn example_under_way(state: &str) -> Value {
    let mut event = example(state);
    event["version"] = json!(4);
    event["change"] = json!({"version": 4});
    event
}
