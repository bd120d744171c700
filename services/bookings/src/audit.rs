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
        // Codes that a hold has too few or too many of are those of its first line.
        "WITH lines AS (
             SELECT h.event, (l ->> 'ticket_type_id')::uuid AS id, h.state, (l ->> 'quantity')::bigint AS quantity,
                    CASE WHEN at = 1 THEN cardinality(h.codes) - h.tickets ELSE 0 END AS surplus, h.codes
             FROM holds h, jsonb_array_elements(h.answer::jsonb -> 'lines') WITH ORDINALITY AS l (l, at)
             WHERE h.state IN ('held', 'confirmed')),
         sums AS (
             SELECT event, id, sum(quantity) FILTER (WHERE state = 'held') AS held,
                    sum(quantity) FILTER (WHERE state = 'confirmed') AS confirmed,
                    sum(quantity + surplus) FILTER (WHERE codes IS NOT NULL) AS tickets
             FROM lines GROUP BY event, id)
         SELECT event, id, coalesce(t.quantity, 0) AS quantity, coalesce(t.available, 0) AS available,
                coalesce(s.held, 0)::bigint AS held, coalesce(s.confirmed, 0)::bigint AS confirmed,
                coalesce(s.tickets, 0)::bigint AS tickets
         FROM ticket_types t FULL JOIN sums s USING (event, id) ORDER BY event, id",
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

/// The seats of a numbered type by all who count them. All of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatFigures {
    /// The event.
    pub event: EventId,
    /// The ticket type; nil for seats that are taken and in no plan.
    pub ticket_type: TicketTypeId,
    /// How many exist; 0 for a type without seats.
    pub quantity: i64,
    /// Seats of its plan.
    pub planned: i64,
    /// Seats of its plan that somebody has.
    pub taken: i64,
    /// Seats that its holds name, held or confirmed.
    pub held: i64,
    /// Those of them that are taken by the very hold.
    pub matched: i64,
    /// Those of them whose hold is confirmed.
    pub confirmed: i64,
    /// Different seats of holds that have tickets.
    pub tickets: i64,
}

impl SeatFigures {
    /// Whether each seat that is taken has its one hold, and each hold its seats.
    pub fn is_sound(&self) -> bool {
        self.planned == self.quantity
            && self.taken == self.held
            && self.matched == self.held
            && self.tickets == self.confirmed
    }
}

/// The figures of all numbered types, by event and type. One statement, as for [`types`].
///
/// # Errors
/// The database cannot be read.
pub async fn seats(pool: &PgPool) -> Result<Vec<SeatFigures>, sqlx::Error> {
    let rows = sqlx::query(
        "WITH named AS (
             SELECT h.event, (l ->> 'ticket_type_id')::uuid AS id, s.seat, h.state, h.saga, h.step, h.round, h.codes
             FROM holds h, jsonb_array_elements(h.answer::jsonb -> 'lines') AS l,
                  jsonb_array_elements_text(l -> 'seats') AS s (seat)
             WHERE h.state IN ('held', 'confirmed')),
         live AS (
             SELECT n.event, n.id, count(*) AS held, count(t.seat) AS matched,
                    count(*) FILTER (WHERE n.state = 'confirmed') AS confirmed,
                    count(DISTINCT n.seat) FILTER (WHERE n.codes IS NOT NULL) AS tickets
             FROM named n LEFT JOIN taken_seats t ON t.event = n.event AND t.seat = n.seat
                  AND t.saga = n.saga AND t.step = n.step AND t.round = n.round
             GROUP BY n.event, n.id),
         plan AS (
             SELECT coalesce(s.event, t.event) AS event,
                    coalesce(s.ticket_type, '00000000-0000-0000-0000-000000000000') AS id,
                    count(s.label) AS planned, count(t.seat) AS taken
             FROM seats s FULL JOIN taken_seats t ON t.event = s.event AND t.seat = s.label GROUP BY 1, 2),
         numbered AS (SELECT event, id, quantity FROM ticket_types WHERE numbered)
         SELECT event, id, coalesce(quantity, 0) AS quantity, coalesce(planned, 0) AS planned,
                coalesce(taken, 0) AS taken, coalesce(held, 0) AS held, coalesce(matched, 0) AS matched,
                coalesce(confirmed, 0) AS confirmed, coalesce(tickets, 0) AS tickets
         FROM numbered FULL JOIN plan USING (event, id) FULL JOIN live USING (event, id)
         ORDER BY event, id",
    )
    .fetch_all(pool)
    .await?;
    let figures = |row: &PgRow| {
        Ok(SeatFigures {
            event: EventId(row.try_get("event")?),
            ticket_type: TicketTypeId(row.try_get("id")?),
            quantity: row.try_get("quantity")?,
            planned: row.try_get("planned")?,
            taken: row.try_get("taken")?,
            held: row.try_get("held")?,
            matched: row.try_get("matched")?,
            confirmed: row.try_get("confirmed")?,
            tickets: row.try_get("tickets")?,
        })
    };
    rows.iter().map(figures).collect()
}

/// A customer with more tickets than the event allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// The event.
    pub event: EventId,
    /// The customer.
    pub customer: CustomerId,
    /// Tickets of holds that are held or confirmed.
    pub tickets: i64,
    /// The highest limit that was in force when one of these holds was made.
    pub limit: i64,
}

/// Who got more than the limit, by event and customer: nobody ever. A limit that is introduced or lowered later takes
/// nothing away, so each hold keeps the one it was made under; the last of a customer's live holds was made with all the
/// others there, under one that is not above the highest.
///
/// # Errors
/// The database cannot be read.
pub async fn over_limit(pool: &PgPool) -> Result<Vec<OverLimit>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT event, customer, sum(tickets)::bigint AS tickets, max(max_per_customer) AS most
         FROM holds WHERE state IN ('held', 'confirmed') GROUP BY event, customer
         HAVING count(*) = count(max_per_customer) AND sum(tickets) > max(max_per_customer) ORDER BY event, customer",
    )
    .fetch_all(pool)
    .await?;
    let over = |row: &PgRow| {
        Ok(OverLimit {
            event: EventId(row.try_get("event")?),
            customer: CustomerId(row.try_get("customer")?),
            tickets: row.try_get("tickets")?,
            limit: row.try_get("most")?,
        })
    };
    rows.iter().map(over).collect()
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
        "SELECT saga, sum(cardinality(codes)) AS tickets FROM holds WHERE saga > $1 AND codes IS NOT NULL
         GROUP BY saga ORDER BY saga LIMIT $2",
    )
    .bind(after.map_or(Uuid::nil(), |saga| saga.0))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let count = |row: &PgRow| Ok(TicketCount { saga: SagaId(row.try_get("saga")?), tickets: row.try_get("tickets")? });
    rows.iter().map(count).collect()
}
