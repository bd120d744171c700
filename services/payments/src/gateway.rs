//! The client of the payment gateway: Stripe's PaymentIntents and Refunds over HTTP, with results that say exactly how
//! much is known.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use eventicket_contracts::codes;
use eventicket_contracts::envelope::Key;
use eventicket_kit::Settings;
use eventicket_kit::client::Client;
use eventicket_kit::seal::SealKeys;
use eventicket_nats::trace::{Span, Telling};
use eventicket_planted::Fault;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request};
use url::form_urlencoded::Serializer;

use crate::charge::{Charge, Terms};
use crate::decide::{Call, Observed, Refusal};
use crate::figures::{self, Figures};
use crate::wire::{API_VERSION, method_invalid, read};

/// Stripe's bound of a value of metadata, in characters.
const METADATA: usize = 500;
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Parameters, encoded as HTML's forms are.
type Form = Serializer<'static, String>;

/// Makes calls for charges.
pub(crate) struct Gateway {
    client: Client,
    /// The value of the header that proves who calls.
    bearer: HeaderValue,
    seal: SealKeys,
    /// Where a customer goes back to from the gateway's pages.
    return_url: String,
    figures: Figures,
}

impl Gateway {
    /// `connections` are kept alive between calls.
    pub fn new(settings: &Settings, connections: usize) -> anyhow::Result<Self> {
        let patience = Duration::from_secs(settings.payment_call_seconds.into());
        let client = Client::new(&settings.payment_gateway_url, connections, patience)?;
        let seal = SealKeys::parse(&settings.seal_keys)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", settings.payment_gateway_key))?;
        bearer.set_sensitive(true);
        let return_url = settings.public_url.clone();
        Ok(Self { client, bearer, seal, return_url, figures: Figures::new() })
    }

    /// Makes one call; repeats of it carry the same key and body.
    pub async fn call(&self, charge: &Charge, call: Call) -> Observed {
        let started = tokio::time::Instant::now();
        let mut span = Span::below(charge.trace.as_deref(), Telling::Client, || {
            format!("payment gateway {}", figures::operation(call))
        });
        let trace = span.as_ref().map(|span| span.place().to_string());
        let observed = match self.request(charge, call, trace.as_deref()) {
            Ok(request) => self.send(request, call).await,
            Err(observed) => *observed,
        };
        let result = result(&observed);
        if let Some(span) = &mut span {
            span.set("eventicket.charge", charge.key.to_string());
            span.set("eventicket.result", result);
            if matches!(observed, Observed::Unknown(_) | Observed::Stored) {
                span.fail(result);
            }
        }
        self.figures.note(call, result, started.elapsed());
        observed
    }

    /// The request, or what stands in for its answer where it cannot be made.
    pub fn request(&self, charge: &Charge, call: Call, trace: Option<&str>) -> Result<Request<Bytes>, Box<Observed>> {
        let impossible = |what: &str| Box::new(Observed::Unknown(format!("the row has no {what}")));
        let terms = charge.terms.as_ref().ok_or_else(|| impossible("terms"))?;
        let intent = || charge.intent.as_deref().ok_or_else(|| impossible("intent"));
        let bare = |method, path: fmt::Arguments<'_>| self.bare(method, path, trace);
        let post = |path: fmt::Arguments<'_>, key: &IdempotencyKey<'_>, mut form: Form| {
            let request = bare(Method::POST, path).header(IDEMPOTENCY_KEY, key.to_string());
            request.header(CONTENT_TYPE, FORM).body(form.finish().into())
        };
        let get = |path: fmt::Arguments<'_>| bare(Method::GET, path).body(Bytes::new());
        let request = match call {
            Call::Create => {
                let key = IdempotencyKey(&charge.key, "create", charge.keys.create);
                post(format_args!("payment_intents"), &key, creation(&charge.key, terms))
            }
            Call::Confirm => {
                let sealed = terms.method.as_deref().unwrap_or_default();
                let method = self.seal.open(terms.customer, sealed).ok_or_else(|| Box::new(unopened()))?;
                let mut form = form();
                form.append_pair("payment_method", &method).append_pair("return_url", &self.return_url);
                let key = IdempotencyKey(&charge.key, "confirm", charge.keys.confirm);
                post(format_args!("payment_intents/{}/confirm", intent()?), &key, form)
            }
            // Repeating a cancel is harmless without a key, and so nothing is ever stored for it.
            Call::Cancel => {
                let request = bare(Method::POST, format_args!("payment_intents/{}/cancel", intent()?));
                request.header(CONTENT_LENGTH, 0).body(Bytes::new())
            }
            Call::Read => get(format_args!("payment_intents/{}", intent()?)),
            Call::Refund => {
                let mut form = form();
                form.append_pair("payment_intent", intent()?);
                metadata(&mut form, &charge.key);
                if let Some(reason) = &charge.undo_reason {
                    form.append_pair("metadata[reason]", &reason.chars().take(METADATA).collect::<String>());
                }
                let key = IdempotencyKey(&charge.key, "refund", charge.keys.refund);
                post(format_args!("refunds"), &key, form)
            }
            Call::FindRefund => get(format_args!("refunds?limit=100&payment_intent={}", intent()?)),
            Call::ReadRefund => {
                let refund = charge.refund.as_deref().ok_or_else(|| impossible("refund"))?;
                get(format_args!("refunds/{refund}"))
            }
        };
        request.map_err(|error| Box::new(Observed::Unknown(format!("it cannot be written: {error}"))))
    }

    fn bare(&self, method: Method, path: fmt::Arguments<'_>, trace: Option<&str>) -> Builder {
        let request = self.client.request(method, format_args!("/v1/{path}"));
        let request =
            request.header(AUTHORIZATION, &self.bearer).header(VERSION, HeaderValue::from_static(API_VERSION));
        match trace {
            Some(trace) => request.header("traceparent", trace),
            None => request,
        }
    }

    async fn send(&self, request: Request<Bytes>, call: Call) -> Observed {
        match self.client.call(request).await {
            Ok(answer) => {
                let replayed = || answer.headers().get(REPLAYED).is_some_and(|value| value == "true");
                let status = answer.status().as_u16();
                read(status, status >= 500 && replayed(), answer.body(), call)
            }
            Err(error) => Observed::Unknown(Chain(&error).to_string()),
        }
    }
}

/// `<saga>:<step>:<round>:<operation>`, with a number behind it once a failure is stored under the former key.
struct IdempotencyKey<'a>(&'a Key, &'static str, u32);

impl fmt::Display for IdempotencyKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Fault::KeyOfEachCall.is_planted() {
            return write!(f, "{}", uuid::Uuid::new_v4());
        }
        let Self(key, operation, count) = self;
        write!(f, "{key}:{operation}")?;
        if *count == 0 { Ok(()) } else { write!(f, ":{count}") }
    }
}

/// An empty one.
fn form() -> Form {
    Serializer::new(String::with_capacity(384))
}

fn creation(key: &Key, terms: &Terms) -> Form {
    let mut form = form();
    form.append_pair("amount", &terms.amount.amount.to_string())
        .append_pair("currency", &terms.amount.currency.as_str().to_ascii_lowercase())
        .append_pair("description", &terms.description)
        .append_pair("payment_method_types[]", "card");
    metadata(&mut form, key);
    form
}

/// By which a webhook finds the round.
fn metadata(form: &mut Form, key: &Key) {
    form.append_pair("metadata[saga]", &key.saga.to_string())
        .append_pair("metadata[step]", &key.step)
        .append_pair("metadata[round]", &key.round.to_string());
}

fn result(observed: &Observed) -> &'static str {
    match observed {
        Observed::Intent(_) | Observed::Refund { .. } | Observed::NoRefund => figures::OK,
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
