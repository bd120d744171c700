//! Query `delete`: deletes a draft.

use std::sync::Arc;

use eventicket_contracts::events::OwnEvent;
use eventicket_nats::QueryError;

use super::{refused, unavailable};
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, own: OwnEvent) -> Result<Option<bool>, QueryError> {
    let mut tx = events.store.begin().await.map_err(unavailable)?;
    let stored = tx.lock(own.id).await.map_err(unavailable)?;
    let event = stored.map(|stored| stored.event).filter(|event| lifecycle::may_edit(event, own.viewer));
    let Some(event) = event else { return Ok(None) };
    lifecycle::delete(&event, own.version).map_err(refused)?;
    tx.delete(event.id).await.map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)?;
    Ok(Some(true))
}
