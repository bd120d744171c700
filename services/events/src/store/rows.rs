//! Rows as what they stand for.

use std::time::Duration;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::events::{Event, EventState, SaleChange};
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::lifecycle::Stored;

/// What a list reads of an event.
pub(super) const LISTED: &str =
    "id, organizer, state, version, details, change_version, change_refused, created_at, updated_at";
/// All of it.
pub(super) const WHOLE: &str =
    "id, organizer, state, version, details, seats, change_version, change_refused, change_to, created_at, updated_at";

const STATES: [EventState; 5] =
    [EventState::Draft, EventState::Publishing, EventState::Published, EventState::Stopped, EventState::Cancelled];

pub(super) const fn state_name(state: EventState) -> &'static str {
    match state {
        EventState::Draft => "draft",
        EventState::Publishing => "publishing",
        EventState::Published => "published",
        EventState::Stopped => "stopped",
        EventState::Cancelled => "cancelled",
    }
}

/// An event of the columns [`WHOLE`].
pub(super) fn stored(row: &PgRow) -> Result<Stored, sqlx::Error> {
    let mut event = listed(row)?;
    let seats: Vec<Vec<String>> = json(row, "seats")?;
    for (kind, seats) in event.details.ticket_types.iter_mut().zip(seats) {
        kind.seats = seats;
    }
    let next: Option<&str> = row.try_get("change_to")?;
    Ok(Stored { event, next: next.map(parsed).transpose()? })
}

/// An event of the columns [`LISTED`], without its seats.
pub(super) fn listed(row: &PgRow) -> Result<Event, sqlx::Error> {
    let name: &str = row.try_get("state")?;
    let state = STATES.into_iter().find(|state| state_name(*state) == name);
    let offered: Option<i64> = row.try_get("change_version")?;
    let refused = row.try_get("change_refused")?;
    Ok(Event {
        id: EventId(row.try_get("id")?),
        organizer_id: CustomerId(row.try_get("organizer")?),
        state: state.ok_or_else(|| sqlx::Error::Decode("an unknown state".into()))?,
        version: row.try_get("version")?,
        change: offered.map(|version| SaleChange { version, refused }),
        details: json(row, "details")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

/// The columns `details` and `seats` of an event.
pub(super) fn texts(event: &Event) -> Result<(String, String), sqlx::Error> {
    let mut details = event.details.clone();
    let seats: Vec<Vec<String>> = details.ticket_types.iter_mut().map(|kind| std::mem::take(&mut kind.seats)).collect();
    Ok((text(&details)?, text(&seats)?))
}

pub(super) fn key(row: &PgRow) -> Result<Key, sqlx::Error> {
    let round = row.try_get::<i32, _>("round")?.cast_unsigned();
    Ok(Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round })
}

pub(super) fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    parsed(row.try_get(column)?)
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn text(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn before(now: Timestamp, by: Duration) -> i64 {
    now.millis().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
