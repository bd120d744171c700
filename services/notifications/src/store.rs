//! The table `deliveries`: the only file with SQL.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::notifications::Delivery;
use eventicket_contracts::{BookingId, CustomerId, Json, SagaId, Timestamp};
use eventicket_kit::batch::{self, Batches, LOCKED, Read};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, Row};
use uuid::Uuid;

use crate::audit::Recorded;

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The answers that are recorded of sagas.
const ANSWERS: Read =
    Read { name: "answers", sql: "SELECT saga, step, round, answer FROM deliveries WHERE saga = ANY($1)" };

const INSERT: &str = "
    INSERT INTO deliveries (saga, step, round, template, customer, data, answer, trace, created_at, due_at, state)
    SELECT n.*, n.created_at, CASE WHEN n.answer IS NULL THEN 'due' ELSE 'refused' END
    FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
                $9::bigint[])
         AS n (saga, step, round, template, customer, data, answer, trace, created_at)";
static INSERT_AT_ONCE: LazyLock<String> = LazyLock::new(|| {
    let (locked, made) = (batch::locked("$10"), batch::all_or_none(&["made"], "$11"));
    format!("WITH {locked}, made AS ({INSERT} WHERE {LOCKED} ON CONFLICT DO NOTHING RETURNING 1) {made}")
});

#[derive(Clone)]
pub(crate) struct Store {
    pool: PgPool,
    batches: Batches,
}

/// A delivery to be recorded.
#[derive(Debug)]
pub(crate) struct NewDelivery {
    pub key: Key,
    pub template: String,
    pub customer: CustomerId,
    /// JSON, as the template wants it.
    pub data: String,
    /// Its rejection; it then never leaves.
    pub refused: Option<Answer>,
    /// W3C `traceparent` of its command, where its trace is recorded.
    pub trace: Option<String>,
    pub at: Timestamp,
}

/// A delivery that a mailer holds until its lease ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub key: Key,
    pub template: String,
    pub customer: CustomerId,
    /// JSON, as the template wants it.
    pub data: String,
    /// W3C `traceparent` of its command, where its trace is recorded.
    pub trace: Option<String>,
    /// This try's number, from 1.
    pub tries: u32,
    pub created_at: Timestamp,
}

/// What became of a try.
pub(crate) enum Outcome {
    Sent,
    /// Try again at this time.
    Later(Timestamp, String),
    GivenUp(String),
    /// It was not tried.
    GivenBack,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self { batches: Batches::new(pool.clone(), &[ANSWERS]), pool }
    }

    /// Opens a batch: the locks of its sagas, and the answers that are recorded of them.
    pub async fn begin(&self, sagas: &[SagaId]) -> Result<(Batch, HashMap<Key, Answer>), sqlx::Error> {
        let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
        let (tx, found) = self.batches.begin(sagas, &[(ANSWERS, &ids)]).await?;
        let recorded = found.iter().flatten().map(recorded).collect::<Result<_, _>>()?;
        Ok((Batch(tx), recorded))
    }

    /// Records new deliveries, all or none: false where one of their rounds is recorded already.
    pub async fn insert(&self, new: &[NewDelivery]) -> Result<bool, sqlx::Error> {
        let query = bind(sqlx::query(INSERT_AT_ONCE.as_str()), new)
            .bind(batch::locks(new.iter().map(|delivery| delivery.key.saga)))
            .bind(i64::try_from(new.len()).unwrap_or(i64::MAX));
        self.batches.at_once(query).await
    }

    /// Takes up to `most` deliveries whose time has come; nobody else gets them before the lease ends.
    pub async fn claim(&self, most: usize, now: Timestamp, lease: Duration) -> Result<Vec<Claim>, sqlx::Error> {
        let rows = sqlx::query(
            "WITH picked AS (
                 SELECT saga, step, round FROM deliveries WHERE state = 'due' AND due_at <= $1
                 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
             UPDATE deliveries d SET tries = d.tries + 1, due_at = $3
             FROM picked p WHERE (d.saga, d.step, d.round) = (p.saga, p.step, p.round)
             RETURNING d.saga, d.step, d.round, d.template, d.customer, d.data, d.trace, d.tries, d.created_at",
        )
        .bind(now.millis())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .bind(now.plus(lease).millis())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(claim).collect()
    }

    /// Writes what became of claims. What was sent stays sent whoever says so; else only the newest claim counts.
    pub async fn settle(&self, tries: &[(Claim, Outcome)], now: Timestamp) -> Result<(), sqlx::Error> {
        let verdict = |outcome: &Outcome| match outcome {
            Outcome::Sent => ("sent", None, None),
            Outcome::Later(at, reason) => ("due", Some(at.millis()), Some(reason.clone())),
            Outcome::GivenUp(reason) => ("failed", None, Some(reason.clone())),
            Outcome::GivenBack => ("due", Some(now.millis()), None),
        };
        let verdicts: Vec<_> = tries.iter().map(|(_, outcome)| verdict(outcome)).collect();
        sqlx::query(
            "WITH u AS MATERIALIZED (
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::text[], $6::bigint[],
                                      $7::text[]) AS u (saga, step, round, tries, state, due_at, error)),
             locked AS MATERIALIZED (
                 SELECT saga, step, round FROM deliveries WHERE (saga, step, round) IN (SELECT saga, step, round FROM u)
                 ORDER BY saga, step, round FOR UPDATE)
             UPDATE deliveries d
             SET state = u.state, due_at = coalesce(u.due_at, d.due_at), last_error = coalesce(u.error, d.last_error),
                 ended_at = CASE WHEN u.state <> 'due' THEN $8::bigint END
             FROM locked l JOIN u USING (saga, step, round)
             WHERE (d.saga, d.step, d.round) = (l.saga, l.step, l.round)
               AND d.state = 'due' AND (d.tries = u.tries OR u.state = 'sent')",
        )
        .bind(tries.iter().map(|(claim, _)| claim.key.saga.0).collect::<Vec<_>>())
        .bind(tries.iter().map(|(claim, _)| claim.key.step.as_str()).collect::<Vec<_>>())
        .bind(tries.iter().map(|(claim, _)| signed(claim.key.round)).collect::<Vec<_>>())
        .bind(tries.iter().map(|(claim, _)| signed(claim.tries)).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| v.0).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| v.1).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| v.2.clone()).collect::<Vec<_>>())
        .bind(now.millis())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// When the next delivery is due, or the next lease ends.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, sqlx::Error> {
        let due: Option<i64> =
            sqlx::query_scalar("SELECT min(due_at) FROM deliveries WHERE state = 'due'").fetch_one(&self.pool).await?;
        Ok(due.map(Timestamp))
    }

    /// How many deliveries have not left, and when the oldest of them was asked for.
    pub async fn backlog(&self) -> Result<(i64, Option<Timestamp>), sqlx::Error> {
        let row = sqlx::query("SELECT count(*), min(created_at) FROM deliveries WHERE state = 'due'")
            .fetch_one(&self.pool)
            .await?;
        Ok((row.try_get(0)?, row.try_get::<Option<i64>, _>(1)?.map(Timestamp)))
    }

    /// All deliveries about a booking, oldest first.
    pub async fn deliveries(&self, booking: BookingId) -> Result<Vec<Delivery>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT step, round, template, state, tries, last_error, created_at, ended_at
             FROM deliveries WHERE saga = $1 ORDER BY created_at, step, round",
        )
        .bind(booking.0)
        .fetch_all(&self.pool)
        .await?;
        let delivery = |row: &PgRow| {
            Ok(Delivery {
                step: row.try_get("step")?,
                round: row.try_get::<i32, _>("round")?.cast_unsigned(),
                template: row.try_get("template")?,
                state: row.try_get("state")?,
                tries: row.try_get::<i32, _>("tries")?.cast_unsigned(),
                last_error: row.try_get("last_error")?,
                created_at: Timestamp(row.try_get("created_at")?),
                ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(Timestamp),
            })
        };
        rows.iter().map(delivery).collect()
    }
}

/// A batch of commands in one transaction, which holds the locks of its sagas.
pub(crate) struct Batch(batch::Batch);

impl Batch {
    pub async fn insert(&mut self, new: &[NewDelivery]) -> Result<(), sqlx::Error> {
        if !new.is_empty() {
            bind(sqlx::query(INSERT), new).execute(&mut *self.0).await?;
        }
        Ok(())
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

fn bind<'a>(query: Query<'a, Postgres, PgArguments>, new: &'a [NewDelivery]) -> Query<'a, Postgres, PgArguments> {
    let answer = |d: &NewDelivery| d.refused.as_ref().and_then(|answer| serde_json::to_string(answer).ok());
    query
        .bind(new.iter().map(|d| d.key.saga.0).collect::<Vec<_>>())
        .bind(new.iter().map(|d| d.key.step.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|d| signed(d.key.round)).collect::<Vec<_>>())
        .bind(new.iter().map(|d| d.template.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|d| d.customer.0).collect::<Vec<Uuid>>())
        .bind(new.iter().map(|d| d.data.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(answer).collect::<Vec<_>>())
        .bind(new.iter().map(|d| d.trace.as_deref()).collect::<Vec<_>>())
        .bind(new.iter().map(|d| d.at.millis()).collect::<Vec<_>>())
}

/// The deliveries of these sagas, for [`crate::audit`].
pub(crate) async fn of_sagas(pool: &PgPool, sagas: &[SagaId]) -> Result<Vec<Recorded>, sqlx::Error> {
    let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
    let rows = sqlx::query("SELECT saga, step, round, state FROM deliveries WHERE saga = ANY($1)")
        .bind(ids)
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| Ok(Recorded { key: key(row)?, state: row.try_get("state")? })).collect()
}

fn recorded(row: &PgRow) -> Result<(Key, Answer), sqlx::Error> {
    let answer = match row.try_get::<Option<&str>, _>("answer")? {
        None => Answer::Done(Json::NULL),
        Some(text) => serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))?,
    };
    Ok((key(row)?, answer))
}

fn claim(row: &PgRow) -> Result<Claim, sqlx::Error> {
    Ok(Claim {
        key: key(row)?,
        template: row.try_get("template")?,
        customer: CustomerId(row.try_get("customer")?),
        data: row.try_get("data")?,
        trace: row.try_get("trace")?,
        tries: row.try_get::<i32, _>("tries")?.cast_unsigned(),
        created_at: Timestamp(row.try_get("created_at")?),
    })
}

fn key(row: &PgRow) -> Result<Key, sqlx::Error> {
    let round = row.try_get::<i32, _>("round")?.cast_unsigned();
    Ok(Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round })
}

/// PostgreSQL has no unsigned integers; the cast back is exact.
fn signed(number: u32) -> i32 {
    number.cast_signed()
}
