//! Commands and queries of the events service.

use serde::{Deserialize, Serialize};

use crate::identity::Idempotency;
use crate::{CustomerId, EventId, Money, SagaId, TicketTypeId, Timestamp};

/// The state of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    /// Seen by its organizer only.
    Draft,
    /// Its publication is under way.
    Publishing,
    /// On sale.
    Published,
    /// Taken off sale; can be published again.
    Stopped,
    /// Will not take place.
    Cancelled,
}

/// An event as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Who made it.
    pub organizer_id: CustomerId,
    /// Its state.
    pub state: EventState,
    /// Rises with each edit; the ETag.
    pub version: i64,
    /// The last change of what is sold, while bookings decides on it and where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<SaleChange>,
    /// Everything that its organizer wrote.
    #[serde(flatten)]
    pub details: EventDetails<TicketType>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A change of what is sold: publication, edit, stop or cancellation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SaleChange {
    /// The event's version that was offered to bookings.
    pub version: i64,
    /// Why it was refused; under way where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "below_sold")]
    pub refused: Option<String>,
}

/// What an organizer writes of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventDetails<T> {
    /// 1 to 200 characters.
    #[schema(example = "Midsummer Concert", min_length = 1, max_length = 200)]
    pub title: String,
    /// At most 10,000 characters.
    #[schema(max_length = 10000)]
    pub description: String,
    /// As `concert`, `match`, `workshop`, `theatre`; at most 50 characters.
    #[schema(example = "concert", min_length = 1, max_length = 50)]
    pub category: String,
    /// Begin.
    pub starts_at: Timestamp,
    /// End, after the begin.
    pub ends_at: Timestamp,
    /// IANA name, as `Europe/Vienna`.
    #[schema(example = "Europe/Vienna", max_length = 64)]
    pub timezone: String,
    /// Where.
    pub venue: Venue,
    /// 1 to 50 of them, all of one currency.
    #[schema(min_items = 1, max_items = 50)]
    pub ticket_types: Vec<T>,
    /// Length of a hold, 1 s to a day; 600 where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86400)]
    pub hold_seconds: Option<u32>,
    /// Most tickets for one customer; no limit where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_per_customer: Option<u32>,
}

/// Where an event takes place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Venue {
    /// Its name.
    #[schema(example = "Arena", min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub name: String,
    /// Street and number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 300, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub address: Option<String>,
    /// City.
    #[schema(example = "Vienna", min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub city: String,
    /// ISO 3166 code of two letters.
    #[schema(example = "AT", pattern = "^[A-Z]{2}$")]
    pub country: String,
    /// Degrees north.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -90, maximum = 90)]
    pub latitude: Option<f64>,
    /// Degrees east.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -180, maximum = 180)]
    pub longitude: Option<f64>,
}

/// The price of a ticket. It travels as any money, so that this form only documents its bounds.
#[derive(utoipa::ToSchema)]
pub struct Price {
    /// Minor units: 4200 is 42.00.
    #[schema(minimum = 0, maximum = 100_000_000, example = 4200)]
    pub amount: i64,
    /// ISO 4217 code in capitals.
    pub currency: crate::Currency,
}

/// The label of a seat. It travels as plain text, so that this form only documents it.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 24, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", example = "B-12")]
pub struct SeatLabel(pub String);

/// A ticket type as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewTicketType {
    /// The id of a type that exists, in an edit; a new type where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TicketTypeId>,
    /// 1 to 100 characters.
    #[schema(example = "Standing", min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub name: String,
    /// Price of one; zero is free.
    #[schema(value_type = Price)]
    pub price: Money,
    /// 1 to 10 million; the number of seats where the type is numbered.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub quantity: u32,
    /// Most in one order; no limit where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_per_order: Option<u32>,
    /// Labels of all seats in the plan's order, each once in the event; general admission where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<SeatLabel>, max_items = 10_000, example = json!([]))]
    pub seats: Vec<String>,
}

/// A ticket type as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TicketType {
    /// Its id.
    pub id: TicketTypeId,
    /// Its name.
    pub name: String,
    /// Price of one.
    pub price: Money,
    /// How many exist.
    pub quantity: u32,
    /// Most in one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_order: Option<u32>,
    /// Labels of all seats, where the type is numbered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<String>,
}

/// Query: [`CreateEvent`] to [`Event`]; error `validation` with the fields, `key_reused`.
pub const CREATE: &str = "create";
/// Query: [`GetEvent`] to `Option<Event>`.
pub const GET: &str = "event";
/// Query: [`ListEvents`] to [`EventPage`].
pub const LIST: &str = "list";
/// Query: [`UpdateEvent`] to `Option<Event>`: a draft is changed at once; for what is on sale it writes the row that opens
/// the saga, whose end shows in [`Event::change`]; errors `version_conflict`, `change_pending`, `event_over`, `validation`.
pub const UPDATE: &str = "update";
/// Query: [`OwnEvent`] to `Option<bool>`: deleted; errors `version_conflict`, `not_draft`.
pub const DELETE: &str = "delete";
/// Query: [`OwnEvent`] to `Option<Event>`: writes the row that opens the publish saga, and answers at once; errors
/// `version_conflict`, `change_pending`, `event_over`. Publishing what is published changes nothing.
pub const PUBLISH: &str = "publish";
/// Query: as [`PUBLISH`]: takes it off sale; bookings refuses that with `has_bookings` while tickets are held or sold.
pub const STOP: &str = "stop";
/// Query: as [`STOP`], for good; a draft is deleted instead (`not_published`).
pub const CANCEL: &str = "cancel";

/// Makes a draft.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateEvent {
    /// Who makes it.
    pub organizer: CustomerId,
    /// What it is.
    pub details: EventDetails<NewTicketType>,
    /// Repeats of the request find the first event.
    pub idempotency: Option<Idempotency>,
}

/// Reads one event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetEvent {
    /// Which.
    pub id: EventId,
    /// Drafts are seen by their organizer and by administrators.
    pub viewer: Viewer,
}

/// Who reads or edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Viewer {
    /// Sees what is published.
    Public,
    /// Sees its own drafts, too.
    Organizer(CustomerId),
    /// Sees and edits everything.
    Admin,
}

/// Reads events by their start, earliest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListEvents {
    /// Whose view.
    pub viewer: Viewer,
    /// Only those of the viewer itself.
    pub mine: bool,
    /// Only of this category.
    pub category: Option<String>,
    /// At most this many, 1 to 100.
    pub limit: u32,
    /// As the last page's `next`.
    pub cursor: Option<EventCursor>,
}

/// Where a page ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCursor {
    /// Start of the last event of the page.
    #[serde(with = "crate::time::millis")]
    pub starts_at: Timestamp,
    /// Its id.
    pub id: EventId,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventPage {
    /// The events, without the labels of their seats.
    pub items: Vec<Event>,
    /// Where the next page begins.
    pub next: Option<EventCursor>,
}

/// Edits an event: fields that are `None` stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpdateEvent {
    /// Which.
    pub id: EventId,
    /// Who edits; others' events are not found.
    pub viewer: Viewer,
    /// The version that was read.
    pub version: i64,
    /// What it is from now on.
    pub details: EventDetails<NewTicketType>,
}

/// Deletes, publishes, stops or cancels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnEvent {
    /// Which.
    pub id: EventId,
    /// Who; others' events are not found.
    pub viewer: Viewer,
    /// The version that was read, where it matters.
    pub version: Option<i64>,
}

/// `events.settle`: bookings has decided on a change of what is sold. Answer: done, with null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settle {
    /// The event.
    pub event: EventId,
    /// The version that was offered.
    pub version: i64,
    /// Why it was refused, a stable code; it is sold so where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Input of the saga `publish_event`, for publication and every later change, which the events service starts from a row of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishEvent {
    /// What bookings shall sell.
    pub offer: crate::bookings::Offer,
}

/// Payload of `evt.event.published`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventPublished {
    /// The event as it is now.
    pub event: Event,
    /// The saga that published it.
    pub saga: SagaId,
}
