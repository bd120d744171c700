//! Query `update`: replaces the details of a draft.

use std::sync::Arc;

use eventicket_contracts::events::{Event, UpdateEvent};
use eventicket_nats::QueryError;
use serde_json::json;

use super::{refused, unavailable};
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, update: UpdateEvent) -> Result<Option<Event>, QueryError> {
    let UpdateEvent { id, viewer, version, details } = update;
    let now = events.clock.now();
    let mut tx = events.store.begin().await.map_err(unavailable)?;
    let event = tx.lock(id).await.map_err(unavailable)?;
    let Some(event) = event.filter(|event| lifecycle::may_edit(event, viewer)) else { return Ok(None) };
    let event = lifecycle::edit(&event, version, details, now).map_err(refused)?;
    tx.update(&event).await.map_err(unavailable)?;
    tx.tell("updated", [(&event, json!({ "event": event }))], now).await.map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)?;
    events.wake_relay.notify_one();
    Ok(Some(event))
}
