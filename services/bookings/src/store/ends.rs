//! When holds end that nobody else has ended, see the table `hold_ends`.

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{SagaId, Timestamp};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Store, rows};

/// Holds of one batch that end together.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub at: Place,
    pub sagas: Vec<SagaId>,
}

/// The row of an end, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    until: i64,
    id: i64,
}

impl Store {
    /// The ends behind a place that have come, earliest first.
    pub async fn ends(&self, after: Place, now: Timestamp, most: i64) -> Result<Vec<End>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT until, id, sagas FROM hold_ends WHERE (until, id) > ($1, $2) AND until <= $3
             ORDER BY until, id LIMIT $4",
        )
        .bind(after.until)
        .bind(after.id)
        .bind(now.millis())
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        let end = |row: &PgRow| {
            let sagas = row.try_get::<Vec<Uuid>, _>("sagas")?.into_iter().map(SagaId).collect();
            Ok(End { at: Place { until: row.try_get("until")?, id: row.try_get("id")? }, sagas })
        };
        found.iter().map(end).collect()
    }

    /// When the next end comes.
    pub async fn next_end(&self, now: Timestamp) -> Result<Option<Timestamp>, sqlx::Error> {
        let next = sqlx::query_scalar("SELECT until FROM hold_ends WHERE until > $1 ORDER BY until LIMIT 1");
        Ok(next.bind(now.millis()).fetch_optional(&self.pool).await?.map(Timestamp))
    }

    /// The holds of these sagas that are held, with their grace over.
    pub async fn overdue(&self, sagas: &[SagaId], now: Timestamp) -> Result<Vec<Key>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT saga, step, round FROM holds WHERE saga = ANY($1) AND state = 'held' AND grace_until <= $2",
        );
        let found = found.bind(rows::sagas(sagas)).bind(now.millis()).fetch_all(&self.pool).await?;
        found.iter().map(rows::key).collect()
    }

    /// Takes note that nothing of these is held any more.
    pub async fn forget_ends(&self, ends: &[End]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "DELETE FROM hold_ends e USING unnest($1::bigint[], $2::bigint[]) AS d (until, id)
             WHERE e.until = d.until AND e.id = d.id",
        )
        .bind(ends.iter().map(|end| end.at.until).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.at.id).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
