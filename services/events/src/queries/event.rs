//! Query `event`: one event, where it is there for the viewer.

use std::sync::Arc;

use eventicket_contracts::events::{Event, GetEvent};
use eventicket_nats::QueryError;

use super::unavailable;
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, get: GetEvent) -> Result<Option<Event>, QueryError> {
    let event = events.store.event(get.id).await.map_err(unavailable)?;
    let event = event.filter(|event| lifecycle::is_visible(event, get.viewer));
    Ok(event.map(|event| lifecycle::seen(event, get.viewer)))
}
