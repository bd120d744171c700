//! Query `jwks`: the public keys of access tokens, also of those that sign soon and of those whose tokens have not ended.

use std::sync::Arc;

use eventicket_nats::QueryError;
use jsonwebtoken::jwk::JwkSet;
use serde_json::Value;

use super::unavailable;
use crate::Identity;

pub(super) async fn answer(identity: Arc<Identity>, _: Value) -> Result<JwkSet, QueryError> {
    identity.keys.jwks().await.map_err(unavailable)
}
