//! Query `update`: replaces the details of an event, of a draft at once; of what is sold, bookings decides.

use std::sync::Arc;

use eventicket_contracts::events::{Event, UpdateEvent};
use eventicket_nats::QueryError;

use super::change::change;
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, update: UpdateEvent) -> Result<Option<Event>, QueryError> {
    let UpdateEvent { id, viewer, version, details } = update;
    change(events, id, viewer, |stored, now| lifecycle::edit(stored, version, details, now)).await
}
