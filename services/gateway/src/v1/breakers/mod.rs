//! Breakers, for operators: whether a service's commands are held.

pub mod auto;
pub mod close;
pub mod list;
pub mod open;

use axum::Json;
use eventicket_contracts::sagas::{BreakerMode, BreakerView, SET_BREAKER, SetBreaker};
use eventicket_kit::Problem;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Reason;

/// Sets a breaker; answers with what it is then.
async fn set(
    app: &App,
    service: String,
    operator: &Operator,
    mode: BreakerMode,
    reason: Reason,
) -> Result<Json<BreakerView>, Problem> {
    let set = SetBreaker { service, mode, actor: operator.actor(), reason: reason.into() };
    let breaker: Option<BreakerView> = app.backend.write(ORCHESTRATOR, SET_BREAKER, &set).await?;
    breaker.map(Json).ok_or_else(Problem::not_found)
}

/// For the documentation.
fn example(state: &str, mode: &str) -> Value {
    json!({
        "service": "payments",
        "state": state,
        "mode": mode,
        "held": 12,
        "changed_at": "2027-01-12T09:30:00.000Z",
        "actor": "operator:01936f0e-0000-7cc2-9a56-0242ac120003",
        "reason": "the payment gateway is being moved",
    })
}
