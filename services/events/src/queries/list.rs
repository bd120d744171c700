//! Query `list`: events by their start, earliest first.

use std::sync::Arc;

use eventicket_contracts::events::{EventCursor, EventPage, ListEvents};
use eventicket_nats::QueryError;

use super::unavailable;
use crate::Events;

/// Most events of one page.
const MOST: u32 = 100;

pub(super) async fn answer(events: Arc<Events>, list: ListEvents) -> Result<EventPage, QueryError> {
    // PostgreSQL's texts hold no zero, and so no event has such a category.
    if list.category.as_ref().is_some_and(|category| category.contains('\0')) {
        return Ok(EventPage { items: Vec::new(), next: None });
    }
    let limit = list.limit.clamp(1, MOST);
    let mut items = events.store.list(&list, limit.into(), events.clock.now()).await.map_err(unavailable)?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let cursor =
        |event: &eventicket_contracts::events::Event| EventCursor { starts_at: event.details.starts_at, id: event.id };
    Ok(EventPage { next: items.last().filter(|_| more).map(cursor), items })
}
