//! The saga that stands for a refund which failed after the gateway had said that it succeeded; payments starts it from a
//! row of its own, once for each charge. The audit lists the charge while it stands.
//!
//! ```text
//! GIVE_BACK  an operator  gives the money back by hand, and then resolves the step
//! ```

use eventicket_contracts::payments::FailedRefund;
use eventicket_contracts::sagas::FAILED_REFUND;
use eventicket_saga::definition::{Definition, Step};
use eventicket_saga::{Json, Phase, Saga};

use super::{Kind, RowView};

const GIVE_BACK: &str = "GIVE_BACK";

/// The saga as the runtime registers it.
pub fn kind() -> Kind {
    Kind { name: FAILED_REFUND, definitions: vec![version_1()], check, status, view }
}

fn version_1() -> Definition {
    let step = Step::by_hand(GIVE_BACK, "a refund failed after it had succeeded: the money is still with us");
    Definition { name: FAILED_REFUND.into(), version: 1, steps: vec![step], deadlines: vec![] }
}

fn check(input: &Json) -> Result<(), String> {
    input.read::<FailedRefund>().map(drop).map_err(|e| e.to_string())
}

fn status(saga: &Saga) -> &'static str {
    match saga.phase {
        Phase::Forward | Phase::Unwinding | Phase::Abandoning => "pending",
        Phase::Completed => "given_back",
        Phase::Compensated | Phase::Abandoned => "given_up",
    }
}

fn view(row: &RowView<'_>) -> Json {
    serde_json::json!({ "id": row.id, "status": status(row.saga), "version": row.version }).into()
}
