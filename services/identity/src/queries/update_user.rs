//! Query `update_user`: edits one's own account.

use std::sync::Arc;

use eventicket_contracts::codes;
use eventicket_contracts::identity::{UpdateUser, User};
use eventicket_nats::QueryError;

use super::{invalid, unavailable};
use crate::Identity;
use crate::account::check_name;

pub(super) async fn answer(identity: Arc<Identity>, edit: UpdateUser) -> Result<Option<User>, QueryError> {
    if let Some(error) = edit.name.as_deref().and_then(check_name) {
        return Err(invalid(&[error]));
    }
    if edit.name.is_some()
        && let Some(user) = identity.store.update_user(&edit, identity.clock.now()).await.map_err(unavailable)?
    {
        return Ok(Some(user));
    }
    match identity.store.users(&[edit.id]).await.map_err(unavailable)?.pop() {
        None => Ok(None),
        Some(user) if edit.name.is_none() && user.version == edit.version => Ok(Some(user)),
        Some(_) => Err(QueryError::new(codes::VERSION_CONFLICT, "the account was changed since it was read")),
    }
}
