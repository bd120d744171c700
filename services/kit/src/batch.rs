//! The transaction of a batch: its session, the locks of its sagas, and what it reads under them; or one statement that is its
//! own transaction, and does all or nothing.

use std::fmt::{Display, Write as _};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use eventicket_contracts::SagaId;
use futures::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Either, PgConnection, PgPool, Postgres};
use uuid::Uuid;

const LOCK_SAGAS: &str = "SELECT FROM unnest($1::bigint[]) AS k HAVING count(pg_advisory_xact_lock(k)) < 0";

/// A statement over ids, `$1::uuid[]`, that a session prepares under a name.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Unique within its service.
    pub name: &'static str,
    /// The statement.
    pub sql: &'static str,
}

/// Where a service begins its batches. Sessions are kept from batch to batch: the pool tests a session whenever it is taken
/// and whenever it is given back, which are two round trips more for each batch.
#[derive(Clone)]
pub struct Batches {
    pool: PgPool,
    reads: &'static [Read],
    kept: Kept,
}

type Kept = Arc<Mutex<Vec<PoolConnection<Postgres>>>>;

/// Most sessions that are kept: a worker's, and one of what runs beside it.
const KEPT: usize = 2;

impl Batches {
    /// Batches in the pool's database, which read with these statements.
    pub fn new(pool: PgPool, reads: &'static [Read]) -> Self {
        Self { pool, reads, kept: Arc::default() }
    }

    /// Begins a transaction, takes the locks of these sagas, as [`lock_sagas`] does, and only then reads. All of it is one
    /// round trip, and still each read sees what was committed before it began. Gives the rows of each read.
    ///
    /// # Errors
    /// The database's; nothing is locked then.
    pub async fn begin(
        &self,
        sagas: &[SagaId],
        reads: &[(Read, &[Uuid])],
    ) -> Result<(Batch, Vec<Vec<PgRow>>), sqlx::Error> {
        let mut batch = Batch { session: self.session().await?, kept: self.kept.clone() };
        let begin = format!("BEGIN; EXECUTE lock_sagas ('{}');", array(locks(sagas.iter().copied())));
        // The first two bring no rows.
        let rows = batch.run(begin, reads).await?.split_off(2);
        Ok((batch, rows))
    }

    /// Runs one statement, which is its own transaction and ends with [`all_or_none`]. Whether it did what it says; it did
    /// nothing otherwise, and PostgreSQL's log then has a division by zero.
    ///
    /// # Errors
    /// The database's; whether anything was done is not known then.
    pub async fn at_once(&self, query: Query<'_, Postgres, PgArguments>) -> Result<bool, sqlx::Error> {
        let mut session = self.session().await?;
        let done = did_all(query.execute(&mut *session).await)?;
        keep(&self.kept, session);
        Ok(done)
    }

    /// One that is kept, or a new one.
    async fn session(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(session) => Ok(session),
            None => self.open().await,
        }
    }

    /// A session with its prepared statements. It never goes back to the pool, which knows nothing of them.
    async fn open(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let mut session = self.pool.acquire().await?;
        session.close_on_drop();
        let mut prepare = format!("PREPARE lock_sagas (bigint[]) AS {LOCK_SAGAS};");
        for Read { name, sql } in self.reads {
            let _ = write!(prepare, "PREPARE {name} (uuid[]) AS {sql};");
        }
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *session).await?;
        Ok(session)
    }
}

/// A batch's transaction. Where it is dropped before its commit, its session ends, and all is rolled back.
pub struct Batch {
    session: PoolConnection<Postgres>,
    kept: Kept,
}

impl Batch {
    /// Reads in one round trip; each read sees what was committed before it began. Gives the rows of each.
    ///
    /// # Errors
    /// The database's.
    pub async fn read(&mut self, reads: &[(Read, &[Uuid])]) -> Result<Vec<Vec<PgRow>>, sqlx::Error> {
        self.run(String::new(), reads).await
    }

    /// Runs statements of this module, then reads. Numbers and ids are all that is written into the text.
    async fn run(&mut self, mut text: String, reads: &[(Read, &[Uuid])]) -> Result<Vec<Vec<PgRow>>, sqlx::Error> {
        for (Read { name, .. }, ids) in reads {
            let _ = write!(text, "EXECUTE {name} ('{}');", array(*ids));
        }
        let mut sets = Vec::with_capacity(reads.len());
        let mut rows = Vec::new();
        let mut found = sqlx::raw_sql(AssertSqlSafe(text)).fetch_many(&mut *self.session);
        while let Some(next) = found.try_next().await? {
            match next {
                Either::Right(row) => rows.push(row),
                Either::Left(_) => sets.push(std::mem::take(&mut rows)),
            }
        }
        Ok(sets)
    }

    /// Makes it last, and leaves its session to the next batch.
    ///
    /// # Errors
    /// The database's; whether it lasts is not known then.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.session).await?;
        keep(&self.kept, self.session);
        Ok(())
    }
}

/// Leaves a session that is in no transaction to whoever comes next.
fn keep(kept: &Kept, session: PoolConnection<Postgres>) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < KEPT {
        kept.push(session);
    }
}

impl Deref for Batch {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.session
    }
}

impl DerefMut for Batch {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.session
    }
}

/// An array in PostgreSQL's text.
fn array<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::from("{");
    for item in items {
        let comma = if text.len() > 1 { "," } else { "" };
        let _ = write!(text, "{comma}{item}");
    }
    text.push('}');
    text
}

/// SQLSTATE of a division by zero.
const ZERO: &str = "22012";

/// A common table expression for [`Batches::at_once`], with the sagas' advisory locks, whose keys are `keys`. They are taken when
/// [`LOCKED`] is asked for, before the first row, and after the statement's snapshot: what was read by it counts only where the
/// statement also guards it, by a row's version or a unique key.
pub fn locked(keys: &str) -> String {
    format!("locked AS MATERIALIZED (SELECT count(pg_advisory_xact_lock(k)) AS n FROM unnest({keys}::bigint[]) AS k)")
}

/// The condition of what is written under the locks of [`locked`].
pub const LOCKED: &str = "(SELECT n FROM locked) >= 0";

/// The end of a statement: it fails, and with it all that the statement does, unless the common table expressions `rows` have
/// `number` rows together. [`did_all`] tells that failure from others.
pub fn all_or_none(rows: &[&str], number: &str) -> String {
    let counts: Vec<String> = rows.iter().map(|rows| format!("(SELECT count(*) FROM {rows})")).collect();
    format!("SELECT 1 / ({} = {number})::int", counts.join(" + "))
}

/// Whether a statement that ends with [`all_or_none`] did all; none of it otherwise.
///
/// # Errors
/// Any other one of the database.
pub fn did_all<T>(executed: Result<T, sqlx::Error>) -> Result<bool, sqlx::Error> {
    match executed {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(ZERO) => Ok(false),
        executed => executed.map(|_| true),
    }
}

/// Takes the transaction's advisory locks of these sagas, in an order that all batches share. Whoever decides about a
/// saga's rows calls it first and reads in a *new* statement, which then sees what the former holder committed.
pub async fn lock_sagas(tx: &mut PgConnection, ids: &[SagaId]) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k")
        .bind(locks(ids.iter().copied()))
        .execute(tx)
        .await?;
    Ok(())
}

/// The keys of sagas' advisory locks, sorted and each once. Two sagas that share a key only wait for each other.
pub fn locks(ids: impl IntoIterator<Item = SagaId>) -> Vec<i64> {
    let mut keys: Vec<i64> = ids.into_iter().map(hash).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The finalizer of SplitMix64 over both halves; all processes must agree on it for ever.
fn hash(id: SagaId) -> i64 {
    let (high, low) = id.0.as_u64_pair();
    let mut z = high.rotate_left(32) ^ low;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_distinct_and_the_same_in_every_build() {
        let (a, b) = (SagaId::fresh(), SagaId::fresh());
        assert_eq!(locks([a, b, a]), locks([b, a]));
        assert_eq!(locks([a, b, a]).len(), 2);
        assert!(locks([a, b]).is_sorted());
        let fixed = "01936f0e-8f4e-7cc2-9a56-0242ac120002".parse().unwrap();
        assert_eq!(hash(fixed), -3_970_025_625_493_331_915);
    }
}
