//! Query `breakers`: of each service that sagas call, whether its commands are held, and how many sagas wait.

use std::collections::BTreeMap;

use eventicket_contracts::Timestamp;
use eventicket_contracts::sagas::BreakerView;
use eventicket_nats::QueryError;

use super::{Reader, failed};
use crate::runtime::journal::{self, StoredBreaker};

/// All breakers, by service.
pub async fn list(reader: Reader) -> Result<Vec<BreakerView>, QueryError> {
    read(&reader).await.map_err(|e| failed(&e))
}

pub(super) async fn read(reader: &Reader) -> Result<Vec<BreakerView>, sqlx::Error> {
    let stored = journal::breakers(&reader.pool).await?;
    let mut stored: BTreeMap<String, StoredBreaker> = stored.into_iter().map(|b| (b.service.clone(), b)).collect();
    let held = journal::held(&reader.pool, &reader.catalogue).await?;
    let view = |service: String| {
        let stored = stored.remove(&service);
        let breaker = stored.as_ref().map(|b| b.breaker).unwrap_or_default();
        BreakerView {
            state: breaker.shown().to_owned(),
            mode: breaker.mode.name().to_owned(),
            until: breaker.until().map(Timestamp),
            held: held.get(&service).copied().unwrap_or(0),
            changed_at: stored.as_ref().map(|b| b.changed_at),
            actor: stored.as_ref().and_then(|b| b.actor.clone()),
            reason: stored.and_then(|b| b.reason),
            service,
        }
    };
    Ok(reader.catalogue.services().into_iter().map(view).collect())
}
