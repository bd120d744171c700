//! The saga of what is sold: publication of an event, and every later change, stop and cancellation; the events service
//! starts it from a row of its own.
//!
//! ```text
//! OFFER   bookings.offer   the point of no return: repeated until bookings has decided
//! SETTLE  events.settle    tells events that it is sold so
//! REVERT  events.settle    on the way back: tells events why it is not
//! ```
//!
//! Version 1 told nobody of a refusal.

use std::time::Duration;

use eventicket_contracts::codes;
use eventicket_contracts::events::{PublishEvent, Settle};
use eventicket_contracts::sagas::PUBLISH_EVENT;
use eventicket_saga::definition::{Call, Command, Definition, Retry, Step, View};
use eventicket_saga::{Json, Phase, Saga};

use super::{Kind, RowView};

/// The saga as the runtime registers it.
pub fn kind() -> Kind {
    Kind { name: PUBLISH_EVENT, definitions: vec![version_1(), version_2()], check, status, view }
}

fn version_2() -> Definition {
    let mut definition = Definition { version: 2, ..version_1() };
    let refused = |v: &View<'_>| settle(v, Some(v.reason().unwrap_or(codes::CANCELLED)));
    definition.steps.push(Step::command("REVERT", patient(refused)).on_unwinding());
    definition
}

fn version_1() -> Definition {
    let offer = Call::new("bookings", "offer", |v| Json::of(&input(v)?.offer).map_err(|e| e.to_string()));
    Definition {
        name: PUBLISH_EVENT.into(),
        version: 1,
        steps: vec![
            Step::command("OFFER", Command::new(offer).no_return()),
            Step::command("SETTLE", patient(|v| settle(v, None))),
        ],
        deadlines: vec![],
    }
}

/// Until events has it, the event waits: three and a half days.
fn patient(body: fn(&View<'_>) -> Result<Json, String>) -> Command {
    let retry = Retry::new(10_000, Duration::from_millis(200), Duration::from_secs(30));
    Command::new(Call::new("events", "settle", body)).best_effort().retry(retry)
}

fn settle(v: &View<'_>, refused: Option<&str>) -> Result<Json, String> {
    let offer = input(v)?.offer;
    let settle = Settle { event: offer.event, version: offer.version, refused: refused.map(str::to_owned) };
    Json::of(&settle).map_err(|e| e.to_string())
}

fn input(v: &View<'_>) -> Result<PublishEvent, String> {
    v.input().read().map_err(|e| e.to_string())
}

fn check(input: &Json) -> Result<(), String> {
    input.read::<PublishEvent>().map(drop).map_err(|e| e.to_string())
}

fn status(saga: &Saga) -> &'static str {
    match saga.phase {
        Phase::Forward => "pending",
        Phase::Completed => "accepted",
        Phase::Unwinding | Phase::Compensated | Phase::Abandoning | Phase::Abandoned => "refused",
    }
}

fn view(row: &RowView<'_>) -> Json {
    serde_json::json!({ "id": row.id, "status": status(row.saga), "version": row.version }).into()
}
