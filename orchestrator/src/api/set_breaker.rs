//! Query `set_breaker`: an operator forces a breaker open or closed, or lets it count again. All replicas follow with
//! their next look.

use eventicket_contracts::sagas::{BreakerMode, BreakerView, SetBreaker};
use eventicket_nats::QueryError;
use eventicket_saga::breaker::Mode;

use super::{Reader, breakers, failed};
use crate::runtime::journal;

/// `None` where no saga calls such a service.
pub async fn set(reader: Reader, set: SetBreaker) -> Result<Option<BreakerView>, QueryError> {
    if !reader.catalogue.services().contains(&set.service) {
        return Ok(None);
    }
    let mode = match set.mode {
        BreakerMode::Open => Mode::Open,
        BreakerMode::Closed => Mode::Closed,
        BreakerMode::Auto => Mode::Auto,
    };
    let (by, now) = ((set.actor.as_str(), set.reason.as_str()), reader.clock.now());
    journal::force_breaker(&reader.pool, &set.service, mode, by, now).await.map_err(|e| failed(&e))?;
    tracing::warn!(service = set.service, mode = mode.name(), actor = set.actor, reason = set.reason, "breaker set");
    let all = breakers::read(&reader).await.map_err(|e| failed(&e))?;
    Ok(all.into_iter().find(|b| b.service == set.service))
}
