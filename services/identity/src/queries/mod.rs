//! The queries of the service, one a file.

mod jwks;
mod login;
mod refresh;
mod register;
mod update_user;
mod users;

use std::sync::Arc;

use eventicket_contracts::{codes, identity as names};
use eventicket_kit::FieldError;
use eventicket_nats::{Nats, QueryError, QueryServer};
use serde_json::json;

use crate::Identity;
use crate::passwords::PasswordError;

/// When those who came when all places were taken shall come again.
const BUSY_RETRY_MS: u64 = 1000;

/// Announces the queries; they are answered once the server runs.
pub(crate) async fn serve(nats: &Nats, identity: &Arc<Identity>) -> anyhow::Result<QueryServer> {
    let mut server = QueryServer::start(nats, names::SERVICE, "Accounts, sessions and signing keys").await?;
    let service = identity.clone();
    server.endpoint(names::REGISTER, move |query| register::answer(service.clone(), query)).await?;
    let service = identity.clone();
    server.endpoint(names::LOGIN, move |query| login::answer(service.clone(), query)).await?;
    let service = identity.clone();
    server.endpoint(names::REFRESH, move |query| refresh::answer(service.clone(), query)).await?;
    let service = identity.clone();
    server.endpoint(names::JWKS, move |query| jwks::answer(service.clone(), query)).await?;
    let service = identity.clone();
    server.endpoint(names::USERS, move |query| users::answer(service.clone(), query)).await?;
    let service = identity.clone();
    server.endpoint(names::UPDATE_USER, move |query| update_user::answer(service.clone(), query)).await?;
    Ok(server)
}

/// What went wrong goes to the log, where it was; the asker learns only that it did.
fn unavailable(error: impl Into<anyhow::Error>) -> QueryError {
    tracing::error!(error = format!("{:#}", error.into()), "a query of identity cannot be answered");
    QueryError::new(codes::UNAVAILABLE, "accounts cannot be reached now")
}

fn invalid(errors: &[FieldError]) -> QueryError {
    QueryError { details: Some(json!(errors)), ..QueryError::new(codes::VALIDATION, "some fields are not valid") }
}

fn password_error(error: PasswordError) -> QueryError {
    match error {
        PasswordError::Busy => QueryError {
            details: Some(json!({ "retry_after_ms": BUSY_RETRY_MS })),
            ..QueryError::new(codes::BUSY, "too many sign-ins at once")
        },
        PasswordError::Broken(error) => unavailable(error),
    }
}
