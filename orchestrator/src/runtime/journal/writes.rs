//! Sagas are written: inserted once, then updated under the guard of their version.

use std::collections::HashSet;

use eventicket_contracts::SagaId;
use eventicket_kit::batch::{all_or_none, did_all};
use eventicket_planted::Fault;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres, Row as _, Type};
use uuid::Uuid;

use crate::runtime::row::Row;

/// What stands in a row beside the saga, for the operators' filters.
pub struct Shown<'a> {
    /// [`eventicket_saga::State::name`].
    pub state: &'static str,
    /// The current step.
    pub step: Option<&'a str>,
}

/// A row to write, with what is shown of it. One of version 0 is new.
pub struct Write<'a> {
    /// The row, its version still the one that was read.
    pub row: &'a Row,
    /// Shown in lists.
    pub shown: Shown<'a>,
}

/// New sagas are inserted where neither their id nor their owner and key is there; changed ones are stored where their
/// version is still the one that was read. Rows are locked in the order of their ids before they are changed (6.9), unless
/// nobody else writes; the locks are taken when the count is asked for, before the first row, and are not joined: that would
/// be quadratic in the batch.
const WRITTEN: &str = "
    WITH begun AS (
         INSERT INTO sagas (id, definition, definition_version, owner, idempotency_key, fingerprint, event, trace,
                            started_at, input, updated_at, version, dispatcher, ended, attention, state, step, body,
                            history)
         SELECT u.id, u.definition, u.dv, u.owner, u.ikey, u.fp, u.event, u.trace, u.started, u.input, u.updated, 1, $1,
                u.ended, u.attention, u.state, u.step, u.body, u.history
         FROM unnest($2::uuid[], $3::bigint[], $4::bool[], $5::bool[], $6::text[], $7::text[], $8::text[], $9::text[],
                     $10::text[], $11::int[], $12::uuid[], $13::text[], $14::text[], $15::uuid[], $16::text[],
                     $17::bigint[], $18::text[])
              AS u(id, updated, ended, attention, state, step, body, history, definition, dv, owner, ikey, fp, event,
                   trace, started, input)
         ORDER BY u.owner, u.ikey, u.id
         ON CONFLICT DO NOTHING RETURNING id, ended),
    open AS (INSERT INTO unfinished SELECT id FROM begun WHERE NOT ended),
    locked AS MATERIALIZED (SELECT id FROM sagas WHERE $29 AND id = ANY($19) ORDER BY id FOR UPDATE),
    changed AS (
         UPDATE sagas s SET version = s.version + 1, dispatcher = $1, updated_at = u.updated, ended = u.ended,
                attention = u.attention, state = u.state, step = u.step, body = u.body, history = u.history || s.history
         FROM unnest($19::uuid[], $20::bigint[], $21::bool[], $22::bool[], $23::text[], $24::text[], $25::text[],
                     $26::text[], $27::bigint[])
              AS u(id, updated, ended, attention, state, step, body, history, version)
         WHERE s.id = u.id AND (s.version = u.version OR $28) AND (SELECT count(*) FROM locked) >= 0
         RETURNING s.id, s.ended),
    over AS (DELETE FROM unfinished WHERE id = ANY(ARRAY(SELECT id FROM changed WHERE ended)))";

/// Stores a whole turn in one statement, which is its transaction: the sagas, and the replica's counts where they changed.
/// False where a row was not as it was read: nothing is stored then. `alone`: no other replica is known. Should one begin
/// meanwhile and meet this turn in a circle, the database ends one of the two turns, which is computed anew.
pub async fn store(
    session: &mut PgConnection,
    replica: Uuid,
    writes: &[Write<'_>],
    outstanding: Option<&str>,
    alone: bool,
) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "{WRITTEN},
         counted AS (UPDATE replicas SET outstanding = $30 WHERE name = $1 AND $30 IS NOT NULL)
         {}",
        all_or_none(&["begun", "changed"], "$31")
    );
    let number = i64::try_from(writes.len()).unwrap_or(i64::MAX);
    did_all(bound(&sql, replica, writes, !alone).bind(outstanding).bind(number).execute(session).await)
}

/// Stores sagas in a transaction, and returns the ids of those that were stored.
pub async fn write(tx: &mut PgConnection, replica: Uuid, writes: &[Write<'_>]) -> Result<HashSet<SagaId>, sqlx::Error> {
    let sql = format!("{WRITTEN} SELECT id FROM begun UNION ALL SELECT id FROM changed");
    let rows = bound(&sql, replica, writes, true).fetch_all(tx).await?;
    Ok(rows.iter().map(|row| SagaId(row.get(0))).collect())
}

fn bound<'a>(sql: &str, replica: Uuid, writes: &[Write<'a>], in_order: bool) -> Query<'a, Postgres, PgArguments> {
    let (new, old): (Vec<&Write<'a>>, Vec<&Write<'a>>) = writes.iter().partition(|write| write.row.version == 0);
    let rows = || new.iter().map(|write| write.row);
    let query = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(replica);
    let query = Columns::of(&new)
        .bound(query)
        .bind(rows().map(|row| row.saga.definition.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| i32::try_from(row.saga.version).unwrap_or(i32::MAX)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.owner.map(|owner| owner.0)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.idempotency.as_ref().map(|i| i.key.as_str())).collect::<Vec<_>>())
        .bind(rows().map(|row| row.idempotency.as_ref().map(|i| i.fingerprint.as_str())).collect::<Vec<_>>())
        .bind(rows().map(|row| row.event.map(|event| event.0)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.trace.as_deref()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.saga.started_at).collect::<Vec<_>>())
        .bind(rows().map(|row| row.saga.input.text()).collect::<Vec<_>>());
    Columns::of(&old)
        .bound(query)
        .bind(old.iter().map(|write| write.row.version).collect::<Vec<_>>())
        .bind(Fault::NoVersionGuard.is_planted())
        .bind(in_order)
}

/// What changes in a saga's life.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    updated: Vec<i64>,
    ended: Vec<bool>,
    attention: Vec<bool>,
    states: Vec<&'static str>,
    steps: Vec<Option<&'a str>>,
    rows: Vec<&'a Row>,
}

impl<'a> Columns<'a> {
    fn of(writes: &[&Write<'a>]) -> Self {
        let mut c = Self::default();
        for Write { row, shown } in writes {
            c.ids.push(row.id.0);
            c.updated.push(row.updated_at.millis());
            c.ended.push(row.saga.ended());
            c.attention.push(!row.saga.attention.is_empty());
            c.states.push(shown.state);
            c.steps.push(shown.step);
            c.rows.push(*row);
        }
        c
    }

    fn bound<'q>(self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(self.ids)
            .bind(self.updated)
            .bind(self.ended)
            .bind(self.attention)
            .bind(self.states)
            .bind(self.steps)
            .bind(Texts { rows: self.rows.clone(), write: body })
            .bind(Texts { rows: self.rows, write: news })
    }
}

/// An array of texts that are written where they travel, without a string for each.
struct Texts<'a> {
    rows: Vec<&'a Row>,
    write: fn(&Row, &mut Vec<u8>) -> serde_json::Result<()>,
}

impl Type<Postgres> for Texts<'_> {
    fn type_info() -> PgTypeInfo {
        <[&str] as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Texts<'_> {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        const DIMENSIONS: i32 = 1;
        const HAS_NULLS: i32 = 0;
        /// Of the type `text`.
        const OID: i32 = 25;
        const FIRST: i32 = 1;
        let number = i32::try_from(self.rows.len())?;
        [DIMENSIONS, HAS_NULLS, OID, number, FIRST].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
        for row in &self.rows {
            let begin = out.len();
            out.extend_from_slice(&[0; 4]);
            (self.write)(row, out)?;
            let length = i32::try_from(out.len() - begin - 4)?;
            out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(IsNull::No)
    }
}

/// What changes in the saga, as JSON.
fn body(row: &Row, out: &mut Vec<u8>) -> serde_json::Result<()> {
    serde_json::to_writer(out, &row.saga)
}

/// What is new in its history, an entry a line, the newest first: so what was there before ends the row as it did, and
/// need not go into the database's log again.
fn news(row: &Row, out: &mut Vec<u8>) -> serde_json::Result<()> {
    for entry in row.news.iter().rev() {
        serde_json::to_writer(&mut *out, entry)?;
        out.push(b'\n');
    }
    Ok(())
}
