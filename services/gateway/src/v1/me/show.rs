//! `GET /v1/me`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use eventicket_contracts::identity::User;
use eventicket_kit::Problem;

use crate::app::Shared;
use crate::auth::Caller;
use crate::etag;

/// Show one's own account
#[utoipa::path(
    get, path = "/v1/me", tag = "me", operation_id = "show_me",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known already", example = "\"1\"")),
    responses(
        (status = 200, description = "The account", body = User, headers(("ETag" = String, description = "Its version")), example = json!(super::example())),
        (status = 304, description = "It is the version that is known already", headers(("ETag" = String, description = "Its version"))),
        (status = 404, description = "`not_found`: the account is gone"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn show(State(app): State<Shared>, caller: Caller, headers: HeaderMap) -> Result<Response, Problem> {
    let user = super::read(&app, caller.id).await?;
    Ok(etag::answer(&headers, user.version, Json(&user)))
}
