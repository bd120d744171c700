//! The saga that puts an event on sale; the events service starts it from a row of its own.
//!
//! ```text
//! OFFER   bookings.offer   the point of no return: repeated until bookings has decided
//! SETTLE  events.settle    tells events the end
//! ```

use std::time::Duration;

use eventicket_contracts::events::{PublishEvent, Settle};
use eventicket_contracts::sagas::PUBLISH_EVENT;
use eventicket_saga::definition::{Call, Command, Definition, Retry, Step, View};
use eventicket_saga::{Phase, Saga};
use serde::Deserialize;
use serde_json::Value;

use super::{Kind, RowView};

/// The saga as the runtime registers it.
pub fn kind() -> Kind {
    Kind { name: PUBLISH_EVENT, definitions: vec![version_1()], check, status, view }
}

fn version_1() -> Definition {
    let offer = Call::new("bookings", "offer", |v| serde_json::to_value(input(v)?.offer).map_err(|e| e.to_string()));
    let settle = Call::new("events", "settle", |v| {
        let offer = input(v)?.offer;
        serde_json::to_value(Settle { event: offer.event, version: offer.version }).map_err(|e| e.to_string())
    });
    let patient = Retry::new(10_000, Duration::from_millis(200), Duration::from_secs(30));
    Definition {
        name: PUBLISH_EVENT.into(),
        version: 1,
        steps: vec![
            Step::command("OFFER", Command::new(offer).no_return()),
            Step::command("SETTLE", Command::new(settle).best_effort().retry(patient)),
        ],
        deadlines: vec![],
    }
}

fn input(v: &View<'_>) -> Result<PublishEvent, String> {
    PublishEvent::deserialize(v.input()).map_err(|e| e.to_string())
}

fn check(input: &Value) -> Result<(), String> {
    PublishEvent::deserialize(input).map(drop).map_err(|e| e.to_string())
}

fn status(saga: &Saga) -> &'static str {
    match saga.phase {
        Phase::Forward => "pending",
        Phase::Completed => "published",
        Phase::Unwinding | Phase::Compensated | Phase::Abandoned => "refused",
    }
}

fn view(row: &RowView<'_>) -> Value {
    serde_json::json!({ "id": row.id, "status": status(row.saga), "version": row.version })
}
