//! The client of the payment gateway: Stripe's PaymentIntents and Refunds over HTTP, with results that say exactly how
//! much is known.

use std::fmt;
use std::time::Duration;

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Key, Rejection};
use eventicket_kit::Settings;
use eventicket_kit::seal::SealKeys;
use metrics::{counter, histogram};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use serde::Deserialize;

use crate::charge::{Charge, Terms};
use crate::decide::{Call, Intent, IntentStatus, Observed, RefundStatus, Refusal};

/// Until the connection stands.
const CONNECT: Duration = Duration::from_secs(2);
/// Until the whole answer is there; a call that takes longer is repeated with its key.
const ANSWER: Duration = Duration::from_secs(10);
/// The version of Stripe's API whose answers are read here.
const API_VERSION: &str = "2024-06-20";
const CALLS_METRIC: &str = "eventicket_payment_gateway_calls_total";
const SECONDS_METRIC: &str = "eventicket_payment_gateway_call_duration_seconds";

/// Makes calls for charges.
pub(crate) struct Gateway {
    client: Client,
    base: String,
    key: String,
    seal: SealKeys,
}

impl Gateway {
    /// `connections` are kept alive between calls.
    pub fn new(settings: &Settings, connections: usize) -> anyhow::Result<Self> {
        eventicket_kit::tls::install();
        let client = Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(connections)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .build()?;
        let base = settings.payment_gateway_url.trim_end_matches('/').to_owned();
        let seal = SealKeys::parse(&settings.seal_keys)?;
        Ok(Self { client, base, key: settings.payment_gateway_key.clone(), seal })
    }

    /// Makes one call; repeats of it carry the same key and body.
    pub async fn call(&self, charge: &Charge, call: Call) -> Observed {
        let started = tokio::time::Instant::now();
        let observed = match self.request(charge, call) {
            Ok(request) => self.send(request, call).await,
            Err(observed) => *observed,
        };
        let (operation, result) = (operation(call), result(&observed));
        counter!(CALLS_METRIC, "operation" => operation, "result" => result).increment(1);
        histogram!(SECONDS_METRIC, "operation" => operation).record(started.elapsed().as_secs_f64());
        observed
    }

    /// The request, or what stands in for its answer where it cannot be made.
    fn request(&self, charge: &Charge, call: Call) -> Result<RequestBuilder, Box<Observed>> {
        let impossible = |what: &str| Box::new(Observed::Unknown(format!("the row has no {what}")));
        let terms = charge.terms.as_ref().ok_or_else(|| impossible("terms"))?;
        let intent = || charge.intent.as_deref().ok_or_else(|| impossible("intent"));
        let key = |operation, count| idempotency_key(&charge.key, operation, count);
        match call {
            Call::Create => {
                Ok(self.post("payment_intents", &key("create", charge.keys.create)).form(&creation(&charge.key, terms)))
            }
            Call::Confirm => {
                let path = format!("payment_intents/{}/confirm", intent()?);
                let sealed = terms.method.as_deref().unwrap_or_default();
                let method = self.seal.open(terms.customer, sealed).ok_or_else(|| Box::new(unopened()))?;
                Ok(self.post(&path, &key("confirm", charge.keys.confirm)).form(&[("payment_method", method)]))
            }
            // Repeating a cancel is harmless without a key, and so nothing is ever stored for it.
            Call::Cancel => Ok(self.bare(Client::post, &format!("payment_intents/{}/cancel", intent()?))),
            Call::Read => Ok(self.bare(Client::get, &format!("payment_intents/{}", intent()?))),
            Call::Refund => {
                let form = [("payment_intent", intent()?.to_owned()), ("metadata[saga]", charge.key.saga.to_string())];
                Ok(self.post("refunds", &key("refund", charge.keys.refund)).form(&form))
            }
            Call::ReadRefund => {
                let refund = charge.refund.as_deref().ok_or_else(|| impossible("refund"))?;
                Ok(self.bare(Client::get, &format!("refunds/{refund}")))
            }
        }
    }

    fn bare(&self, method: fn(&Client, String) -> RequestBuilder, path: &str) -> RequestBuilder {
        let request = method(&self.client, format!("{}/v1/{path}", self.base));
        request.bearer_auth(&self.key).header("Stripe-Version", API_VERSION)
    }

    fn post(&self, path: &str, key: &str) -> RequestBuilder {
        self.bare(Client::post, path).header("Idempotency-Key", key)
    }

    async fn send(&self, request: RequestBuilder, call: Call) -> Observed {
        let answered = async {
            let response = request.send().await?;
            let replayed = response.headers().get("Idempotent-Replayed").is_some_and(|value| value == "true");
            Ok::<_, reqwest::Error>((response.status(), replayed, response.bytes().await?))
        };
        match answered.await {
            Ok((status, replayed, body)) => read(status, replayed, &body, call),
            Err(error) => Observed::Unknown(Chain(&error.without_url()).to_string()),
        }
    }
}

/// A call's answer. Only Stripe's own shape of an error refuses anything: a proxy's 404 does not.
fn read(status: StatusCode, replayed: bool, body: &[u8], call: Call) -> Observed {
    let unknown = |what: &str| Observed::Unknown(format!("{what} ({status})"));
    match status.as_u16() {
        200..=299 if matches!(call, Call::Refund | Call::ReadRefund) => match serde_json::from_slice(body) {
            Ok(RefundBody { id, status }) if is_plain(&id) => Observed::Refund { id, status: status.into() },
            _ => unknown("no refund"),
        },
        200..=299 => match serde_json::from_slice::<IntentBody>(body) {
            Ok(intent) if is_plain(&intent.id) => Observed::Intent(intent.into()),
            _ => unknown("no intent"),
        },
        409 => Observed::InUse,
        500..=599 if replayed => Observed::Stored,
        401 | 403 | 408 | 429 => unknown("refused for now"),
        400..=499 => match serde_json::from_slice::<Failure>(body) {
            Ok(failure) => Observed::Refused(failure.error.into()),
            Err(_) => unknown("no answer of the gateway"),
        },
        _ => unknown("failed"),
    }
}

/// `<saga>:<step>:<round>:<operation>`, with a number behind it once a failure is stored under the former key.
fn idempotency_key(key: &Key, operation: &str, count: u32) -> String {
    if count == 0 { format!("{key}:{operation}") } else { format!("{key}:{operation}:{count}") }
}

fn creation(key: &Key, terms: &Terms) -> Vec<(&'static str, String)> {
    vec![
        ("amount", terms.amount.amount.to_string()),
        ("currency", terms.amount.currency.as_str().to_ascii_lowercase()),
        ("description", terms.description.clone()),
        ("payment_method_types[]", "card".to_owned()),
        ("metadata[saga]", key.saga.to_string()),
        ("metadata[step]", key.step.clone()),
        ("metadata[round]", key.round.to_string()),
    ]
}

fn operation(call: Call) -> &'static str {
    match call {
        Call::Create => "create",
        Call::Confirm => "confirm",
        Call::Read => "read",
        Call::Cancel => "cancel",
        Call::Refund => "refund",
        Call::ReadRefund => "read_refund",
    }
}

fn result(observed: &Observed) -> &'static str {
    match observed {
        Observed::Intent(_) | Observed::Refund { .. } => "ok",
        Observed::Refused(refusal) if refusal.rejection.code == codes::PAYMENT_DECLINED => "declined",
        Observed::Refused(_) => "refused",
        Observed::InUse => "in_use",
        Observed::Stored => "stored_failure",
        Observed::Unknown(_) => "unknown",
    }
}

/// Ids go into rows and paths.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn rejection(code: &str, message: impl Into<String>) -> Rejection {
    Rejection { code: code.to_owned(), message: message.into() }
}

pub(crate) fn method_invalid() -> Rejection {
    rejection(codes::PAYMENT_METHOD_INVALID, "the payment method is not known")
}

fn unopened() -> Observed {
    Observed::Refused(Refusal { rejection: method_invalid(), already_refunded: false, status: None })
}

#[derive(Deserialize)]
struct IntentBody {
    id: String,
    status: IntentName,
    #[serde(default)]
    last_payment_error: Option<ErrorBody>,
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
        Self { id: body.id, status: body.status.into(), declined }
    }
}

#[derive(Deserialize)]
struct RefundBody {
    id: String,
    status: RefundName,
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
        if self.param.as_deref() == Some("payment_method") || code.starts_with("payment_method") {
            return method_invalid();
        }
        rejection(codes::PAYMENT_INVALID, format!("the payment gateway refused the charge: {code}"))
    }
}

impl From<ErrorBody> for Refusal {
    fn from(error: ErrorBody) -> Self {
        let rejection = error.rejection();
        let already_refunded = error.code.as_deref() == Some("charge_already_refunded");
        Self { rejection, already_refunded, status: error.payment_intent.map(|intent| intent.status.into()) }
    }
}

/// Shows an error with its sources.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: u16, replayed: bool, body: &str, call: Call) -> Observed {
        read(StatusCode::from_u16(status).unwrap(), replayed, body.as_bytes(), call)
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
