//! Stable codes of rejections and of REST problems.

/// No ticket is left.
pub const SOLD_OUT: &str = "sold_out";
/// The event is not, or no longer, on sale.
pub const NOT_ON_SALE: &str = "not_on_sale";
/// The event has begun or ended.
pub const EVENT_OVER: &str = "event_over";
/// No such event or ticket type.
pub const UNKNOWN_TICKET_TYPE: &str = "unknown_ticket_type";
/// More tickets of a type than one order may hold.
pub const ORDER_LIMIT: &str = "order_limit";
/// More tickets than one customer may hold.
pub const CUSTOMER_LIMIT: &str = "customer_limit";
/// A seat is held or sold.
pub const SEAT_TAKEN: &str = "seat_taken";
/// No such seat, or seats of a type that has none, or another number of seats than of tickets.
pub const UNKNOWN_SEAT: &str = "unknown_seat";
/// The event was cancelled.
pub const EVENT_CANCELLED: &str = "event_cancelled";
/// Tickets are held or sold.
pub const HAS_BOOKINGS: &str = "has_bookings";
/// The total differs from the one that the client expected.
pub const PRICE_CHANGED: &str = "price_changed";
/// Ticket types of different currencies in one booking, or a total beyond measure.
pub const MIXED_CURRENCIES: &str = "mixed_currencies";
/// The hold is gone.
pub const HOLD_GONE: &str = "hold_gone";
/// The hold was confirmed, so that it is no longer undone.
pub const CONFIRMED: &str = "confirmed";
/// The card was declined.
pub const PAYMENT_DECLINED: &str = "payment_declined";
/// The payment method is not one that the gateway knows or that we can open.
pub const PAYMENT_METHOD_INVALID: &str = "payment_method_invalid";
/// The charge is not one that can be made, as an amount of zero.
pub const PAYMENT_INVALID: &str = "payment_invalid";
/// The payment gateway refuses a refund for good.
pub const REFUND_REFUSED: &str = "refund_refused";
/// A fence closed the round.
pub const CLOSED: &str = "closed";
/// An operator had the saga compensated.
pub const OPERATOR: &str = "operator";
/// An undo came first.
pub const UNDONE: &str = "undone";
/// The record's retention has passed.
pub const TOO_OLD: &str = "too_old";
/// A newer version is known.
pub const STALE_VERSION: &str = "stale_version";
/// Less than what is already sold or held.
pub const BELOW_SOLD: &str = "below_sold";
/// A step did not answer in time.
pub const TIMED_OUT: &str = "timed_out";
/// A deadline of the whole saga ran out.
pub const DEADLINE: &str = "deadline";
/// The customer cancelled.
pub const CANCELLED: &str = "cancelled";
/// The hold ran out.
pub const HOLD_EXPIRED: &str = "hold_expired";
/// No notification of that name.
pub const UNKNOWN_TEMPLATE: &str = "unknown_template";

// Errors of queries, which are problems of REST too.

/// Fields that are not acceptable; the details are a list of them.
pub const VALIDATION: &str = "validation";
/// A part of the platform cannot answer now.
pub const UNAVAILABLE: &str = "unavailable";
/// Too much at once; the details hold `retry_after_ms`.
pub const BUSY: &str = "busy";
/// The idempotency key came before, with another body.
pub const KEY_REUSED: &str = "key_reused";
/// The version is not the one that was read.
pub const VERSION_CONFLICT: &str = "version_conflict";
/// A saga that the dead letter is about has not ended.
pub const SAGA_UNFINISHED: &str = "saga_unfinished";
/// Only drafts can be deleted.
pub const NOT_DRAFT: &str = "not_draft";
/// Bookings still decides on the last change of what is sold.
pub const CHANGE_PENDING: &str = "change_pending";
/// It was never on sale, or no longer is.
pub const NOT_PUBLISHED: &str = "not_published";
/// The address has an account.
pub const EMAIL_TAKEN: &str = "email_taken";
/// No account with this address and password.
pub const INVALID_CREDENTIALS: &str = "invalid_credentials";
/// A refresh token that is unknown, used up or past its end.
pub const INVALID_TOKEN: &str = "invalid_token";
