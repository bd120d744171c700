//! Dead letters, for operators: messages that could not be handled.

pub mod discard;
pub mod list;
pub mod replay;
pub mod show;

use serde_json::{Value, json};

/// For the documentation.
fn example() -> Value {
    json!({
        "id": 1_799_746_200_000_001_u64,
        "service": "bookings",
        "action": "confirm",
        "reason": "panicked: index out of bounds",
        "subject": "cmd.bookings.confirm.0",
        "sagas": ["01936f0e-8f4e-7cc2-9a56-0242ac120002"],
        "first_delivery": "2027-01-12T09:30:00.000Z",
        "last_delivery": "2027-01-12T09:30:00.012Z",
        "deliveries": 1,
    })
}
