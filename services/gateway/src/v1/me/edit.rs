//! `PATCH /v1/me`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use eventicket_contracts::identity::{UPDATE_USER, UpdateUser, User};
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::Shared;
use crate::auth::Caller;
use crate::backend::IDENTITY;
use crate::etag::{self, IfMatch};
use crate::extract::JsonBody;

/// What changes of an account; fields that are not given stay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountPatch {
    /// As others see it.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    name: Option<String>,
}

/// Edit one's own account
#[utoipa::path(
    patch, path = "/v1/me", tag = "me", operation_id = "edit_me",
    params(("If-Match" = String, Header, description = "The `ETag` of the version that was read", example = "\"1\"")),
    request_body(content = AccountPatch, example = json!({"name": "Ada King"})),
    responses(
        (status = 200, description = "The account as it is now", body = User, headers(("ETag" = String, description = "Its version")), example = json!(super::example())),
        (status = 404, description = "`not_found`: the account is gone"),
        (status = 412, description = "`version_conflict`: it was changed since it was read"),
        (status = 428, description = "`precondition_required`: `If-Match` is missing"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn edit(
    State(app): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    body: JsonBody<AccountPatch>,
) -> Result<Response, Problem> {
    let if_match = if_match.required()?;
    let current = super::read(&app, caller.id).await?;
    if_match.check(current.version)?;
    let update = UpdateUser { id: caller.id, version: current.version, name: body.value.name };
    let updated: Option<User> = app.backend.write(IDENTITY, UPDATE_USER, &update).await?;
    let user = updated.ok_or_else(Problem::not_found)?;
    Ok(etag::tagged(user.version, Json(&user)))
}
