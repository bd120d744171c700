//! Rows as the core's values. PostgreSQL has no unsigned integers; casts of what we wrote are exact.

use eventicket_contracts::bookings::{Availability, TypeAvailability};
use eventicket_contracts::envelope::Key;
use eventicket_contracts::{Currency, CustomerId, EventId, Money, SagaId, TicketTypeId, Timestamp};
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::allocation::{Content, Hold, Phase, Record};
use crate::event::{Event, TicketType};
use crate::seats::Seats;

type Read<T> = Result<T, sqlx::Error>;

pub(crate) fn key(row: &PgRow) -> Read<Key> {
    let round = row.try_get::<i32, _>("round")?.cast_unsigned();
    Ok(Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round })
}

pub(crate) fn record(row: &PgRow) -> Read<Record> {
    let content = match state(row)? {
        "tombstone" => Content::Tombstone,
        "refused" => Content::Refused { customer: customer(row)?, rejection: json(row.try_get("answer")?)? },
        held => {
            let phase = phase(held)?;
            let (customer, reserved) = (customer(row)?, json(row.try_get("answer")?)?);
            let grace_until = Timestamp(row.try_get("grace_until")?);
            let max_per_customer = row.try_get::<Option<i64>, _>("max_per_customer")?.map(unsigned).transpose()?;
            Content::Hold(Hold { phase, customer, reserved, grace_until, max_per_customer })
        }
    };
    let changes = row.try_get::<i32, _>("changes")?.cast_unsigned();
    Ok(Record { event: EventId(row.try_get("event")?), changes, content })
}

fn state(row: &PgRow) -> Read<&str> {
    row.try_get("state")
}

fn customer(row: &PgRow) -> Read<CustomerId> {
    row.try_get("customer").map(CustomerId)
}

fn phase(state: &str) -> Read<Phase> {
    let phases = [Phase::Held, Phase::Confirmed, Phase::Released, Phase::Expired];
    let unknown = || sqlx::Error::Decode(format!("unknown state {state:?}").into());
    phases.into_iter().find(|phase| phase_name(*phase) == state).ok_or_else(unknown)
}

pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Held => "held",
        Phase::Confirmed => "confirmed",
        Phase::Released => "released",
        Phase::Expired => "expired",
    }
}

pub(crate) fn state_name(content: &Content) -> &'static str {
    match content {
        Content::Hold(hold) => phase_name(hold.phase),
        Content::Refused { .. } => "refused",
        Content::Tombstone => "tombstone",
    }
}

/// Events with their types, without their seats.
pub(crate) fn events(events: &[PgRow], types: &[PgRow]) -> Read<Vec<Event>> {
    let mut events = events.iter().map(event).collect::<Read<Vec<_>>>()?;
    for row in types {
        let of = EventId(row.try_get("event")?);
        let kind = ticket_type(row)?;
        events.iter_mut().filter(|event| event.id == of).for_each(|event| event.types.push(kind.clone()));
    }
    Ok(events)
}

/// An event without its types and seats.
fn event(row: &PgRow) -> Read<Event> {
    Ok(Event {
        id: EventId(row.try_get("id")?),
        version: row.try_get("version")?,
        title: row.try_get("title")?,
        starts_at: Timestamp(row.try_get("starts_at")?),
        ends_at: Timestamp(row.try_get("ends_at")?),
        on_sale: row.try_get("on_sale")?,
        cancelled: row.try_get("cancelled")?,
        hold_seconds: row.try_get::<Option<i64>, _>("hold_seconds")?.map(unsigned).transpose()?,
        max_per_customer: row.try_get::<Option<i64>, _>("max_per_customer")?.map(unsigned).transpose()?,
        types: Vec::new(),
        seats: Seats::default(),
    })
}

fn ticket_type(row: &PgRow) -> Read<TicketType> {
    let currency = row.try_get::<&str, _>("currency")?;
    let unknown = || sqlx::Error::Decode(format!("unknown currency {currency:?}").into());
    Ok(TicketType {
        id: TicketTypeId(row.try_get("id")?),
        name: row.try_get("name")?,
        price: Money { amount: row.try_get("price")?, currency: Currency::parse(currency).ok_or_else(unknown)? },
        quantity: unsigned(row.try_get("quantity")?)?,
        available: unsigned(row.try_get("available")?)?,
        max_per_order: row.try_get::<Option<i64>, _>("max_per_order")?.map(unsigned).transpose()?,
        numbered: row.try_get("numbered")?,
        free_from: unsigned(row.try_get("free_from")?)?,
    })
}

/// What is left of these events, without those that were never offered, and without single seats, which are many.
pub(crate) async fn availability(tx: &mut PgConnection, events: &[Uuid]) -> Read<Vec<Availability>> {
    let found = sqlx::query(
        "SELECT e.id AS event, e.on_sale, t.id, t.quantity, t.available, NULL::text[] AS free_seats
         FROM events e LEFT JOIN ticket_types t ON t.event = e.id
         WHERE e.id = ANY($1) AND e.version > 0 ORDER BY e.id, t.position",
    );
    availabilities(&found.bind(events).fetch_all(tx).await?)
}

/// The same of one event, seat by seat. One statement, so that numbers and seats are of one moment.
pub(crate) async fn free_seats(tx: &mut PgConnection, event: Uuid) -> Read<Vec<Availability>> {
    let found = sqlx::query(
        "SELECT e.id AS event, e.on_sale, t.id, t.quantity, t.available,
                CASE WHEN t.numbered THEN ARRAY(
                    SELECT s.label FROM seats s WHERE s.event = $1 AND s.ticket_type = t.id
                    AND s.label NOT IN (SELECT seat FROM taken_seats WHERE event = $1)
                    ORDER BY s.position) END AS free_seats
         FROM events e LEFT JOIN ticket_types t ON t.event = e.id
         WHERE e.id = $1 AND e.version > 0 ORDER BY t.position",
    );
    availabilities(&found.bind(event).fetch_all(tx).await?)
}

fn availabilities(found: &[PgRow]) -> Read<Vec<Availability>> {
    let mut all: Vec<Availability> = Vec::new();
    for row in found {
        let event_id = EventId(row.try_get("event")?);
        if all.last().is_none_or(|last| last.event_id != event_id) {
            all.push(Availability { event_id, on_sale: row.try_get("on_sale")?, ticket_types: Vec::new() });
        }
        let Some(id) = row.try_get::<Option<Uuid>, _>("id")? else { continue };
        let (quantity, available) = (unsigned(row.try_get("quantity")?)?, unsigned(row.try_get("available")?)?);
        let (ticket_type_id, free_seats) = (TicketTypeId(id), row.try_get("free_seats")?);
        let kind = TypeAvailability { ticket_type_id, quantity, available, free_seats };
        all.last_mut().map(|event| event.ticket_types.push(kind)).unwrap_or_default();
    }
    Ok(all)
}

pub(crate) fn json<T: DeserializeOwned>(text: &str) -> Read<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(crate) fn sagas(ids: &[SagaId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

pub(crate) fn unsigned(number: i64) -> Read<u32> {
    u32::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}
