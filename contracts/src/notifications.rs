//! Commands and queries of the notifications service.

use serde::{Deserialize, Serialize};

use crate::{BookingId, CustomerId, Json, Timestamp};

/// `notifications.send`: done when the delivery is committed; it leaves from there. Answer: done, with null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    /// Which text, see [`TEMPLATES`].
    pub template: String,
    /// Who gets it; the address is asked of identity when the message leaves.
    pub customer: CustomerId,
    /// What the template fills in.
    pub data: Json,
}

/// A booking is confirmed; data: [`BookingMail`].
pub const BOOKING_CONFIRMED: &str = "booking_confirmed";
/// A booking that was charged has ended without tickets: what happens to the money; data: [`RefundMail`].
pub const BOOKING_REFUNDED: &str = "booking_refunded";
/// The templates that exist; another name is rejected.
pub const TEMPLATES: [&str; 2] = [BOOKING_CONFIRMED, BOOKING_REFUNDED];

/// What a mail about the money of a failed booking says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefundMail {
    /// The booking.
    pub booking: BookingId,
    /// The event's title.
    pub title: String,
    /// Why there are no tickets, a stable code as `hold_expired`.
    pub reason: String,
    /// What was charged and is given back.
    pub amount: crate::Money,
}

/// What a mail about a booking says; the tickets themselves are asked of bookings when it leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookingMail {
    /// The booking.
    pub booking: BookingId,
    /// The event's title.
    pub title: String,
    /// The lines with their frozen prices.
    pub lines: Vec<crate::bookings::Line>,
    /// The total.
    pub total: crate::Money,
}

/// Query: [`DeliveriesQuery`] to `Vec<Delivery>`, oldest first.
pub const DELIVERIES: &str = "deliveries";

/// Asks for what was sent about a booking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveriesQuery {
    /// The booking.
    pub booking: BookingId,
}

/// A mail and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The saga's step that asked for it.
    pub step: String,
    /// Its round.
    pub round: u32,
    /// Which text.
    pub template: String,
    /// `due`, `sent`, `failed` (given up) or `refused`.
    pub state: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed; holds no address.
    pub last_error: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was handed to the mail server or given up.
    pub ended_at: Option<Timestamp>,
}
