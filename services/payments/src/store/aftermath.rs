//! What follows from refunds and webhooks: `saga_starts`, `refund_watches`, `webhooks`.

use std::collections::HashSet;
use std::time::Duration;

use eventicket_contracts::Json;
use eventicket_contracts::envelope::Key;
use eventicket_contracts::{CustomerId, SagaId, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::row::{Columns, key};
use super::{Batch, Store};

/// Rows that are deleted at once.
const SWEEP: i64 = 1_000;

/// A saga to open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SagaStart {
    pub id: SagaId,
    pub customer: CustomerId,
    pub input: Json,
    /// W3C `traceparent` of the charge, where its trace is recorded.
    pub trace: Option<String>,
}

/// What a look at a refund came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Looked {
    /// It stands; the next look is due then.
    Again(Timestamp),
    /// No further look is needed.
    Ended,
}

impl Store {
    /// Which of these webhooks had an effect already.
    pub async fn known_webhooks(&self, ids: &[String]) -> Result<HashSet<String>, sqlx::Error> {
        let known = sqlx::query_scalar("SELECT id FROM webhooks WHERE id = ANY($1)").bind(ids);
        Ok(known.fetch_all(&self.pool).await?.into_iter().collect())
    }

    /// Sagas that are not opened yet, at most `most`.
    pub async fn starts_due(&self, most: usize) -> Result<Vec<SagaStart>, sqlx::Error> {
        let rows =
            sqlx::query("SELECT id, customer, input, trace FROM saga_starts WHERE NOT done ORDER BY id LIMIT $1")
                .bind(i64::try_from(most).unwrap_or(i64::MAX))
                .fetch_all(&self.pool)
                .await?;
        let start = |row: &PgRow| {
            let input = serde_json::from_str(row.try_get("input")?);
            let input = input.map_err(|error| sqlx::Error::Decode(error.into()))?;
            let (id, customer) = (SagaId(row.try_get("id")?), CustomerId(row.try_get("customer")?));
            Ok(SagaStart { id, customer, input, trace: row.try_get("trace")? })
        };
        rows.iter().map(start).collect()
    }

    /// The saga is committed at the orchestrator.
    pub async fn started(&self, id: SagaId) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE saga_starts SET done = true WHERE id = $1").bind(id.0).execute(&self.pool).await?;
        Ok(())
    }

    /// Refunds to look at now, with the number of looks before, at most `most`; nobody else looks at them until `lease`.
    pub async fn take_watches(
        &self,
        now: Timestamp,
        lease: Timestamp,
        most: i64,
    ) -> Result<Vec<(Key, u32)>, sqlx::Error> {
        let rows = sqlx::query(
            "WITH taken AS (SELECT saga, step, round FROM refund_watches WHERE due_at <= $1
                            ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
             UPDATE refund_watches w SET due_at = $2 FROM taken t
             WHERE (w.saga, w.step, w.round) = (t.saga, t.step, t.round)
             RETURNING w.saga, w.step, w.round, w.looks",
        )
        .bind(now.millis())
        .bind(lease.millis())
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((key(row)?, row.try_get::<i32, _>("looks")?.cast_unsigned()))).collect()
    }

    /// Notes what a look came to.
    pub async fn looked(&self, key: &Key, looked: Looked) -> Result<(), sqlx::Error> {
        let query = match looked {
            Looked::Again(at) => sqlx::query(
                "UPDATE refund_watches SET looks = looks + 1, due_at = $4 WHERE (saga, step, round) = ($1, $2, $3)",
            )
            .bind(key.saga.0)
            .bind(&key.step)
            .bind(key.round.cast_signed())
            .bind(at.millis()),
            Looked::Ended => sqlx::query("DELETE FROM refund_watches WHERE (saga, step, round) = ($1, $2, $3)")
                .bind(key.saga.0)
                .bind(&key.step)
                .bind(key.round.cast_signed()),
        };
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Deletes some of what is older than `keep`.
    pub async fn sweep(&self, now: Timestamp, keep: Duration) -> Result<(), sqlx::Error> {
        let before = now.millis().saturating_sub_unsigned(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        let webhooks = "DELETE FROM webhooks WHERE id IN (SELECT id FROM webhooks WHERE seen_at < $1
                                                          ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let starts = "DELETE FROM saga_starts WHERE id IN (SELECT id FROM saga_starts WHERE done AND created_at < $1
                                                           ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)";
        for statement in [webhooks, starts] {
            sqlx::query(statement).bind(before).bind(SWEEP).execute(&self.pool).await?;
        }
        Ok(())
    }
}

impl Batch {
    /// Sagas to open.
    pub async fn start_sagas(&mut self, starts: &[SagaStart], now: Timestamp) -> Result<(), sqlx::Error> {
        if starts.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO saga_starts (id, customer, input, trace, created_at)
             SELECT n.*, $5 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS n ON CONFLICT DO NOTHING",
        )
        .bind(starts.iter().map(|start| start.id.0).collect::<Vec<_>>())
        .bind(starts.iter().map(|start| start.customer.0).collect::<Vec<_>>())
        .bind(starts.iter().map(|start| start.input.text()).collect::<Vec<_>>())
        .bind(starts.iter().map(|start| start.trace.as_deref()).collect::<Vec<_>>())
        .bind(now.millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Refunds to look at again, first at `due`.
    pub async fn watch<'a>(&mut self, keys: impl Iterator<Item = &'a Key>, due: Timestamp) -> Result<(), sqlx::Error> {
        let columns = Columns::of(keys);
        if columns.sagas.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO refund_watches (saga, step, round, due_at)
             SELECT n.*, $4 FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS n ON CONFLICT DO NOTHING",
        )
        .bind(columns.sagas)
        .bind(columns.steps)
        .bind(columns.rounds)
        .bind(due.millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Webhooks whose effect is in this transaction.
    pub async fn seen_webhooks(&mut self, ids: Vec<String>, now: Timestamp) -> Result<(), sqlx::Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let seen =
            "INSERT INTO webhooks (id, seen_at) SELECT id, $2 FROM unnest($1::text[]) AS n (id) ON CONFLICT DO NOTHING";
        sqlx::query(seen).bind(ids).bind(now.millis()).execute(&mut *self.tx).await?;
        Ok(())
    }
}
