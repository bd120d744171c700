//! `GET /v1/breakers`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{BREAKERS, BreakerView};
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::paging::Listed;

/// List breakers
///
/// One for each service that sagas call. While it is open, sagas are held before the service and spend no attempts; closing
/// lets them go at a bounded rate.
#[utoipa::path(
    get, path = "/v1/breakers", tag = "breakers", operation_id = "list_breakers",
    responses((status = 200, description = "All breakers, by service", body = Listed<BreakerView>, example = json!({
        "items": [
            {"service": "bookings", "state": "closed", "mode": "auto", "held": 0},
            {"service": "payments", "state": "open", "mode": "auto", "until": "2027-01-12T09:30:05.000Z", "held": 12,
             "changed_at": "2027-01-12T09:30:00.000Z"},
        ],
        "next": null,
    }))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn list(State(app): State<Shared>, _: Operator) -> Result<Json<Listed<BreakerView>>, Problem> {
    let breakers: Vec<BreakerView> = app.backend.read(ORCHESTRATOR, BREAKERS, &()).await?;
    Ok(Json(Listed::new(breakers, None::<()>)))
}
