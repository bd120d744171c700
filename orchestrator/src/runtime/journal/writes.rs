//! Sagas are written: inserted once, then updated under the guard of their version.

use eventicket_contracts::SagaId;
use eventicket_planted::Fault;
use eventicket_saga::Entry;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::runtime::row::Row;

/// What stands in a row beside the saga, for the operators' filters.
pub struct Shown {
    /// [`eventicket_saga::State::name`].
    pub state: &'static str,
    /// The current step.
    pub step: Option<String>,
}

/// A row to write, with what is shown of it.
pub struct Write<'a> {
    /// The row, its version still the one that was read.
    pub row: &'a Row,
    /// Shown in lists.
    pub shown: Shown,
}

/// Inserts new sagas and returns the ids of those that were not there, neither by id nor by owner and key.
pub async fn insert(tx: &mut PgConnection, replica: Uuid, writes: &[Write<'_>]) -> Result<Vec<SagaId>, sqlx::Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let c = Columns::of(writes);
    let rows = sqlx::query(
        "WITH begun AS (
         INSERT INTO sagas (id, definition, definition_version, owner, idempotency_key, fingerprint, event, trace,
                            started_at, updated_at, version, dispatcher, ended, attention, state, step, body, history)
         SELECT u.id, u.definition, u.dv, u.owner, u.ikey, u.fp, u.event, u.trace, u.started, u.updated, 1, $1,
                u.ended, u.attention, u.state, u.step, u.body, u.history
         FROM unnest($2::uuid[], $3::text[], $4::int[], $5::uuid[], $6::text[], $7::text[], $8::uuid[], $9::text[],
                     $10::bigint[], $11::bigint[], $12::bool[], $13::bool[], $14::text[], $15::text[], $16::text[],
                     $17::text[])
              AS u(id, definition, dv, owner, ikey, fp, event, trace, started, updated, ended, attention, state, step,
                   body, history)
         ORDER BY u.owner, u.ikey, u.id
         ON CONFLICT DO NOTHING RETURNING id, ended),
         open AS (INSERT INTO unfinished SELECT id FROM begun WHERE NOT ended)
         SELECT id FROM begun",
    )
    .bind(replica)
    .bind(c.ids)
    .bind(c.definitions)
    .bind(c.definition_versions)
    .bind(c.owners)
    .bind(c.keys)
    .bind(c.fingerprints)
    .bind(c.events)
    .bind(c.traces)
    .bind(c.started)
    .bind(c.updated)
    .bind(c.ended)
    .bind(c.attention)
    .bind(c.states)
    .bind(c.steps)
    .bind(c.bodies)
    .bind(c.histories)
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|r| SagaId(r.get(0))).collect())
}

/// Stores changed sagas where their version is still the one that was read, and returns those that were stored.
/// Rows are locked in the order of their ids before they are written (6.9); the locks are taken when the count is asked
/// for, before the first row, and are not joined: that would be quadratic in the batch.
pub async fn update(tx: &mut PgConnection, replica: Uuid, writes: &[Write<'_>]) -> Result<Vec<SagaId>, sqlx::Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let versions: Vec<i64> = writes.iter().map(|w| w.row.version).collect();
    let c = Columns::of(writes);
    let rows = sqlx::query(
        "WITH locked AS MATERIALIZED (SELECT id FROM sagas WHERE id = ANY($2) ORDER BY id FOR UPDATE),
         changed AS (
         UPDATE sagas s SET version = s.version + 1, dispatcher = $1, updated_at = u.updated, ended = u.ended,
                attention = u.attention, state = u.state, step = u.step, body = u.body, history = s.history || u.history
         FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bool[], $6::bool[], $7::text[], $8::text[], $9::text[],
                     $10::text[]) AS u(id, version, updated, ended, attention, state, step, body, history)
         WHERE s.id = u.id AND (s.version = u.version OR $11) AND (SELECT count(*) FROM locked) > 0
         RETURNING s.id, s.ended),
         over AS (DELETE FROM unfinished WHERE id = ANY(ARRAY(SELECT id FROM changed WHERE ended)))
         SELECT id FROM changed",
    )
    .bind(replica)
    .bind(c.ids)
    .bind(versions)
    .bind(c.updated)
    .bind(c.ended)
    .bind(c.attention)
    .bind(c.states)
    .bind(c.steps)
    .bind(c.bodies)
    .bind(c.histories)
    .bind(Fault::NoVersionGuard.is_planted())
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|r| SagaId(r.get(0))).collect())
}

#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    definitions: Vec<String>,
    definition_versions: Vec<i32>,
    owners: Vec<Option<Uuid>>,
    keys: Vec<Option<String>>,
    fingerprints: Vec<Option<String>>,
    events: Vec<Option<Uuid>>,
    traces: Vec<Option<String>>,
    started: Vec<i64>,
    updated: Vec<i64>,
    ended: Vec<bool>,
    attention: Vec<bool>,
    states: Vec<&'static str>,
    steps: Vec<Option<String>>,
    bodies: Vec<String>,
    histories: Vec<String>,
}

impl Columns {
    fn of(writes: &[Write<'_>]) -> Self {
        let mut c = Self::default();
        for Write { row, shown } in writes {
            c.ids.push(row.id.0);
            c.definitions.push(row.saga.definition.clone());
            c.definition_versions.push(i32::try_from(row.saga.version).unwrap_or(i32::MAX));
            c.owners.push(row.owner.map(|o| o.0));
            c.keys.push(row.idempotency.as_ref().map(|i| i.key.clone()));
            c.fingerprints.push(row.idempotency.as_ref().map(|i| i.fingerprint.clone()));
            c.events.push(row.event.map(|e| e.0));
            c.traces.push(row.trace.clone());
            c.started.push(row.saga.started_at);
            c.updated.push(row.updated_at.millis());
            c.ended.push(row.saga.ended());
            c.attention.push(!row.saga.attention.is_empty());
            c.states.push(shown.state);
            c.steps.push(shown.step.clone());
            c.bodies.push(serde_json::to_string(&row.saga).unwrap_or_default());
            c.histories.push(lines(&row.news));
        }
        c
    }
}

fn lines(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        text.push('\n');
    }
    text
}
