//! Commands and queries of the payments service.

use serde::{Deserialize, Serialize};

use crate::{BookingId, CustomerId, Money};

/// `payments.charge`. Answer: [`Charged`], rejected with `payment_declined`, or pending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    /// Who pays; the associated data of the sealed method.
    pub customer: CustomerId,
    /// Above zero.
    pub amount: Money,
    /// The payment method, sealed at the gateway's door; only payments opens it.
    pub method: String,
    /// On the customer's statement.
    pub description: String,
}

/// The money was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Charged {
    /// The gateway's payment intent.
    pub intent: String,
}

/// `payments.refund`: the undo of charge. Answer: [`Refunded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refund {
    /// Why, for the gateway's record.
    pub reason: String,
}

/// Nothing stands of the charge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refunded {
    /// Given back; `None` where nothing had been taken.
    pub amount: Option<Money>,
}

/// Name of the query for a booking's charges: [`PaymentQuery`] to `Vec<Payment>`.
pub const PAYMENT: &str = "payment";

/// Asks for the charges of a booking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaymentQuery {
    /// The booking.
    pub booking: BookingId,
}

/// One round of charging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// 1 for the first.
    pub round: u32,
    /// As the service's table names it.
    pub state: String,
    /// What was asked for.
    pub amount: Money,
    /// The gateway's payment intent once one exists.
    pub intent: Option<String>,
}
