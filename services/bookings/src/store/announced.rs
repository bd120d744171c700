//! What `availability.changed` last told.

use std::collections::HashMap;

use eventicket_contracts::bookings::Availability;
use eventicket_contracts::{EventId, Timestamp};
use eventicket_nats::outbox::{self, NewEvent};
use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row, Transaction};
use uuid::Uuid;

use super::{Store, rows};

impl Store {
    /// Events that are not over and whose availability is not the one that was announced.
    pub async fn unannounced(&self, now: Timestamp) -> Result<Vec<EventId>, sqlx::Error> {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "SELECT s.event FROM summaries s LEFT JOIN announced a ON a.event = s.event
             WHERE s.ends_at > $1 AND a.summary IS DISTINCT FROM s.summary",
        )
        .bind(now.millis())
        .fetch_all(&self.pool)
        .await?;
        Ok(ids.into_iter().map(EventId).collect())
    }

    /// A transaction that holds the announcement rows of these events.
    pub async fn begin_announcing(&self, events: &[EventId]) -> Result<(Announcing, Vec<Announced>), sqlx::Error> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.0).collect();
        let mut tx = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO announced (event, version, at, summary)
             SELECT id, 0, 0, '' FROM unnest($1::uuid[]) AS id ORDER BY id ON CONFLICT DO NOTHING",
        )
        .bind(&ids)
        .execute(&mut *tx)
        .await?;
        let found = sqlx::query(
            "SELECT event, version, at, summary FROM announced WHERE event = ANY($1) ORDER BY event FOR UPDATE",
        )
        .bind(&ids)
        .fetch_all(&mut *tx)
        .await?;
        let announced = |row: &PgRow| {
            Ok(Announced {
                event: EventId(row.try_get("event")?),
                version: row.try_get("version")?,
                at: Timestamp(row.try_get("at")?),
                summary: row.try_get("summary")?,
            })
        };
        let found = found.iter().map(announced).collect::<Result<_, sqlx::Error>>()?;
        Ok((Announcing(tx), found))
    }
}

/// What was last announced of an event.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub event: EventId,
    pub version: i64,
    pub at: Timestamp,
    pub summary: String,
}

pub(crate) struct Announcing(Transaction<'static, Postgres>);

impl Announcing {
    /// What is true now, with its summary: read after the locks, so that a later announcement never tells of earlier.
    pub async fn current(&mut self, events: &[Uuid]) -> Result<HashMap<EventId, (String, Availability)>, sqlx::Error> {
        // The summary first: should a batch commit between the two, it differs from the next look's, which tells again.
        let found = sqlx::query("SELECT event, summary FROM summaries WHERE event = ANY($1)").bind(events);
        let mut summaries = HashMap::new();
        for row in found.fetch_all(&mut *self.0).await? {
            summaries.insert(EventId(row.try_get("event")?), row.try_get::<String, _>("summary")?);
        }
        let all = rows::availability(&mut self.0, events).await?;
        let paired = |a: Availability| summaries.remove(&a.event_id).map(|summary| (a.event_id, (summary, a)));
        Ok(all.into_iter().filter_map(paired).collect())
    }

    pub async fn finish(
        mut self,
        told: &[Announced],
        events: Vec<NewEvent>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE announced a SET version = u.version, at = u.at, summary = u.summary
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[]) AS u (event, version, at, summary)
             WHERE a.event = u.event",
        )
        .bind(told.iter().map(|a| a.event.0).collect::<Vec<_>>())
        .bind(told.iter().map(|a| a.version).collect::<Vec<_>>())
        .bind(told.iter().map(|a| a.at.millis()).collect::<Vec<_>>())
        .bind(told.iter().map(|a| a.summary.as_str()).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        outbox::write(&mut self.0, events, now).await?;
        self.0.commit().await
    }
}
