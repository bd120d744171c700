//! Query `list`: events by their start, earliest first.

use std::sync::Arc;

use eventicket_contracts::events::{Event, EventCursor, EventPage, ListEvents};
use eventicket_nats::QueryError;

use super::unavailable;
use crate::{Events, lifecycle};

/// Most events of one page.
const MOST: u32 = 100;
/// Most bytes of their details: a page has to fit into a message of NATS, which takes 1 MiB.
const BYTES: usize = 512 * 1024;

pub(super) async fn answer(events: Arc<Events>, list: ListEvents) -> Result<EventPage, QueryError> {
    // PostgreSQL's texts hold no zero, and so no event has such a category.
    if list.category.as_ref().is_some_and(|category| category.contains('\0')) {
        return Ok(EventPage { items: Vec::new(), next: None });
    }
    let limit = list.limit.clamp(1, MOST);
    let found = events.store.list(&list, limit.into(), events.clock.now()).await.map_err(unavailable)?;
    let fits = fitting(found.iter().map(|(_, bytes)| *bytes)).min(limit as usize);
    let more = found.len() > fits;
    let items: Vec<Event> =
        found.into_iter().take(fits).map(|(event, _)| lifecycle::seen(event, list.viewer)).collect();
    let cursor = |event: &Event| EventCursor { starts_at: event.details.starts_at, id: event.id };
    Ok(EventPage { next: items.last().filter(|_| more).map(cursor), items })
}

/// How many of the first fit into a page; one always does.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let sums = sizes.scan(0, |sum, bytes| {
        *sum += bytes;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= BYTES).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_in_bytes_and_never_empty() {
        for (sizes, fit) in [(&[1, 2, 3][..], 3), (&[BYTES, 1], 1), (&[BYTES - 1, 1, 1], 2), (&[BYTES + 1, 1], 1)] {
            assert_eq!(fitting(sizes.iter().copied()), fit, "{sizes:?}");
        }
    }
}
