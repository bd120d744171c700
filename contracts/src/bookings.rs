//! Commands and queries of the bookings service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BookingId, CustomerId, EventId, Money, TicketTypeId, Timestamp};

/// `bookings.reserve`: takes capacity under a hold that ends by itself. Answer: [`Reserved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// The event; the ordering key.
    pub event: EventId,
    /// Who books.
    pub customer: CustomerId,
    /// What is booked; each ticket type once.
    pub items: Vec<ReserveItem>,
    /// Refused with `price_changed` where the total differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_total: Option<Money>,
    /// The hold's length in seconds where the event names none.
    pub hold_seconds: u32,
    /// Seconds after the hold's end in which a confirm is still accepted: longer than all tries to pay. Bookings frees
    /// the hold by itself only after them.
    pub grace_seconds: u32,
}

/// A number of tickets of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveItem {
    /// The type.
    pub ticket_type: TicketTypeId,
    /// At least 1.
    pub quantity: u32,
    /// Labels of the seats, as many as `quantity`; for a numbered type bookings chooses the first free ones where none
    /// is given, and a type without seats takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<String>,
}

/// The hold, with everything that later steps need, frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserved {
    /// What was held, in the order asked for.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Money,
    /// When the hold ends.
    #[serde(with = "crate::time::millis")]
    pub hold_until: Timestamp,
    /// The event's title at this time.
    pub title: String,
}

/// One line of a booking, its price frozen at the hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Line {
    /// The ticket type.
    pub ticket_type_id: TicketTypeId,
    /// Its name at the time of the hold.
    pub name: String,
    /// Number of tickets.
    #[schema(minimum = 1)]
    pub quantity: u32,
    /// Price of one.
    pub unit_price: Money,
    /// Labels of the seats, where the type is numbered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<String>,
}

/// `bookings.release`: the undo of reserve. Answer: done, with null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The event; the ordering key.
    pub event: EventId,
    /// Why: `hold_expired` makes it `booking.expired`, anything else `booking.cancelled`.
    pub reason: String,
}

/// `bookings.confirm`: turns the hold of the saga's RESERVE round into tickets. Answer: [`Confirmed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirm {
    /// The event; the ordering key.
    pub event: EventId,
    /// The step and round that made the hold, as `RESERVE` and 1.
    pub hold_step: String,
    /// Its round.
    pub hold_round: u32,
}

/// The tickets exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Number of tickets made.
    pub tickets: u32,
}

/// `bookings.offer`: what is sold from now on. Answer: done, with [`Offered`]; an older version changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The event; the ordering key.
    pub event: EventId,
    /// The event's version; a lower one than is known is ignored.
    pub version: i64,
    /// Shown to customers.
    pub title: String,
    /// When it begins; nothing is sold after its end.
    #[serde(with = "crate::time::millis")]
    pub starts_at: Timestamp,
    /// When it ends.
    #[serde(with = "crate::time::millis")]
    pub ends_at: Timestamp,
    /// Whether it can be booked. Turned off only while nothing is held or sold, `has_bookings` otherwise.
    pub on_sale: bool,
    /// It will not take place: nothing is held or confirmed any more.
    #[serde(default)]
    pub cancelled: bool,
    /// Length of holds; the platform's default where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u32>,
    /// Most tickets of the event for one customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_customer: Option<u32>,
    /// All types of ticket, also those that did not change.
    pub ticket_types: Vec<OfferedType>,
}

/// A ticket type as it is sold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferedType {
    /// Its id.
    pub id: TicketTypeId,
    /// Its name.
    pub name: String,
    /// Price of one.
    pub price: Money,
    /// How many exist.
    pub quantity: u32,
    /// Most of them in one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_order: Option<u32>,
    /// Labels of all seats in the plan's order, `quantity` of them; empty for general admission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<String>,
}

/// The version that is on sale now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// Not below the one that was sent.
    pub version: i64,
}

/// Name of the query for a booking's tickets: [`TicketsQuery`] to `Vec<Ticket>`.
pub const TICKETS: &str = "tickets";
/// Name of the query for what is left of an event: [`AvailabilityQuery`] to `Option<Availability>`.
pub const AVAILABILITY: &str = "availability";

/// Asks for the tickets of a booking; empty where there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketsQuery {
    /// The booking.
    pub booking: BookingId,
    /// Only where it belongs to this customer.
    pub customer: Option<CustomerId>,
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ticket {
    /// Unguessable, shown at the door: 26 characters of Crockford's base 32, 130 bits at random.
    #[schema(example = "7ZK3Q9M2T5V8X1B4C6D0E7F9GH")]
    pub code: String,
    /// The event.
    pub event_id: EventId,
    /// Its type.
    pub ticket_type_id: TicketTypeId,
    /// The type's name when it was booked.
    pub name: String,
    /// The seat's label, where the type is numbered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "B-12")]
    pub seat: Option<String>,
    /// When it was made.
    pub issued_at: Timestamp,
}

/// Asks what is left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AvailabilityQuery {
    /// The event.
    pub event: EventId,
}

/// What is left of an event; true when it was read, gone the next moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Availability {
    /// The event.
    pub event_id: EventId,
    /// Whether it can be booked.
    pub on_sale: bool,
    /// By ticket type.
    pub ticket_types: Vec<TypeAvailability>,
}

/// What is left of a ticket type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TypeAvailability {
    /// The type.
    pub ticket_type_id: TicketTypeId,
    /// All that exist.
    pub quantity: u32,
    /// Neither held nor sold.
    pub available: u32,
    /// Labels of the free seats in the plan's order, where the type is numbered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_seats: Option<Vec<String>>,
}

/// Data of `booking.held`. The aggregate of all events about bookings is the booking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookingHeld {
    /// The event.
    pub event_id: EventId,
    /// Who booked.
    pub customer_id: CustomerId,
    /// Number of tickets.
    pub tickets: u32,
    /// What they cost.
    pub total: Money,
    /// When the hold ends.
    pub hold_until: Timestamp,
}

/// Data of `booking.confirmed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookingConfirmed {
    /// The event.
    pub event_id: EventId,
    /// Who booked.
    pub customer_id: CustomerId,
    /// What was booked.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Money,
}

/// Data of `booking.expired` and `booking.cancelled`: the tickets are on sale again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookingEnded {
    /// The event.
    pub event_id: EventId,
    /// Who had booked.
    pub customer_id: CustomerId,
    /// Number of tickets given back.
    pub tickets: u32,
    /// Why, as `hold_expired`.
    pub reason: String,
}

/// How long a hold lasts where the event names nothing.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(600);
