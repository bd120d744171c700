//! Commands and queries of the payments service.

use serde::{Deserialize, Serialize};

use crate::{BookingId, CustomerId, Money};

/// `payments.charge`. Answer: [`Charged`], rejected with `payment_declined`, or pending with [`ChargePending`].
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

/// The bank or the customer takes time; asked again, payments reads the intent at the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChargePending {
    /// The gateway's payment intent.
    pub intent: String,
    /// What the customer has to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_action: Option<NextAction>,
}

/// What a customer has to do for a payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NextAction {
    /// Page of the payment gateway to go to.
    #[schema(example = "https://payments.example/authenticate/pi_1")]
    pub url: String,
}

/// `payments.refund`: the undo of charge. Answer: [`Refunded`], pending while the gateway settles it, or rejected with
/// `refund_refused` where the gateway refuses it for good.
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

/// Input of the saga `failed_refund`, which payments starts from a row of its own when a refund that had succeeded fails
/// afterwards; unique for the charge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedRefund {
    /// The saga that was charged.
    pub booking: BookingId,
    /// The step of the charge.
    pub step: String,
    /// Its round.
    pub round: u32,
    /// Whose money it is.
    pub customer: CustomerId,
    /// What has to be given back.
    pub amount: Money,
    /// The gateway's payment intent.
    pub intent: String,
    /// The gateway's refund that failed.
    pub refund: String,
    /// Why, as the gateway says.
    pub reason: String,
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
