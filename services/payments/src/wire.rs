//! What the payment gateway says, as Stripe's PaymentIntents and Refunds have it.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::Rejection;
use serde::Deserialize;

use crate::decide::{Call, Intent, IntentStatus, Observed, RefundStatus, Refusal};

/// The version of Stripe's API whose answers are read here.
pub(crate) const API_VERSION: &str = "2024-06-20";

/// A call's answer. Only Stripe's own shape of an error refuses anything: a proxy's 404 does not.
pub(crate) fn read(status: u16, replayed: bool, body: &[u8], call: Call) -> Observed {
    let unknown = |what: &str| Observed::Unknown(format!("{what} ({status})"));
    match status {
        200..=299 if matches!(call, Call::Refund | Call::ReadRefund) => {
            match serde_json::from_slice::<RefundBody>(body) {
                Ok(refund) if is_plain(&refund.id) => refund.observed(),
                _ => unknown("no refund"),
            }
        }
        200..=299 if call == Call::FindRefund => match serde_json::from_slice::<RefundsBody>(body) {
            Ok(refunds) => refunds.that_counts(),
            Err(_) => unknown("no refunds"),
        },
        200..=299 => match serde_json::from_slice::<IntentBody>(body) {
            Ok(intent) if is_plain(&intent.id) => Observed::Intent(intent.into()),
            _ => unknown("no intent"),
        },
        409 => Observed::InUse,
        500..=599 if replayed => Observed::Stored,
        401 | 403 | 408 | 429 => unknown("refused for now"),
        400..=499 => match serde_json::from_slice::<Failure>(body) {
            // The key stands for another request of ours, as one with another address to return to.
            Ok(failure) if failure.error.kind == "idempotency_error" => Observed::Stored,
            Ok(failure) => Observed::Refused(failure.error.into()),
            Err(_) => unknown("no answer of the gateway"),
        },
        _ => unknown("failed"),
    }
}

/// Ids go into rows and paths.
pub(crate) fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Customers are sent to it.
fn is_address(url: &str) -> bool {
    let is_text = !url.chars().any(char::is_control);
    is_text && url.len() <= 2_048 && (url.starts_with("https://") || url.starts_with("http://"))
}

fn rejection(code: &str, message: impl Into<String>) -> Rejection {
    Rejection { code: code.to_owned(), message: message.into() }
}

pub(crate) fn method_invalid() -> Rejection {
    rejection(codes::PAYMENT_METHOD_INVALID, "the payment method is not known")
}

/// A payment intent; of the rest of it, webhooks read more.
#[derive(Deserialize)]
pub(crate) struct IntentBody {
    pub id: String,
    status: IntentName,
    #[serde(default)]
    last_payment_error: Option<ErrorBody>,
    #[serde(default)]
    next_action: Option<ActionBody>,
}

#[derive(Deserialize)]
struct ActionBody {
    #[serde(default)]
    redirect_to_url: Option<RedirectBody>,
}

#[derive(Deserialize)]
struct RedirectBody {
    url: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IntentName {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    Succeeded,
    Canceled,
}

impl From<IntentName> for IntentStatus {
    fn from(name: IntentName) -> Self {
        match name {
            IntentName::RequiresPaymentMethod => Self::RequiresPaymentMethod,
            IntentName::RequiresConfirmation => Self::RequiresConfirmation,
            IntentName::RequiresAction => Self::RequiresAction,
            IntentName::Processing => Self::Processing,
            IntentName::Succeeded => Self::Succeeded,
            IntentName::Canceled => Self::Canceled,
        }
    }
}

impl From<IntentBody> for Intent {
    fn from(body: IntentBody) -> Self {
        let declined = body.last_payment_error.map(|error| error.rejection());
        let redirect = body.next_action.and_then(|action| action.redirect_to_url);
        let next_action = redirect.map(|redirect| redirect.url).filter(|url| is_address(url));
        Self { id: body.id, status: body.status.into(), declined, next_action }
    }
}

/// A refund; of the rest of it, webhooks read more.
#[derive(Deserialize)]
pub(crate) struct RefundBody {
    pub id: String,
    status: RefundName,
    #[serde(default)]
    failure_reason: Option<String>,
}

impl RefundBody {
    pub fn status(&self) -> RefundStatus {
        self.status.into()
    }

    /// Why it failed, as the gateway says.
    pub fn reason(&self) -> Option<String> {
        self.failure_reason.clone().filter(|reason| is_plain(reason))
    }

    fn observed(self) -> Observed {
        Observed::Refund { status: self.status(), reason: self.reason(), id: self.id }
    }
}

#[derive(Deserialize)]
struct RefundsBody {
    data: Vec<RefundBody>,
}

impl RefundsBody {
    /// One that is on its way, else the newest that gave the money back.
    fn that_counts(self) -> Observed {
        let (mut pending, mut succeeded) = (None, None);
        for refund in self.data.into_iter().filter(|refund| is_plain(&refund.id)) {
            match refund.status() {
                RefundStatus::Pending => pending = pending.or(Some(refund)),
                RefundStatus::Succeeded => succeeded = succeeded.or(Some(refund)),
                RefundStatus::Failed => {}
            }
        }
        pending.or(succeeded).map_or(Observed::NoRefund, RefundBody::observed)
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RefundName {
    Pending,
    RequiresAction,
    Succeeded,
    Failed,
    Canceled,
}

impl From<RefundName> for RefundStatus {
    fn from(name: RefundName) -> Self {
        match name {
            RefundName::Pending | RefundName::RequiresAction => Self::Pending,
            RefundName::Succeeded => Self::Succeeded,
            RefundName::Failed | RefundName::Canceled => Self::Failed,
        }
    }
}

#[derive(Deserialize)]
struct Failure {
    error: ErrorBody,
}

/// The gateway's own message is left out: it may quote what was sent.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    param: Option<String>,
    #[serde(default)]
    payment_intent: Option<StatusBody>,
}

#[derive(Deserialize)]
struct StatusBody {
    status: IntentName,
}

impl ErrorBody {
    fn rejection(&self) -> Rejection {
        let word = |text: &Option<String>| text.clone().filter(|text| is_plain(text));
        let code = word(&self.code).unwrap_or_default();
        if self.kind == "card_error" {
            let why = word(&self.decline_code).unwrap_or(code);
            return rejection(codes::PAYMENT_DECLINED, format!("the card was declined: {why}"));
        }
        // The customer did not prove to be who the card belongs to.
        if code.ends_with("authentication_failure") || code == "authentication_required" {
            return rejection(codes::PAYMENT_DECLINED, "the payment was not authenticated");
        }
        if self.param.as_deref() == Some("payment_method") || code.starts_with("payment_method") {
            return method_invalid();
        }
        rejection(codes::PAYMENT_INVALID, format!("the payment gateway refused it: {code}"))
    }
}

impl From<ErrorBody> for Refusal {
    fn from(error: ErrorBody) -> Self {
        let rejection = error.rejection();
        let code = error.code.as_deref();
        let already_refunded = code == Some("charge_already_refunded");
        let for_now = matches!(code, Some("balance_insufficient" | "insufficient_funds"));
        Self { rejection, already_refunded, for_now, status: error.payment_intent.map(|intent| intent.status.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: u16, replayed: bool, body: &str, call: Call) -> Observed {
        read(status, replayed, body.as_bytes(), call)
    }

    #[test]
    fn rule_05_401_403_429_and_any_5xx_refuse_nothing() {
        let error = r#"{"error":{"type":"api_error","code":"x"}}"#;
        for status in [401, 403, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(seen(status, false, error, Call::Confirm), Observed::Unknown(_)), "{status}");
        }
        assert_eq!(seen(500, true, error, Call::Confirm), Observed::Stored);
        assert_eq!(seen(409, false, error, Call::Confirm), Observed::InUse);
        assert!(matches!(seen(404, false, "<html>", Call::Confirm), Observed::Unknown(_)), "not the gateway's own");
        assert!(matches!(seen(200, false, "{}", Call::Confirm), Observed::Unknown(_)));
        let other = r#"{"error":{"type":"idempotency_error","code":"idempotency_error"}}"#;
        assert_eq!(seen(400, false, other, Call::Confirm), Observed::Stored, "the key is of no use");
    }

    #[test]
    fn an_action_is_an_address() {
        let action = |url: &str| {
            let body = format!(
                r#"{{"id":"pi_1","status":"requires_action","next_action":{{"type":"redirect_to_url","redirect_to_url":{{"url":"{url}"}}}}}}"#
            );
            match seen(200, false, &body, Call::Read) {
                Observed::Intent(intent) => intent.next_action,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(action("https://bank.example/1"), Some("https://bank.example/1".to_owned()));
        for other in
            ["javascript:alert(1)", r"https://bank.example/\u0000", r"https://bank.example/\r\nx", r"https://b/\u0085"]
        {
            assert_eq!(action(other), None, "{other}");
        }
    }

    #[test]
    fn of_several_refunds_the_one_under_way_counts() {
        let find = |data: &str| seen(200, false, &format!(r#"{{"data":[{data}]}}"#), Call::FindRefund);
        let refund = |id: &str, status: &str| format!(r#"{{"id":"{id}","status":"{status}"}}"#);
        let (failed, done, pending) =
            (refund("re_1", "failed"), refund("re_2", "succeeded"), refund("re_3", "pending"));
        let seen = |id: &str, status| Observed::Refund { id: id.into(), status, reason: None };
        assert_eq!(find(&failed), Observed::NoRefund);
        assert_eq!(find(&format!("{failed},{done}")), seen("re_2", RefundStatus::Succeeded));
        assert_eq!(find(&format!("{failed},{done},{pending}")), seen("re_3", RefundStatus::Pending));
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |status, body: &str| match seen(status, false, body, Call::Confirm) {
            Observed::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        let declined = refused(
            402,
            r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"insufficient_funds"}}"#,
        );
        assert_eq!(declined.rejection.code, codes::PAYMENT_DECLINED);
        assert_eq!(declined.rejection.message, "the card was declined: insufficient_funds");
        let stranger = refused(
            400,
            r#"{"error":{"type":"invalid_request_error","code":"payment_intent_authentication_failure"}}"#,
        );
        assert_eq!(stranger.rejection.code, codes::PAYMENT_DECLINED);
        for (code, for_now) in [("balance_insufficient", true), ("charge_disputed", false)] {
            let refusal = refused(400, &format!(r#"{{"error":{{"type":"invalid_request_error","code":"{code}"}}}}"#));
            assert_eq!(refusal.for_now, for_now, "{code}");
        }
        let method = refused(
            400,
            r#"{"error":{"type":"invalid_request_error","code":"resource_missing","param":"payment_method"}}"#,
        );
        assert_eq!(method.rejection.code, codes::PAYMENT_METHOD_INVALID);
        let ended = refused(
            400,
            r#"{"error":{"type":"t","code":"payment_intent_unexpected_state","payment_intent":{"status":"succeeded"}}}"#,
        );
        assert_eq!(ended.status, Some(IntentStatus::Succeeded));
    }
}
