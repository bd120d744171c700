//! Query `cancel`: takes an event off sale for good, which bookings decides.

use std::sync::Arc;

use eventicket_contracts::events::{Event, OwnEvent};
use eventicket_nats::QueryError;

use super::change::change;
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, own: OwnEvent) -> Result<Option<Event>, QueryError> {
    change(events, own.id, own.viewer, |stored, now| lifecycle::cancel(stored, own.version, now)).await
}
