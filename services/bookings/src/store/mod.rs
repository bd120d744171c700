//! The tables. All SQL of the service is in this folder, beside [`crate::audit`], which only reads.

mod announced;
mod batch;
mod ends;
mod rows;
mod seats;
mod writes;

use eventicket_contracts::bookings::{Availability, Reserved, Ticket};
use eventicket_contracts::{BookingId, CustomerId, EventId, Timestamp};
use eventicket_kit::batch::Batches;
use sqlx::{PgPool, Row};

pub(crate) use announced::Announced;
pub(crate) use batch::Batch;
pub(crate) use ends::{End, Place};

use crate::tickets::tickets;

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

#[derive(Clone)]
pub(crate) struct Store {
    pool: PgPool,
    batches: Batches,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self { batches: Batches::new(pool.clone(), batch::READS), pool }
    }

    /// The tickets of a booking, of this customer where one is named.
    pub async fn tickets(&self, booking: BookingId, customer: Option<CustomerId>) -> Result<Vec<Ticket>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT event, answer, codes, changed_at FROM holds
             WHERE saga = $1 AND state = 'confirmed' AND ($2::uuid IS NULL OR customer = $2) ORDER BY step, round",
        )
        .bind(booking.0)
        .bind(customer.map(|customer| customer.0))
        .fetch_all(&self.pool)
        .await?;
        let mut all = Vec::new();
        for row in &found {
            let reserved: Reserved = rows::json(row.try_get("answer")?)?;
            // A confirmed hold changes no more.
            let (event, issued_at) = (EventId(row.try_get("event")?), Timestamp(row.try_get("changed_at")?));
            all.extend(tickets(event, &reserved.lines, row.try_get("codes")?, issued_at));
        }
        Ok(all)
    }

    /// What is left of an event that was offered, seat by seat.
    pub async fn availability(&self, event: EventId) -> Result<Option<Availability>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        Ok(rows::free_seats(&mut connection, event.0).await?.pop())
    }
}
