//! Query `create`: makes a draft.

use std::sync::Arc;

use eventicket_contracts::codes;
use eventicket_contracts::events::{CreateEvent, Event};
use eventicket_contracts::identity::Idempotency;
use eventicket_nats::QueryError;
use serde_json::json;

use super::{refused, unavailable};
use crate::store::Creation;
use crate::{Events, lifecycle};

pub(super) async fn answer(events: Arc<Events>, create: CreateEvent) -> Result<Event, QueryError> {
    let now = events.clock.now();
    let CreateEvent { organizer, details, idempotency } = create;
    if let Some(key) = &idempotency
        && let Some(known) = events.store.creation(organizer, &key.key, now).await.map_err(unavailable)?
    {
        return repeat(known, key);
    }
    let event = lifecycle::create(organizer, details, now).map_err(refused)?;
    let mut tx = events.store.begin().await.map_err(unavailable)?;
    if let Some(key) = &idempotency
        && !tx.claim(key, &event, now).await.map_err(unavailable)?
    {
        // A request with the same key was faster. What it did is committed: the claim waited for that.
        drop(tx);
        let known = events.store.creation(organizer, &key.key, now).await.map_err(unavailable)?;
        return known.map_or_else(|| Err(unavailable(sqlx::Error::RowNotFound)), |known| repeat(known, key));
    }
    tx.insert(&event).await.map_err(unavailable)?;
    tx.tell([("created", &event, json!({ "event": event }))], now).await.map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)?;
    events.wake_relay.notify_one();
    Ok(event)
}

fn repeat(known: Creation, key: &Idempotency) -> Result<Event, QueryError> {
    if known.fingerprint == key.fingerprint {
        Ok(known.answer)
    } else {
        Err(QueryError::new(codes::KEY_REUSED, "this idempotency key came before, with another body"))
    }
}
