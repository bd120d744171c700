//! What the tests send, and what they look for in answers.

use axum::body::Bytes;
use eventicket_contracts::envelope::{Answer, Fence, Half, Item, Key};
use eventicket_contracts::{Json, Money, Timestamp};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

pub fn item(key: &Key, half: Half, body: &Value, deadline: Option<Timestamp>) -> Item {
    let body = RawValue::from_string(body.to_string()).unwrap();
    Item { key: key.clone(), half, attempt: 1, deadline, trace: None, body: body.into() }
}

pub fn fence_item(key: &Key, id: u32, undo: bool) -> Item {
    let fence = Fence { id, action: "charge".into(), undo, body: Json::NULL };
    item(key, Half::Fence, &serde_json::to_value(fence).unwrap(), None)
}

/// The body of a webhook.
pub fn webhook(id: &str, kind: &str, object: &Value) -> String {
    json!({ "id": format!("evt_{id}"), "object": "event", "type": kind, "data": { "object": object } }).to_string()
}

pub fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}

/// The code of a rejection.
pub fn code(answer: &Answer) -> &str {
    match answer {
        Answer::Rejected(rejection) => &rejection.code,
        other => panic!("not rejected: {other:?}"),
    }
}

pub fn refunded(amount: Option<Money>) -> Answer {
    Answer::done(json!({ "amount": amount }))
}
