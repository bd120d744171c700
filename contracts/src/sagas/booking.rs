//! The booking saga: its input, and a booking as its customer sees it.

use serde::{Deserialize, Serialize};

use crate::bookings::{Line, ReserveItem};
use crate::payments::NextAction;
use crate::subjects::Service;
use crate::{BookingId, CustomerId, EventId, Money, Timestamp};

/// Name of the booking saga.
pub const BOOKING: &str = "booking";
/// The signal that a booking's wait for a payment method takes; its payload is a [`PaymentMethod`].
pub const PAYMENT_METHOD: &str = "payment_method";

/// What the signal [`PAYMENT_METHOD`] brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentMethod {
    /// Sealed by the gateway.
    pub method: String,
}

/// Input of the booking saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookingInput {
    /// The event.
    pub event: EventId,
    /// Who books.
    pub customer: CustomerId,
    /// What is booked.
    pub items: Vec<ReserveItem>,
    /// What the client expects to pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_total: Option<Money>,
    /// The payment method, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// The services that a booking's saga surely calls before it waits for anybody or is past its point of no return, as far
/// as is known before its first step.
pub fn surely_called(has_method: bool, expected_total: Option<Money>) -> &'static [&'static str] {
    const ALL: [&str; 2] = [Service::BOOKINGS.name(), Service::PAYMENTS.name()];
    let pays = has_method && expected_total.is_none_or(|total| total.amount > 0);
    if pays { &ALL } else { &ALL[..1] }
}

/// The status of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BookingStatus {
    /// Under way.
    Pending,
    /// Waits for a payment method or for an action of the customer.
    AwaitingPayment,
    /// The tickets exist.
    Confirmed,
    /// Ended without tickets, for the given reason.
    Failed,
    /// The hold ran out.
    Expired,
    /// The customer or an operator cancelled.
    Cancelled,
    /// Was confirmed, and given back.
    Refunded,
}

impl BookingStatus {
    /// As it stands in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::AwaitingPayment => "awaiting_payment",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
        }
    }
}

/// What happens to the money of a booking that ended without tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// Nothing was taken, or nothing is to be given back.
    None,
    /// On its way.
    Pending,
    /// Given back.
    Done,
    /// Somebody looks at it.
    Attention,
}

/// A booking as its customer sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BookingView {
    /// Its id.
    pub id: BookingId,
    /// Its status.
    pub status: BookingStatus,
    /// Why it ended so, a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "sold_out")]
    pub reason: Option<String>,
    /// The event.
    pub event_id: EventId,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// What was asked for.
    pub items: Vec<BookedItem>,
    /// What is held or sold, at frozen prices; empty until the hold.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
    /// When the hold ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<Timestamp>,
    /// What the customer has to do for the payment under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_action: Option<NextAction>,
    /// Code of the last decline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decline: Option<String>,
    /// What happens to the money.
    pub refund: RefundStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Rises with each change.
    pub version: i64,
}

/// A number of tickets of one type, as asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BookedItem {
    /// The type.
    pub ticket_type_id: crate::TicketTypeId,
    /// How many.
    #[schema(minimum = 1)]
    pub quantity: u32,
    /// The seats that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<String>,
}

/// Query: a list of [`GetBooking`] to a list of `Option<BookingView>`, in that order. The answer may be shorter than the
/// question, but not empty: what does not fit is asked for again.
pub const GET_BOOKINGS: &str = "bookings_by_id";
/// Query: [`ListBookings`] to `Page<BookingView>`, newest first.
pub const LIST_BOOKINGS: &str = "bookings";

/// Reads one booking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetBooking {
    /// Which.
    pub id: BookingId,
    /// Only where it belongs to this customer.
    pub owner: Option<CustomerId>,
}

/// Reads a customer's bookings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListBookings {
    /// Whose.
    pub owner: CustomerId,
    /// 1 to 100.
    pub limit: u32,
    /// Only older than this one.
    pub before: Option<BookingId>,
}
