//! The tables. All SQL of the service is in this folder, beside [`crate::audit`], which only reads.

mod announced;
mod batch;
mod rows;
mod seats;
mod writes;

use eventicket_contracts::bookings::{Availability, Ticket};
use eventicket_contracts::envelope::Key;
use eventicket_contracts::{BookingId, CustomerId, EventId, TicketTypeId, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

pub(crate) use announced::Announced;
pub(crate) use batch::Batch;

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

#[derive(Clone)]
pub(crate) struct Store(PgPool);

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// The tickets of a booking, of this customer where one is named.
    pub async fn tickets(&self, booking: BookingId, customer: Option<CustomerId>) -> Result<Vec<Ticket>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT code, event, ticket_type, name, seat, issued_at FROM tickets
             WHERE booking = $1 AND ($2::uuid IS NULL OR EXISTS (
                 SELECT 1 FROM holds WHERE saga = $1 AND state = 'confirmed' AND customer = $2))
             ORDER BY number",
        )
        .bind(booking.0)
        .bind(customer.map(|customer| customer.0))
        .fetch_all(&self.0)
        .await?;
        let ticket = |row: &PgRow| {
            Ok(Ticket {
                code: row.try_get("code")?,
                event_id: EventId(row.try_get("event")?),
                ticket_type_id: TicketTypeId(row.try_get("ticket_type")?),
                name: row.try_get("name")?,
                seat: row.try_get("seat")?,
                issued_at: Timestamp(row.try_get("issued_at")?),
            })
        };
        found.iter().map(ticket).collect()
    }

    /// What is left of an event that was offered, seat by seat.
    pub async fn availability(&self, event: EventId) -> Result<Option<Availability>, sqlx::Error> {
        let mut connection = self.0.acquire().await?;
        Ok(rows::free_seats(&mut connection, event.0).await?.pop())
    }

    /// The holds whose grace ends in this time, by its end.
    pub async fn due(&self, from: Timestamp, to: Timestamp, most: usize) -> Result<Vec<(Key, Timestamp)>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT saga, step, round, grace_until FROM holds
             WHERE grace_until > $1 AND grace_until <= $2 AND state = 'held' ORDER BY grace_until LIMIT $3",
        )
        .bind(from.millis())
        .bind(to.millis())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&self.0)
        .await?;
        found.iter().map(|row| Ok((rows::key(row)?, Timestamp(row.try_get("grace_until")?)))).collect()
    }

    /// Where a sweep begins that has seen nothing yet.
    pub async fn swept(&self) -> Result<Timestamp, sqlx::Error> {
        Ok(Timestamp(sqlx::query_scalar("SELECT max(until) FROM swept").fetch_one(&self.0).await?))
    }

    /// Nothing whose grace ends by then is held any more.
    pub async fn set_swept(&self, until: Timestamp) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE swept SET until = $1 WHERE until < $1").bind(until.millis());
        update.execute(&self.0).await.map(drop)
    }
}
