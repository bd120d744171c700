//! Webhooks as Stripe writes them.

use std::borrow::Cow;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{Currency, Money};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::hint::{Event, Happened, Told};
use crate::wire::{IntentBody, RefundBody, is_plain};

#[derive(Deserialize)]
struct Body<'a> {
    id: String,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What an object of ours says beside its own state: the round, as its metadata names it, and of an intent its amount, of a
/// refund its intent.
#[derive(Deserialize)]
struct About<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(default)]
    amount: Option<i64>,
    #[serde(default, borrow)]
    currency: Option<Cow<'a, str>>,
    #[serde(default)]
    payment_intent: Option<String>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    saga: Cow<'a, str>,
    #[serde(borrow)]
    step: Cow<'a, str>,
    #[serde(borrow)]
    round: Cow<'a, str>,
}

/// Reads a webhook; `None` where it is of a kind that says nothing to us, or about something that we did not make.
pub(crate) fn read(body: &[u8]) -> Option<Event> {
    let Body { id, kind, data: Data { object } } = serde_json::from_slice(body).ok()?;
    let about: About<'_> = serde_json::from_str(object.get()).ok()?;
    let Metadata { saga, step, round } = &about.metadata;
    let key: Key = format!("{saga}:{step}:{round}").parse().ok()?;
    let told = match &*kind {
        "payment_intent.succeeded" => intent(object, &about, Happened::Succeeded)?,
        "payment_intent.processing" | "payment_intent.requires_action" => intent(object, &about, Happened::Waits)?,
        "payment_intent.payment_failed" | "payment_intent.canceled" => intent(object, &about, Happened::Failed)?,
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => refund(object, about)?,
        _ => return None,
    };
    is_plain(&id).then_some(Event { id, key, told })
}

fn intent(object: &RawValue, about: &About<'_>, happened: Happened) -> Option<Told> {
    let intent: IntentBody = serde_json::from_str(object.get()).ok()?;
    let currency = Currency::parse(&about.currency.as_ref()?.to_ascii_uppercase())?;
    let amount = Money { amount: about.amount?, currency };
    is_plain(&intent.id).then(|| Told::Intent { intent: intent.into(), happened, amount })
}

fn refund(object: &RawValue, about: About<'_>) -> Option<Told> {
    let refund: RefundBody = serde_json::from_str(object.get()).ok()?;
    let (status, reason) = (refund.status(), refund.reason());
    let intent = about.payment_intent?;
    is_plain(&refund.id).then_some(Told::Refund { id: refund.id, intent, status, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::RefundStatus;
    use serde_json::{Value, json};

    const SAGA: &str = "01936f0e-8f4e-7cc2-9a56-0242ac120002";

    fn webhook(kind: &str, object: Value) -> Option<Event> {
        let body = json!({ "id": "evt_1", "object": "event", "type": kind, "data": { "object": object } });
        read(body.to_string().as_bytes())
    }

    #[test]
    fn what_is_about_a_round_is_read_and_nothing_else() {
        let metadata = json!({ "saga": SAGA, "step": "PAY", "round": "2", "more": "x" });
        let intent =
            json!({ "id": "pi_1", "status": "succeeded", "amount": 4200, "currency": "eur", "metadata": metadata });
        let event = webhook("payment_intent.succeeded", intent.clone()).unwrap();
        assert_eq!((event.id.as_str(), event.key.to_string()), ("evt_1", format!("{SAGA}:PAY:2")));
        let Told::Intent { intent: told, happened: Happened::Succeeded, amount } = event.told else {
            panic!("no success")
        };
        assert_eq!((told.id.as_str(), amount), ("pi_1", Money { amount: 4200, currency: Currency::EUR }));

        let refund = json!({ "id": "re_1", "status": "failed", "failure_reason": "lost_or_stolen_card",
                             "payment_intent": "pi_1", "metadata": metadata });
        let told = Told::Refund {
            id: "re_1".into(),
            intent: "pi_1".into(),
            status: RefundStatus::Failed,
            reason: Some("lost_or_stolen_card".into()),
        };
        assert_eq!(webhook("refund.failed", refund).map(|event| event.told), Some(told));

        let with = |field: &str, value: Value| {
            let mut other = intent.clone();
            other[field] = value;
            webhook("payment_intent.succeeded", other)
        };
        for foreign in [
            webhook("payment_intent.created", intent.clone()),
            webhook("invoice.paid", intent.clone()),
            with("metadata", json!({})),
            with("metadata", json!({ "saga": "theirs", "step": "PAY", "round": "1" })),
            with("id", json!("pi_1/../../x")),
            read(b"nonsense"),
        ] {
            assert_eq!(foreign, None);
        }
    }
}
