//! `POST /v1/auth/login`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::identity::{LOGIN, Login, Tokens};
use eventicket_contracts::text::Email;
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Answer, example};
use crate::app::Shared;
use crate::backend::IDENTITY;
use crate::extract::JsonBody;

/// Credentials.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The login name.
    #[schema(value_type = String, format = "email", max_length = 254)]
    email: Email,
    /// The password.
    #[schema(max_length = 128, format = "password")]
    password: String,
}

/// Sign in
///
/// The access token goes into `Authorization: Bearer`; the refresh token gets the next pair once.
#[utoipa::path(
    post, path = "/v1/auth/login", tag = "auth", operation_id = "login",
    request_body(content = Credentials, example = json!({"email": "customer@demo.test", "password": "demo-password"})),
    responses(
        (status = 200, description = "Tokens of a new session", body = Tokens, example = json!(example())),
        (status = 401, description = "`invalid_credentials`: address or password is wrong"),
        (status = 429, description = "`busy`: too many sign-ins at once; or `rate_limited`"),
    ),
    security(()),
)]
pub async fn login(State(app): State<Shared>, body: JsonBody<Credentials>) -> Result<Answer, Problem> {
    let Credentials { email, password } = body.value;
    Ok(Json(app.backend.read(IDENTITY, LOGIN, &Login { email, password }).await?))
}
