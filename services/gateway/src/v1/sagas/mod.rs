//! Sagas, for operators.

pub mod history;
pub mod list;
pub mod show;

use serde_json::{Value, json};

/// A saga in a list, for the documentation.
fn example() -> Value {
    json!({
        "id": "01936f0e-8f4e-7cc2-9a56-0242ac120002",
        "kind": "booking",
        "definition_version": 1,
        "state": "running",
        "step": "PAY",
        "status": "pending",
        "attention": [],
        "event_id": "01936f0e-2222-7cc2-9a56-0242ac120005",
        "user_id": "01936f0e-0000-7cc2-9a56-0242ac120003",
        "started_at": "2027-01-12T09:30:00.000Z",
        "updated_at": "2027-01-12T09:30:00.021Z",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "version": 3,
    })
}
