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
    /// It was not, or it came back.
    Failed,
}

/// How something that takes time ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Settlement {
    Succeeds,
    Fails,
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

    pub fn body(&self, base: &str) -> Value {
        let mut error = json!({ "type": self.kind, "code": self.code, "message": self.message });
        if let Some(code) = self.decline_code {
            error["decline_code"] = code.into();
        }
        if let Some(param) = self.param {
            error["param"] = param.into();
        }
        if let Some(intent) = &self.intent {
            error["payment_intent"] = json!(intent.shown(base));
        }
        json!({ "error": error })
    }
}

/// Decline code of an intent whose customer did not authenticate the payment.
const NOT_AUTHENTICATED: &str = "payment_intent_authentication_failure";
/// Why a refund of this gateway fails.
const REFUND_FAILURE: &str = "expired_or_canceled_card";

impl Intent {
    /// One that moved no money yet.
    pub(crate) fn new(
        id: String,
        amount: i64,
        currency: String,
        description: Option<String>,
        metadata: BTreeMap<String, String>,
        method_hash: Option<String>,
        created: i64,
    ) -> Self {
        let status = if method_hash.is_some() { Status::RequiresConfirmation } else { Status::RequiresPaymentMethod };
        let (declined, refunded) = (None, 0);
        Self { id, amount, currency, status, metadata, description, method_hash, declined, refunded, created }
    }

    /// The hash of the given payment method, or of the one that the intent has, and what it does.
    pub(crate) fn method(&self, given: Option<&str>) -> Result<(String, Behaviour), Refusal> {
        let hash = given.map(tokens::hash).or_else(|| self.method_hash.clone());
        let Some(hash) = hash else {
            let message = "a payment method is needed to confirm";
            return Err(Refusal { param: Some("payment_method"), ..Refusal::invalid("parameter_missing", message) });
        };
        let behaviour = tokens::behaviour(&hash).ok_or_else(no_such_method)?;
        Ok((hash, behaviour))
    }

    /// Whether it has neither ended nor is on its way.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.status, Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction)
    }

    /// Confirms with a payment method. A decline is told, and changes the intent, too.
    pub(crate) fn confirm(&mut self, method: Option<&str>) -> Result<Option<Refusal>, Refusal> {
        if !self.is_open() {
            return Err(Refusal::unexpected(self, "confirmed"));
        }
        let (hash, behaviour) = self.method(method)?;
        self.method_hash = Some(hash);
        self.declined = None;
        self.status = match behaviour {
            Behaviour::Declines(code) => {
                self.status = Status::RequiresPaymentMethod;
                self.declined = Some(code.to_owned());
                return Ok(Some(declined(self, code)));
            }
            Behaviour::Settles => Status::Processing,
            Behaviour::NeedsAction => Status::RequiresAction,
            _ => Status::Succeeded,
        };
        Ok(None)
    }

    /// Ends what the bank or the customer takes time for.
    pub(crate) fn settle(&mut self, end: Settlement) -> Result<(), Refusal> {
        match (self.status, end) {
            (Status::Processing | Status::RequiresAction, Settlement::Succeeds) => self.status = Status::Succeeded,
            (Status::Processing | Status::RequiresAction, Settlement::Fails) => {
                let authenticated = self.status == Status::Processing;
                self.declined = Some(if authenticated { "generic_decline" } else { NOT_AUTHENTICATED }.to_owned());
                self.status = Status::RequiresPaymentMethod;
            }
            _ => return Err(Refusal::unexpected(self, "settled")),
        }
        Ok(())
    }

    /// Cancels what has not ended and is not on its way.
    pub(crate) fn cancel(&mut self) -> Result<(), Refusal> {
        if !self.is_open() {
            return Err(Refusal::unexpected(self, "cancelled"));
        }
        self.status = Status::Canceled;
        Ok(())
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
        if self.behaviour() == Some(Behaviour::RefundsNever) {
            return Err(Refusal::invalid("charge_disputed", "the charge was disputed and cannot be refunded"));
        }
        self.refunded += amount;
        Ok(amount)
    }

    /// What its payment method does.
    pub(crate) fn behaviour(&self) -> Option<Behaviour> {
        self.method_hash.as_deref().and_then(tokens::behaviour)
    }

    /// As Stripe shows it; the payment method is left out. `base` is the gateway's own address.
    pub(crate) fn shown(&self, base: &str) -> ShownIntent<'_> {
        let error = self.declined.as_deref().map(|code| match code {
            NOT_AUTHENTICATED => {
                json!({ "type": "invalid_request_error", "code": code, "message": "the payment was not authenticated" })
            }
            _ => {
                json!({ "type": "card_error", "code": "card_declined", "decline_code": code, "message": "the card was declined" })
            }
        });
        let action = (self.status == Status::RequiresAction).then(|| {
            let url = format!("{base}/authenticate/{}", self.id);
            json!({ "type": "redirect_to_url", "redirect_to_url": { "url": url, "return_url": null } })
        });
        ShownIntent {
            id: &self.id,
            object: "payment_intent",
            amount: self.amount,
            amount_received: if self.status == Status::Succeeded { self.amount } else { 0 },
            currency: &self.currency,
            status: self.status,
            description: self.description.as_deref(),
            metadata: &self.metadata,
            last_payment_error: error,
            next_action: action,
            created: self.created / 1000,
            livemode: false,
        }
    }
}

/// An intent in Stripe's shape.
#[derive(Serialize)]
pub(crate) struct ShownIntent<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    amount_received: i64,
    currency: &'a str,
    status: Status,
    description: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    last_payment_error: Option<Value>,
    next_action: Option<Value>,
    created: i64,
    livemode: bool,
}

/// A refund in Stripe's shape.
#[derive(Serialize)]
pub(crate) struct ShownRefund<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    currency: &'a str,
    payment_intent: &'a str,
    status: RefundStatus,
    failure_reason: Option<&'static str>,
    metadata: &'a BTreeMap<String, String>,
    created: i64,
}

impl Refund {
    /// Ends it, also one that had succeeded and comes back.
    pub(crate) fn settle(&mut self, end: Settlement) -> Result<(), Refusal> {
        self.status = match (self.status, end) {
            (RefundStatus::Pending, Settlement::Succeeds) => RefundStatus::Succeeded,
            (RefundStatus::Pending | RefundStatus::Succeeded, Settlement::Fails) => RefundStatus::Failed,
            _ => return Err(Refusal::invalid("refund_unexpected_state", "the refund has ended")),
        };
        Ok(())
    }

    /// As Stripe shows it.
    pub(crate) fn shown(&self) -> ShownRefund<'_> {
        ShownRefund {
            id: &self.id,
            object: "refund",
            amount: self.amount,
            currency: &self.currency,
            payment_intent: &self.intent,
            status: self.status,
            failure_reason: (self.status == RefundStatus::Failed).then_some(REFUND_FAILURE),
            metadata: &self.metadata,
            created: self.created / 1000,
        }
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
        let refusal = intent.confirm(Some("pm_card_insufficient_funds")).unwrap().unwrap();
        assert_eq!((refusal.status, refusal.decline_code), (402, Some("insufficient_funds")));
        assert_eq!(intent.status, Status::RequiresPaymentMethod);
        assert_eq!(intent.confirm(Some("pm_unknown")).err().unwrap().code, "resource_missing");
        assert!(intent.confirm(Some("pm_card_visa")).unwrap().is_none());
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

    #[test]
    fn rule_06_what_takes_time_ends_once() {
        for (token, status) in
            [("pm_card_processing", Status::Processing), ("pm_card_action_required", Status::RequiresAction)]
        {
            let mut open = intent(Status::RequiresPaymentMethod);
            open.confirm(Some(token)).unwrap();
            assert_eq!(open.status, status);
            assert_eq!(open.shown("http://gate").next_action.is_none(), status == Status::Processing);
            let mut failed = open.clone();
            failed.settle(Settlement::Fails).unwrap();
            assert_eq!(
                (failed.status, failed.settle(Settlement::Succeeds).is_err()),
                (Status::RequiresPaymentMethod, true)
            );
            open.settle(Settlement::Succeeds).unwrap();
            assert_eq!((open.status, open.settle(Settlement::Fails).is_err()), (Status::Succeeded, true));
        }
        let mut processing = intent(Status::Processing);
        assert!(processing.cancel().is_err(), "what is on its way cannot be cancelled");
    }
}
