//! Intents and refunds: their state machine, pure, with the refusals of the real one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::tokens::{self, Behaviour};

/// The status of an intent. It succeeds at most once, and never after it was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// None is known, or the last one was declined.
    RequiresPaymentMethod,
    /// It has a payment method.
    RequiresConfirmation,
    /// The customer must act.
    RequiresAction,
    /// The bank takes its time; it cannot be cancelled.
    Processing,
    /// The money was taken.
    Succeeded,
    /// Nothing was taken and nothing will be.
    Canceled,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

/// A payment intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// `pi_...`
    pub id: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217, in lower case as Stripe has it.
    pub currency: String,
    /// Where it stands.
    pub status: Status,
    /// As its maker gave it.
    pub metadata: BTreeMap<String, String>,
    /// As its maker gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// SHA-256 of the payment method, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method_hash: Option<String>,
    /// The decline code of the last payment method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined: Option<String>,
    /// Given back, settled or on its way.
    pub refunded: i64,
    /// Milliseconds since 1970.
    pub created: i64,
}

/// The status of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// On its way.
    Pending,
    /// The money was given back.
    Succeeded,
    /// It was not.
    Failed,
}

/// A refund of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// `re_...`
    pub id: String,
    /// The intent's id.
    pub intent: String,
    /// Minor units.
    pub amount: i64,
    /// As the intent's.
    pub currency: String,
    /// Where it stands.
    pub status: RefundStatus,
    /// As its maker gave it.
    pub metadata: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created: i64,
}

/// A refusal in Stripe's shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub code: &'static str,
    pub decline_code: Option<&'static str>,
    pub param: Option<&'static str>,
    pub message: String,
    pub intent: Option<Box<Intent>>,
}

impl Refusal {
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, kind: "invalid_request_error", code, message: message.into(), ..Self::default() }
    }

    pub fn missing(what: &str) -> Self {
        Self { status: 404, ..Self::invalid("resource_missing", format!("there is no such {what}")) }
    }

    fn unexpected(intent: &Intent, what: &str) -> Self {
        let message = format!("the intent cannot be {what}: its status is {}", intent.status.name());
        Self { intent: Some(Box::new(intent.clone())), ..Self::invalid("payment_intent_unexpected_state", message) }
    }

    pub fn body(&self) -> Value {
        let mut error = json!({ "type": self.kind, "code": self.code, "message": self.message });
        if let Some(code) = self.decline_code {
            error["decline_code"] = code.into();
        }
        if let Some(param) = self.param {
            error["param"] = param.into();
        }
        if let Some(intent) = &self.intent {
            error["payment_intent"] = intent.body();
        }
        json!({ "error": error })
    }
}

/// What confirming brought; the intent has changed either way.
pub(crate) struct Confirmed {
    pub declined: Option<Refusal>,
    /// The answer is to be lost.
    pub unheard: bool,
}

impl Intent {
    /// Confirms with the given payment method, or with the one it has.
    pub(crate) fn confirm(&mut self, method: Option<&str>) -> Result<Confirmed, Refusal> {
        if !matches!(self.status, Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction)
        {
            return Err(Refusal::unexpected(self, "confirmed"));
        }
        let hash = method.map(tokens::hash).or_else(|| self.method_hash.clone());
        let Some(hash) = hash else {
            let message = "a payment method is needed to confirm";
            return Err(Refusal { param: Some("payment_method"), ..Refusal::invalid("parameter_missing", message) });
        };
        let Some(behaviour) = tokens::behaviour(&hash) else {
            return Err(no_such_method());
        };
        self.method_hash = Some(hash);
        let unheard = behaviour == Behaviour::SucceedsUnheard;
        let declined = match behaviour {
            Behaviour::Succeeds | Behaviour::SucceedsUnheard => {
                self.status = Status::Succeeded;
                self.declined = None;
                None
            }
            Behaviour::Declines(code) => {
                self.status = Status::RequiresPaymentMethod;
                self.declined = Some(code.to_owned());
                Some(declined(self, code))
            }
        };
        Ok(Confirmed { declined, unheard })
    }

    /// Cancels what has not ended and is not on its way.
    pub(crate) fn cancel(&mut self) -> Result<(), Refusal> {
        match self.status {
            Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction => {
                self.status = Status::Canceled;
                Ok(())
            }
            Status::Processing | Status::Succeeded | Status::Canceled => Err(Refusal::unexpected(self, "cancelled")),
        }
    }

    /// Books a refund of `amount`, or of all that is left, and tells how much it is.
    pub(crate) fn refund(&mut self, amount: Option<i64>) -> Result<i64, Refusal> {
        if self.status != Status::Succeeded {
            return Err(Refusal::unexpected(self, "refunded"));
        }
        let left = self.amount - self.refunded;
        let amount = amount.unwrap_or(left);
        if left == 0 || amount > left {
            let message = format!("{left} is left to refund");
            return Err(Refusal {
                intent: Some(Box::new(self.clone())),
                ..Refusal::invalid("charge_already_refunded", message)
            });
        }
        self.refunded += amount;
        Ok(amount)
    }

    /// As Stripe shows it; the payment method is left out.
    pub fn body(&self) -> Value {
        let error = self.declined.as_deref().map(|code| {
            json!({ "type": "card_error", "code": "card_declined", "decline_code": code, "message": "the card was declined" })
        });
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_received": if self.status == Status::Succeeded { self.amount } else { 0 },
            "currency": self.currency,
            "status": self.status,
            "description": self.description,
            "metadata": self.metadata,
            "last_payment_error": error,
            "created": self.created / 1000,
            "livemode": false,
        })
    }
}

impl Refund {
    /// As Stripe shows it.
    pub fn body(&self) -> Value {
        json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "currency": self.currency,
            "payment_intent": self.intent,
            "status": self.status,
            "metadata": self.metadata,
            "created": self.created / 1000,
        })
    }
}

fn declined(intent: &Intent, decline_code: &'static str) -> Refusal {
    Refusal {
        status: 402,
        kind: "card_error",
        code: "card_declined",
        decline_code: Some(decline_code),
        message: "the card was declined".to_owned(),
        intent: Some(Box::new(intent.clone())),
        ..Refusal::default()
    }
}

pub(crate) fn no_such_method() -> Refusal {
    let message = "there is no such payment method";
    Refusal { param: Some("payment_method"), ..Refusal::invalid("resource_missing", message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(status: Status) -> Intent {
        Intent {
            id: "pi_1".into(),
            amount: 100,
            currency: "eur".into(),
            status,
            metadata: BTreeMap::new(),
            description: None,
            method_hash: None,
            declined: None,
            refunded: 0,
            created: 0,
        }
    }

    const ALL: [Status; 6] = [
        Status::RequiresPaymentMethod,
        Status::RequiresConfirmation,
        Status::RequiresAction,
        Status::Processing,
        Status::Succeeded,
        Status::Canceled,
    ];

    #[test]
    fn rule_05_an_intent_succeeds_once_and_never_after_it_was_cancelled() {
        for status in ALL {
            let open = !matches!(status, Status::Processing | Status::Succeeded | Status::Canceled);
            let mut confirmed = intent(status);
            let answer = confirmed.confirm(Some("pm_card_visa"));
            assert_eq!(answer.is_ok(), open, "{status:?}");
            assert_eq!(confirmed.status, if open { Status::Succeeded } else { status });
            let mut cancelled = intent(status);
            assert_eq!(cancelled.cancel().is_ok(), open, "{status:?}");
            assert_eq!(cancelled.status, if open { Status::Canceled } else { status });
        }
    }

    #[test]
    fn a_decline_leaves_the_intent_open_and_is_a_402() {
        let mut intent = intent(Status::RequiresPaymentMethod);
        let refusal = intent.confirm(Some("pm_card_insufficient_funds")).unwrap().declined.unwrap();
        assert_eq!((refusal.status, refusal.decline_code), (402, Some("insufficient_funds")));
        assert_eq!(intent.status, Status::RequiresPaymentMethod);
        assert_eq!(intent.confirm(Some("pm_unknown")).err().unwrap().code, "resource_missing");
        assert!(intent.confirm(Some("pm_card_visa")).unwrap().declined.is_none());
        assert_eq!(intent.status, Status::Succeeded);
    }

    #[test]
    fn no_more_is_refunded_than_was_charged() {
        let mut open = intent(Status::Processing);
        assert_eq!(open.refund(None).unwrap_err().code, "payment_intent_unexpected_state");
        let mut paid = intent(Status::Succeeded);
        assert_eq!(paid.refund(Some(101)).unwrap_err().code, "charge_already_refunded");
        assert_eq!(paid.refund(Some(40)).unwrap(), 40);
        assert_eq!(paid.refund(None).unwrap(), 60);
        assert_eq!(paid.refund(None).unwrap_err().code, "charge_already_refunded");
    }
}
