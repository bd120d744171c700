//! Query `publish`: writes the row that opens the publish saga, and answers at once.

use std::sync::Arc;

use eventicket_contracts::SagaId;
use eventicket_contracts::events::{Event, OwnEvent, PublishEvent};
use eventicket_nats::QueryError;
use serde_json::json;

use super::{refused, unavailable};
use crate::store::SagaStart;
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, own: OwnEvent) -> Result<Option<Event>, QueryError> {
    let now = events.clock.now();
    let mut tx = events.store.begin().await.map_err(unavailable)?;
    let event = tx.lock(own.id).await.map_err(unavailable)?;
    let Some(event) = event.filter(|event| lifecycle::may_edit(event, own.viewer)) else { return Ok(None) };
    let Some(publishing) = lifecycle::publish(&event, own.version, now).map_err(refused)? else {
        return Ok(Some(event));
    };
    let start = SagaStart {
        id: SagaId::fresh(),
        event: publishing.id,
        organizer: publishing.organizer_id,
        input: json!(PublishEvent { offer: lifecycle::offer(&publishing) }),
    };
    tx.update(&publishing).await.map_err(unavailable)?;
    tx.insert_start(&start, now).await.map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)?;
    events.wake_starter.notify_one();
    Ok(Some(publishing))
}
