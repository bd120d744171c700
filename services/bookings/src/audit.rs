//! What an audit reads: figures of capacity, holds and tickets. It writes nothing and takes no locks.

use eventicket_contracts::bookings::Reserved;
use eventicket_contracts::envelope::Key;
use eventicket_contracts::{CustomerId, EventId, Money, SagaId, TicketTypeId, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

/// A ticket type's counter, and what it should follow from. All of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeFigures {
    /// The event.
    pub event: EventId,
    /// The ticket type.
    pub ticket_type: TicketTypeId,
    /// How many exist; 0 for a type that is not on offer, which then has nothing held or confirmed.
    pub quantity: i64,
    /// The counter.
    pub available: i64,
    /// Tickets of holds that are held.
    pub held: i64,
    /// Tickets of holds that are confirmed.
    pub confirmed: i64,
    /// Tickets that exist.
    pub tickets: i64,
}

impl TypeFigures {
    /// Whether the counter tells the truth and nothing is sold twice.
    pub fn is_sound(&self) -> bool {
        self.available >= 0
            && self.available == self.quantity - self.held - self.confirmed
            && self.tickets == self.confirmed
    }
}

/// The figures of all ticket types, by event and type. One statement, so that running sales do not blur them.
///
/// # Errors
/// The database cannot be read.
pub async fn types(pool: &PgPool) -> Result<Vec<TypeFigures>, sqlx::Error> {
    let rows = sqlx::query(
        "WITH lines AS (
             SELECT h.event, (l ->> 'ticket_type_id')::uuid AS id, h.state, (l ->> 'quantity')::bigint AS quantity
             FROM holds h, jsonb_array_elements(h.answer::jsonb -> 'lines') AS l WHERE h.state IN ('held', 'confirmed')),
         sums AS (
             SELECT event, id, sum(quantity) FILTER (WHERE state = 'held') AS held,
                    sum(quantity) FILTER (WHERE state = 'confirmed') AS confirmed
             FROM lines GROUP BY event, id),
         made AS (SELECT event, ticket_type AS id, count(*) AS tickets FROM tickets GROUP BY event, ticket_type)
         SELECT event, id, coalesce(t.quantity, 0) AS quantity, coalesce(t.available, 0) AS available,
                coalesce(s.held, 0)::bigint AS held, coalesce(s.confirmed, 0)::bigint AS confirmed,
                coalesce(m.tickets, 0) AS tickets
         FROM ticket_types t FULL JOIN sums s USING (event, id) FULL JOIN made m USING (event, id) ORDER BY event, id",
    )
    .fetch_all(pool)
    .await?;
    let figures = |row: &PgRow| {
        Ok(TypeFigures {
            event: EventId(row.try_get("event")?),
            ticket_type: TicketTypeId(row.try_get("id")?),
            quantity: row.try_get("quantity")?,
            available: row.try_get("available")?,
            held: row.try_get("held")?,
            confirmed: row.try_get("confirmed")?,
            tickets: row.try_get("tickets")?,
        })
    };
    rows.iter().map(figures).collect()
}

/// A round that reserved, as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldFigures {
    /// The round; its saga is the booking.
    pub key: Key,
    /// `held`, `confirmed`, `released`, `expired`, `refused` or `tombstone`.
    pub state: String,
    /// The event.
    pub event: EventId,
    /// Who booked; none in a tombstone.
    pub customer: Option<CustomerId>,
    /// What it costs; none where nothing was ever held.
    pub total: Option<Money>,
    /// Number of tickets that it holds or held.
    pub quantity: u32,
    /// When its grace ends; none where nothing was ever held.
    pub grace_until: Option<Timestamp>,
    /// When its state last changed.
    pub changed_at: Timestamp,
}

/// A page of holds by saga, step and round, beginning behind `after`; the last page is shorter than `limit`.
///
/// # Errors
/// The database cannot be read.
pub async fn holds(pool: &PgPool, after: Option<&Key>, limit: u32) -> Result<Vec<HoldFigures>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT saga, step, round, state, event, customer, answer, grace_until, changed_at FROM holds
         WHERE (saga, step, round) > ($1, $2, $3) ORDER BY saga, step, round LIMIT $4",
    )
    .bind(after.map_or(Uuid::nil(), |key| key.saga.0))
    .bind(after.map_or("", |key| key.step.as_str()))
    .bind(after.map_or(0, |key| key.round.cast_signed()))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(hold).collect()
}

fn hold(row: &PgRow) -> Result<HoldFigures, sqlx::Error> {
    let grace_until = row.try_get::<Option<i64>, _>("grace_until")?.map(Timestamp);
    let reserved = match (grace_until, row.try_get::<Option<&str>, _>("answer")?) {
        (Some(_), Some(text)) => {
            Some(serde_json::from_str::<Reserved>(text).map_err(|error| sqlx::Error::Decode(error.into()))?)
        }
        _ => None,
    };
    let round = row.try_get::<i32, _>("round")?.cast_unsigned();
    Ok(HoldFigures {
        key: Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round },
        state: row.try_get("state")?,
        event: EventId(row.try_get("event")?),
        customer: row.try_get::<Option<Uuid>, _>("customer")?.map(CustomerId),
        total: reserved.as_ref().map(|reserved| reserved.total),
        quantity: reserved.map_or(0, |reserved| reserved.lines.iter().map(|line| line.quantity).sum()),
        grace_until,
        changed_at: Timestamp(row.try_get("changed_at")?),
    })
}

/// How many tickets a booking has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketCount {
    /// The booking, which is a saga.
    pub saga: SagaId,
    /// Its tickets, one or more.
    pub tickets: i64,
}

/// A page of the bookings that have tickets, by id, beginning behind `after`; the last page is shorter than `limit`.
///
/// # Errors
/// The database cannot be read.
pub async fn tickets(pool: &PgPool, after: Option<SagaId>, limit: u32) -> Result<Vec<TicketCount>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT booking, count(*) AS tickets FROM tickets WHERE booking > $1 GROUP BY booking ORDER BY booking LIMIT $2",
    )
    .bind(after.map_or(Uuid::nil(), |saga| saga.0))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let count =
        |row: &PgRow| Ok(TicketCount { saga: SagaId(row.try_get("booking")?), tickets: row.try_get("tickets")? });
    rows.iter().map(count).collect()
}
