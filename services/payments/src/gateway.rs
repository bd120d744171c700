//! The client of the payment gateway: Stripe's PaymentIntents and Refunds over HTTP, with results that say exactly how
//! much is known.

use std::fmt;
use std::time::Duration;

use eventicket_contracts::codes;
use eventicket_contracts::envelope::Key;
use eventicket_kit::Settings;
use eventicket_kit::seal::SealKeys;
use eventicket_planted::Fault;
use metrics::{counter, histogram};
use reqwest::{Client, RequestBuilder, redirect};

use crate::charge::{Charge, Terms};
use crate::decide::{Call, Observed, Refusal};
use crate::wire::{API_VERSION, method_invalid, read};

/// Until the connection stands.
const CONNECT: Duration = Duration::from_secs(2);
/// Stripe's bound of a value of metadata, in characters.
const METADATA: usize = 500;
const CALLS_METRIC: &str = "eventicket_payment_gateway_calls_total";
const SECONDS_METRIC: &str = "eventicket_payment_gateway_call_duration_seconds";

/// Makes calls for charges.
pub(crate) struct Gateway {
    client: Client,
    base: String,
    key: String,
    seal: SealKeys,
    /// Where a customer goes back to from the gateway's pages.
    return_url: String,
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
            .timeout(Duration::from_secs(settings.payment_call_seconds.into()))
            .build()?;
        let base = settings.payment_gateway_url.trim_end_matches('/').to_owned();
        let seal = SealKeys::parse(&settings.seal_keys)?;
        let (key, return_url) = (settings.payment_gateway_key.clone(), settings.public_url.clone());
        Ok(Self { client, base, key, seal, return_url })
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
    pub fn request(&self, charge: &Charge, call: Call) -> Result<RequestBuilder, Box<Observed>> {
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
                let form = [("payment_method", method), ("return_url", self.return_url.clone())];
                Ok(self.post(&path, &key("confirm", charge.keys.confirm)).form(&form))
            }
            // Repeating a cancel is harmless without a key, and so nothing is ever stored for it.
            Call::Cancel => Ok(self.bare(Client::post, &format!("payment_intents/{}/cancel", intent()?))),
            Call::Read => Ok(self.bare(Client::get, &format!("payment_intents/{}", intent()?))),
            Call::Refund => {
                let mut form = vec![("payment_intent", intent()?.to_owned())];
                form.extend(metadata(&charge.key));
                let reason = charge.undo_reason.iter();
                form.extend(reason.map(|reason| ("metadata[reason]", reason.chars().take(METADATA).collect())));
                Ok(self.post("refunds", &key("refund", charge.keys.refund)).form(&form))
            }
            Call::FindRefund => Ok(self.bare(Client::get, &format!("refunds?limit=100&payment_intent={}", intent()?))),
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

/// `<saga>:<step>:<round>:<operation>`, with a number behind it once a failure is stored under the former key.
fn idempotency_key(key: &Key, operation: &str, count: u32) -> String {
    if Fault::KeyOfEachCall.is_planted() {
        return uuid::Uuid::new_v4().to_string();
    }
    if count == 0 { format!("{key}:{operation}") } else { format!("{key}:{operation}:{count}") }
}

fn creation(key: &Key, terms: &Terms) -> Vec<(&'static str, String)> {
    let mut form = vec![
        ("amount", terms.amount.amount.to_string()),
        ("currency", terms.amount.currency.as_str().to_ascii_lowercase()),
        ("description", terms.description.clone()),
        ("payment_method_types[]", "card".to_owned()),
    ];
    form.extend(metadata(key));
    form
}

/// By which a webhook finds the round.
fn metadata(key: &Key) -> [(&'static str, String); 3] {
    [
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
        Call::FindRefund => "find_refund",
    }
}

fn result(observed: &Observed) -> &'static str {
    match observed {
        Observed::Intent(_) | Observed::Refund { .. } | Observed::NoRefund => "ok",
        Observed::Refused(refusal) if refusal.rejection.code == codes::PAYMENT_DECLINED => "declined",
        Observed::Refused(_) => "refused",
        Observed::InUse => "in_use",
        Observed::Stored => "stored_failure",
        Observed::Unknown(_) => "unknown",
    }
}

fn unopened() -> Observed {
    Observed::Refused(Refusal { rejection: method_invalid(), already_refunded: false, for_now: false, status: None })
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
