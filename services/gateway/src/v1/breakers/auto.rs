//! `POST /v1/breakers/{service}/auto`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{BreakerMode, BreakerView};
use eventicket_kit::Problem;

use super::set;
use crate::app::Shared;
use crate::auth::Operator;
use crate::extract::{Id, JsonBody};
use crate::v1::sagas::Why;

/// Let a breaker count
///
/// It counts again, from closed: it opens when the service fails, and closes when a probe succeeds.
#[utoipa::path(
    post, path = "/v1/breakers/{service}/auto", tag = "breakers", operation_id = "auto_breaker",
    params(("service" = String, Path, description = "The service", example = "payments")),
    request_body(content = Why, example = json!({"reason": "the payment gateway is being moved"})),
    responses(
        (status = 200, description = "The breaker as it is now", body = BreakerView, example = json!(super::example("closed", "auto"))),
        (status = 404, description = "`not_found`: no saga calls such a service"),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the breaker; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn auto(
    State(app): State<Shared>,
    operator: Operator,
    Id(service): Id<String>,
    body: JsonBody<Why>,
) -> Result<Json<BreakerView>, Problem> {
    set(&app, service, &operator, BreakerMode::Auto, body.value.reason).await
}
