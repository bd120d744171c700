//! The service's tables: all its SQL. Here the replicas and what queries and the audit read; [`way`] writes what every charge
//! has, [`batch`] whatever there is, [`row`] reads charges, [`aftermath`] is what follows from refunds and webhooks.

mod aftermath;
mod batch;
mod row;
mod way;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::payments::Payment;
use eventicket_contracts::{BookingId, Money, SagaId, Timestamp};
use eventicket_kit::batch::{Batches, lock_sagas};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

pub(crate) use aftermath::{Looked, SagaStart};
pub(crate) use batch::{Batch, recorded};
pub(crate) use row::RowsFound;

use crate::charge::{Charge, Outcome, State, Terms};
use row::{Columns, found, key, signed};

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Rows of a dead replica that are taken over at once: each holds an advisory lock meanwhile.
const TAKEN_AT_ONCE: i64 = 1_000;

/// The service's database, as one replica uses it.
#[derive(Clone)]
pub(crate) struct Store {
    pool: PgPool,
    commands: Batches,
    records: Batches,
    /// This replica; new at each start.
    me: Uuid,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        // A session each, which the other one never takes.
        let [commands, records] = [(); 2].map(|()| Batches::new(pool.clone(), batch::READS));
        Self { pool, commands, records, me: Uuid::now_v7() }
    }

    /// Opens a batch of commands with the locks of its sagas, and reads its rows under them. `None` where this replica was
    /// taken for dead, so that nobody would look for its rows after a crash.
    pub async fn begin(&self, keys: &[Key]) -> Result<Option<(Batch, RowsFound)>, sqlx::Error> {
        Batch::with_rows(&self.commands, keys, self.me).await
    }

    /// Opens a batch of what was seen at the gateway, with the locks of its sagas; `None` as above.
    pub async fn begin_record(&self, keys: impl Iterator<Item = &Key>) -> Result<Option<Batch>, sqlx::Error> {
        Batch::without_rows(&self.records, keys, self.me).await
    }

    /// Says that this replica lives.
    pub async fn beat(&self) -> Result<(), sqlx::Error> {
        let beat =
            "INSERT INTO replicas (id, seen_at) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET seen_at = now()";
        sqlx::query(beat).bind(self.me).execute(&self.pool).await?;
        Ok(())
    }

    /// Says that this replica has ended, so that its rows are taken over at once.
    pub async fn leave(&self) -> Result<(), sqlx::Error> {
        let left = "UPDATE replicas SET seen_at = '-infinity' WHERE id = $1";
        sqlx::query(left).bind(self.me).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes over rows of a replica whose beat has lapsed; `None` where there is no such replica.
    pub async fn take_over(&self, lapse_seconds: f64) -> Result<Option<Vec<Charge>>, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let dead: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM replicas WHERE seen_at < now() - make_interval(secs => $1) AND id <> $2
             ORDER BY seen_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        )
        .bind(lapse_seconds)
        .bind(self.me)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(dead) = dead else { return Ok(None) };
        let rows = sqlx::query("SELECT saga, step, round FROM charges WHERE owner = $1 AND state = ANY($2) LIMIT $3")
            .bind(dead)
            .bind(due())
            .bind(TAKEN_AT_ONCE)
            .fetch_all(&mut *tx)
            .await?;
        let keys = rows.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            sqlx::query("DELETE FROM replicas WHERE id = $1").bind(dead).execute(&mut *tx).await?;
            tx.commit().await?;
            return Ok(Some(Vec::new()));
        }
        lock_sagas(&mut tx, &keys.iter().map(|key| key.saga).collect::<Vec<_>>()).await?;
        let columns = Columns::of(&keys);
        let taken = sqlx::query(
            "UPDATE charges c SET owner = $4, version = version + 1
             FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS k (saga, step, round)
             WHERE (c.saga, c.step, c.round) = (k.saga, k.step, k.round) AND owner = $5 AND state = ANY($6)
             RETURNING c.*",
        )
        .bind(columns.sagas)
        .bind(columns.steps)
        .bind(columns.rounds)
        .bind(self.me)
        .bind(dead)
        .bind(due())
        .fetch_all(&mut *tx)
        .await?;
        let taken = taken.iter().map(|row| Ok(found(row)?.charge)).collect::<Result<Vec<_>, sqlx::Error>>()?;
        tx.commit().await?;
        Ok(Some(taken))
    }

    /// All rows of this replica with work to do.
    pub async fn own(&self) -> Result<Vec<Charge>, sqlx::Error> {
        let own = "SELECT * FROM charges WHERE owner = $1 AND state = ANY($2)";
        let rows = sqlx::query(own).bind(self.me).bind(due()).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(found(row)?.charge)).collect()
    }

    /// The rows of these rounds as they are now, with whether this replica drives them.
    pub async fn rows(&self, keys: &[Key]) -> Result<RowsFound, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        row::read(&mut connection, keys, self.me).await
    }

    /// The charges of a booking, in the order of their rounds.
    pub async fn payments(&self, booking: BookingId) -> Result<Vec<Payment>, sqlx::Error> {
        let rows = sqlx::query("SELECT * FROM charges WHERE saga = $1 ORDER BY step, round")
            .bind(booking.0)
            .fetch_all(&self.pool)
            .await?;
        let payment = |row: &PgRow| {
            let Charge { key, state, terms, intent, .. } = found(row)?.charge;
            let payment = |terms: Terms| Payment {
                round: key.round,
                state: state.name().to_owned(),
                amount: terms.amount,
                intent,
            };
            Ok(terms.map(payment))
        };
        rows.iter().filter_map(|row| payment(row).transpose()).collect()
    }
}

/// The states in which there is work to do.
fn due() -> Vec<&'static str> {
    State::ALL.into_iter().filter(|state| state.is_due()).map(State::name).collect()
}

/// A round as the audit reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChargeRow {
    /// Saga, step and round.
    pub key: Key,
    /// Where it stands.
    pub state: State,
    /// How the charge was answered, `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// What was to be charged; `None` in a tombstone.
    pub amount: Option<Money>,
    /// The gateway's intent, once its id was committed.
    pub intent: Option<String>,
    /// What was given back, in minor units.
    pub refunded: Option<i64>,
    /// The saga that stands for a refund which failed, or which was refused where no undo is told of it.
    pub failed_refund: Option<SagaId>,
    /// When the row was made.
    pub created_at: Timestamp,
}

/// A page of all rounds in the order of their keys, beginning after `after`; an empty page is the end.
pub async fn charges(pool: &PgPool, after: Option<&Key>, most: i64) -> Result<Vec<ChargeRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM charges WHERE $1::uuid IS NULL OR (saga, step, round) > ($1, $2, $3)
         ORDER BY saga, step, round LIMIT $4",
    )
    .bind(after.map(|key| key.saga.0))
    .bind(after.map(|key| key.step.as_str()))
    .bind(after.map(|key| signed(key.round)))
    .bind(most)
    .fetch_all(pool)
    .await?;
    let charge_row = |row: &PgRow| {
        let Charge { key, state, outcome, terms, intent, refunded, failed_refund, .. } = found(row)?.charge;
        let (amount, created_at) = (terms.map(|terms| terms.amount), Timestamp(row.try_get("created_at")?));
        Ok(ChargeRow { key, state, outcome, amount, intent, refunded, failed_refund, created_at })
    };
    rows.iter().map(charge_row).collect()
}
