//! Webhooks as Stripe writes them.

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{Currency, Money};
use serde::Deserialize;
use serde_json::Value;

use crate::hint::{Event, Happened, Told};
use crate::wire::{IntentBody, RefundBody, is_plain};

#[derive(Deserialize)]
struct Body {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Value,
}

/// The round, as the metadata of ours names it.
#[derive(Deserialize)]
struct Round {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    saga: String,
    step: String,
    round: String,
}

#[derive(Deserialize)]
struct Amount {
    amount: i64,
    currency: String,
}

#[derive(Deserialize)]
struct Origin {
    payment_intent: String,
}

/// Reads a webhook; `None` where it is of a kind that says nothing to us, or about something that we did not make.
pub(crate) fn read(body: &[u8]) -> Option<Event> {
    let Body { id, kind, data: Data { object } } = serde_json::from_slice(body).ok()?;
    let Round { metadata: Metadata { saga, step, round } } = Round::deserialize(&object).ok()?;
    let key: Key = format!("{saga}:{step}:{round}").parse().ok()?;
    let told = match kind.as_str() {
        "payment_intent.succeeded" => intent(&object, Happened::Succeeded)?,
        "payment_intent.processing" | "payment_intent.requires_action" => intent(&object, Happened::Waits)?,
        "payment_intent.payment_failed" | "payment_intent.canceled" => intent(&object, Happened::Failed)?,
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => refund(&object)?,
        _ => return None,
    };
    is_plain(&id).then_some(Event { id, key, told })
}

fn intent(object: &Value, happened: Happened) -> Option<Told> {
    let intent = IntentBody::deserialize(object).ok().filter(|intent| is_plain(&intent.id))?;
    let Amount { amount, currency } = Amount::deserialize(object).ok()?;
    let currency = Currency::parse(&currency.to_ascii_uppercase())?;
    Some(Told::Intent { intent: intent.into(), happened, amount: Money { amount, currency } })
}

fn refund(object: &Value) -> Option<Told> {
    let refund = RefundBody::deserialize(object).ok().filter(|refund| is_plain(&refund.id))?;
    let Origin { payment_intent } = Origin::deserialize(object).ok()?;
    let (status, reason) = (refund.status(), refund.reason());
    Some(Told::Refund { id: refund.id, intent: payment_intent, status, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::RefundStatus;
    use serde_json::json;

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
