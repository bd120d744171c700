//! `POST /v1/auth/register`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use eventicket_contracts::identity::{REGISTER, Register, User};
use eventicket_contracts::text::Email;
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::Shared;
use crate::backend::IDENTITY;
use crate::extract::JsonBody;
use crate::v1::me;

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The login name.
    #[schema(value_type = String, format = "email", max_length = 254)]
    email: Email,
    /// 8 to 128 characters.
    #[schema(min_length = 8, max_length = 128, format = "password")]
    password: String,
    /// As others see it.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    name: String,
}

/// Make an account
///
/// It may book at once. A repeat with the same `Idempotency-Key` finds the first account.
#[utoipa::path(
    post, path = "/v1/auth/register", tag = "auth", operation_id = "register",
    request_body(content = NewAccount, example = json!({
        "email": "ada@example.org", "password": "a-long-passphrase", "name": "Ada Lovelace",
    })),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters", example = "a1b2c3")),
    responses(
        (status = 201, description = "The account", body = User, example = json!(me::example())),
        (status = 409, description = "`email_taken`: an account with this address exists"),
        (status = 422, description = "`validation`: some fields are not valid; or `idempotency_key_reused`"),
    ),
    security(()),
)]
pub async fn register(
    State(app): State<Shared>,
    body: JsonBody<NewAccount>,
) -> Result<(StatusCode, Json<User>), Problem> {
    let NewAccount { email, password, name } = body.value;
    let command = Register { email, password, name, idempotency: body.idempotency };
    Ok((StatusCode::CREATED, Json(app.backend.write(IDENTITY, REGISTER, &command).await?)))
}
