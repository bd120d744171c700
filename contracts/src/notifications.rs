//! Commands and queries of the notifications service.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BookingId, CustomerId};

/// `notifications.send`: done when the delivery is committed; it leaves from there. Answer: done, with null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    /// Which text, see [`TEMPLATES`].
    pub template: String,
    /// Who gets it; the address is asked of identity when the message leaves.
    pub customer: CustomerId,
    /// What the template fills in.
    pub data: Value,
}

/// A booking is confirmed; data: [`BookingMail`].
pub const BOOKING_CONFIRMED: &str = "booking_confirmed";
/// The templates that exist; another name is rejected.
pub const TEMPLATES: [&str; 1] = [BOOKING_CONFIRMED];

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
