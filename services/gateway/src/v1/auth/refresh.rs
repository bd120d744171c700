//! `POST /v1/auth/refresh`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::identity::{REFRESH, Refresh, Tokens};
use eventicket_kit::{FieldError, Problem};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Answer, example};
use crate::app::Shared;
use crate::backend::IDENTITY;
use crate::extract::JsonBody;

/// Longest refresh token that is looked at.
const MAX_TOKEN: usize = 512;

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// As the last answer gave it.
    #[schema(max_length = 512)]
    refresh_token: String,
}

/// Go on with a session
///
/// The refresh token is used up; using it again ends the session, since then two have it.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "auth", operation_id = "refresh",
    request_body(content = RefreshRequest, example = json!({"refresh_token": "rt_4f9Qd1nXk0Zr7s2yVb8mTw"})),
    responses(
        (status = 200, description = "The next pair of tokens", body = Tokens, example = json!(example())),
        (status = 401, description = "`invalid_token`: it does not hold, or was used before"),
    ),
    security(()),
)]
pub async fn refresh(State(app): State<Shared>, body: JsonBody<RefreshRequest>) -> Result<Answer, Problem> {
    let RefreshRequest { refresh_token } = body.value;
    if refresh_token.len() > MAX_TOKEN {
        let error = FieldError::new("refresh_token", "out_of_range", format!("at most {MAX_TOKEN} bytes"));
        return Err(Problem::validation(vec![error]));
    }
    Ok(Json(app.backend.write(IDENTITY, REFRESH, &Refresh { refresh_token }).await?))
}
