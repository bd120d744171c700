//! Query `refresh`: a new pair of tokens for a refresh token, which is used up.

use std::sync::Arc;

use eventicket_contracts::codes;
use eventicket_contracts::identity::{Refresh, Tokens};
use eventicket_nats::QueryError;

use super::unavailable;
use crate::Identity;
use crate::sessions::{TokenHash, Verdict, fresh_token, judge};

pub(super) async fn answer(identity: Arc<Identity>, refresh: Refresh) -> Result<Tokens, QueryError> {
    let refused = || QueryError::new(codes::INVALID_TOKEN, "this refresh token is not good, or no longer");
    let hash = TokenHash::of(&refresh.refresh_token);
    // Before the transaction, which shall not wait for anything else.
    let signer = identity.keys.signer().await.map_err(unavailable)?;
    let Some(tx) = identity.store.begin_refresh(hash).await.map_err(unavailable)? else { return Err(refused()) };
    let now = identity.clock.now();
    match judge(&tx.stored, now) {
        Verdict::Good => {
            let (refresh_token, next) = fresh_token();
            // Signed first: a token that cannot be signed costs nobody the session.
            let tokens = identity.tokens(&signer, tx.user, tx.roles.clone(), refresh_token).map_err(unavailable)?;
            tx.replace(next, now).await.map_err(unavailable)?;
            Ok(tokens)
        }
        Verdict::Reused => {
            tracing::warn!(user = %tx.user, "a used refresh token came again: its session ends");
            tx.end_session(now).await.map_err(unavailable)?;
            Err(refused())
        }
        Verdict::Refused => Err(refused()),
    }
}
