//! Query `login`: opens a session.

use std::sync::Arc;

use eventicket_contracts::codes;
use eventicket_contracts::identity::{Login, Tokens};
use eventicket_nats::QueryError;

use super::{password_error, unavailable};
use crate::Identity;
use crate::sessions::fresh_token;

/// Takes the same way, and so the same time, whether there is no such account or its password is another one.
pub(super) async fn answer(identity: Arc<Identity>, login: Login) -> Result<Tokens, QueryError> {
    let found = identity.store.credentials(&login.email).await.map_err(unavailable)?;
    let hash = found.as_ref().map(|found| found.password_hash.clone());
    let right = identity.passwords.verify(login.password, hash).await.map_err(password_error)?;
    let Some(account) = found.filter(|_| right) else {
        return Err(QueryError::new(codes::INVALID_CREDENTIALS, "no account with this address and password"));
    };
    let (refresh_token, hash) = fresh_token();
    let signer = identity.keys.signer().await.map_err(unavailable)?;
    let tokens = identity.tokens(&signer, account.user, account.roles, refresh_token).map_err(unavailable)?;
    identity.store.open_session(account.user, hash, identity.clock.now()).await.map_err(unavailable)?;
    Ok(tokens)
}
