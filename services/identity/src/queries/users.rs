//! Query `users`: accounts by id.

use std::sync::Arc;

use eventicket_contracts::identity::User;
use eventicket_contracts::{CustomerId, codes};
use eventicket_nats::QueryError;

use super::unavailable;
use crate::Identity;

/// Most accounts of one query.
const MOST: usize = 1000;

pub(super) async fn answer(identity: Arc<Identity>, ids: Vec<CustomerId>) -> Result<Vec<User>, QueryError> {
    if ids.len() > MOST {
        return Err(QueryError::new(codes::VALIDATION, format!("at most {MOST} accounts at once")));
    }
    identity.store.users(&ids).await.map_err(unavailable)
}
