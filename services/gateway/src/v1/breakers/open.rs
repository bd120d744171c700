//! `POST /v1/breakers/{service}/open`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{BreakerMode, BreakerView};
use eventicket_kit::Problem;

use super::set;
use crate::app::Shared;
use crate::auth::Operator;
use crate::extract::{Id, JsonBody};
use crate::v1::sagas::Why;

/// Open a breaker
///
/// Holds everything before the service until it is set otherwise; nothing is probed.
#[utoipa::path(
    post, path = "/v1/breakers/{service}/open", tag = "breakers", operation_id = "open_breaker",
    params(("service" = String, Path, description = "The service", example = "payments")),
    request_body(content = Why, example = json!({"reason": "the payment gateway is being moved"})),
    responses(
        (status = 200, description = "The breaker as it is now", body = BreakerView, example = json!(super::example("open", "open"))),
        (status = 404, description = "`not_found`: no saga calls such a service"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the breaker; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn open(
    State(app): State<Shared>,
    operator: Operator,
    Id(service): Id<String>,
    body: JsonBody<Why>,
) -> Result<Json<BreakerView>, Problem> {
    set(&app, service, &operator, BreakerMode::Open, body.value.reason).await
}
