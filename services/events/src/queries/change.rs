//! What queries that change an event have in common.

use std::sync::Arc;

use eventicket_contracts::events::{Event, PublishEvent, Viewer};
use eventicket_contracts::{EventId, SagaId, Timestamp};
use eventicket_nats::QueryError;
use eventicket_nats::trace::here;
use serde_json::json;

use super::{refused, unavailable};
use crate::lifecycle::{self, Decision, Refusal, Stored};
use crate::store::SagaStart;
use crate::{Events, sale};

/// Carries out what is decided on the event, where the viewer may edit it, and answers the event as it is then.
///
/// What bookings has not decided on within a minute is superseded by the next request, see [`lifecycle::PENDING_FOR`].
/// What bookings has to decide on is written with the row that opens the saga, in one transaction.
pub(super) async fn change(
    events: Arc<Events>,
    id: EventId,
    viewer: Viewer,
    decide: impl FnOnce(&Stored, Timestamp) -> Result<Decision, Refusal>,
) -> Result<Option<Event>, QueryError> {
    let now = events.clock.now();
    let mut tx = events.store.begin().await.map_err(unavailable)?;
    let stored = tx.lock(id).await.map_err(unavailable)?;
    let Some(stored) = stored.filter(|stored| lifecycle::may_edit(&stored.event, viewer)) else { return Ok(None) };
    let (changed, offer) = match decide(&stored, now).map_err(refused)? {
        Decision::Nothing => return Ok(Some(stored.event)),
        Decision::AtOnce(changed) => (*changed, None),
        Decision::Offered(changed) => {
            let offer = sale::offer(&changed);
            (*changed, offer)
        }
    };
    tx.update(std::slice::from_ref(&changed)).await.map_err(unavailable)?;
    let event = changed.event;
    if let Some(offer) = offer {
        let input = json!(PublishEvent { offer }).into();
        let start = SagaStart { id: SagaId::fresh(), event: id, organizer: event.organizer_id, input, trace: here() };
        tx.insert_start(&start, now).await.map_err(unavailable)?;
    } else {
        tx.tell([("updated", &event, json!({ "event": event }))], now).await.map_err(unavailable)?;
    }
    tx.commit().await.map_err(unavailable)?;
    events.wake_starter.notify_one();
    events.wake_relay.notify_one();
    Ok(Some(event))
}
