//! Sagas are read: by id, by key, in lists, and those that a replica looks after.

use std::collections::HashMap;

use eventicket_contracts::sagas::ListSagas;
use eventicket_contracts::{CustomerId, SagaId, Timestamp};
use eventicket_saga::Entry;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{COLUMNS, UNFINISHED, entries, readable};
use crate::runtime::row::Row;

/// Reads sagas by id.
pub async fn load(from: impl PgExecutor<'_>, ids: &[SagaId]) -> Result<Vec<Row>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|i| i.0).collect();
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM sagas WHERE id = ANY($1)"));
    Ok(readable(sqlx::query(sql).bind(ids).fetch_all(from).await?))
}

/// The sagas that are there of these starts, by id or by owner and key.
pub async fn known(pool: &PgPool, starts: &[(SagaId, Option<(CustomerId, String)>)]) -> Result<Vec<Row>, sqlx::Error> {
    let ids: Vec<Uuid> = starts.iter().map(|(id, _)| id.0).collect();
    let (owners, keys): (Vec<Uuid>, Vec<&str>) =
        starts.iter().filter_map(|(_, key)| key.as_ref()).map(|(owner, key)| (owner.0, key.as_str())).unzip();
    // Two parts, so that each takes its index.
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sagas WHERE id = ANY($1)
         UNION ALL
         SELECT {COLUMNS} FROM sagas JOIN unnest($2::uuid[], $3::text[]) AS k(k_owner, k_key)
           ON owner = k_owner AND idempotency_key = k_key"
    ));
    Ok(readable(sqlx::query(sql).bind(ids).bind(owners).bind(keys).fetch_all(pool).await?))
}

/// The row's version, to learn what became of a commit without an answer.
pub async fn version(pool: &PgPool, id: SagaId) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT version FROM sagas WHERE id = $1").bind(id.0).fetch_optional(pool).await
}

/// A customer's sagas of one definition, newest first.
pub async fn of_owner(
    pool: &PgPool,
    owner: CustomerId,
    definition: &str,
    limit: u32,
    before: Option<SagaId>,
) -> Result<Vec<Row>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sagas WHERE owner = $1 AND definition = $2 AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4"
    ));
    let rows = sqlx::query(sql)
        .bind(owner.0)
        .bind(definition)
        .bind(before.map(|b| b.0))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    Ok(readable(rows))
}

/// Sagas by filter, newest first.
pub async fn list(pool: &PgPool, filter: &ListSagas) -> Result<Vec<Row>, sqlx::Error> {
    let Some(sought) = seek(pool, filter.q.as_deref()).await? else { return Ok(Vec::new()) };
    // What has an index is said in the text where it is asked for, so that the plan can take it.
    let event = if filter.event.is_some() { "event = $4" } else { "$4::uuid IS NULL" };
    let owner = if filter.user.is_some() { "owner = $5" } else { "$5::uuid IS NULL" };
    let (table, some) = match filter.state.as_deref() {
        Some("attention") => ("sagas", "attention"),
        Some("unfinished" | "running" | "waiting" | "held" | "paused" | "compensating") => (UNFINISHED, "NOT ended"),
        _ => ("sagas", "true"),
    };
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM {table}
         WHERE {some} AND ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR definition = $2)
           AND ($3::text IS NULL OR step = $3) AND {event} AND {owner} AND id < $8 AND {}
           AND ($6::bigint IS NULL OR started_at >= $6) AND ($7::bigint IS NULL OR started_at < $7)
         ORDER BY id DESC LIMIT $9",
        sought.condition
    ));
    let rows = sqlx::query(sql)
        .bind(filter.state.as_deref().filter(|state| !matches!(*state, "attention" | "unfinished")))
        .bind(filter.kind.as_deref())
        .bind(filter.step.as_deref())
        .bind(filter.event.map(|e| e.0))
        .bind(filter.user.map(|u| u.0))
        .bind(filter.from.map(Timestamp::millis))
        .bind(filter.to.map(Timestamp::millis))
        // Above all ids, so that it bounds the index in any case.
        .bind(filter.before.map_or(Uuid::max(), |b| b.0))
        .bind(i64::from(filter.limit))
        .bind(sought.ids)
        .fetch_all(pool)
        .await?;
    Ok(readable(rows))
}

/// What a search text has found: a condition, and the ids of its parameter.
struct Sought {
    condition: &'static str,
    ids: Vec<Uuid>,
}

/// A search text is a whole idempotency key, or else how an id begins; `None` where it is neither.
async fn seek(pool: &PgPool, text: Option<&str>) -> Result<Option<Sought>, sqlx::Error> {
    let Some(text) = text else {
        return Ok(Some(Sought { condition: "$10::uuid[] IS NOT NULL", ids: Vec::new() }));
    };
    let by_key = "SELECT id FROM sagas WHERE idempotency_key = $1 ORDER BY id DESC LIMIT 1000";
    let ids: Vec<Uuid> = sqlx::query_scalar(by_key).bind(text).fetch_all(pool).await?;
    if !ids.is_empty() {
        return Ok(Some(Sought { condition: "id = ANY($10::uuid[])", ids }));
    }
    let between = "id BETWEEN ($10::uuid[])[1] AND ($10::uuid[])[2]";
    Ok(ids_from(text).map(|(first, last)| Sought { condition: between, ids: vec![first, last] }))
}

/// The first and the last id that begin with these hexadecimal digits, which may be grouped by hyphens.
fn ids_from(text: &str) -> Option<(Uuid, Uuid)> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if !(1..=32).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let filled = |with: char| {
        let all: String = digits.chars().chain(std::iter::repeat(with)).take(32).collect();
        Uuid::try_parse(&all).ok()
    };
    filled('0').zip(filled('f'))
}

/// A saga's history, oldest first.
pub async fn history(pool: &PgPool, id: SagaId) -> Result<Option<Vec<Entry>>, sqlx::Error> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT history FROM sagas WHERE id = $1").bind(id.0).fetch_optional(pool).await?;
    Ok(text.as_deref().map(entries))
}

/// The histories of sagas, each oldest first.
pub async fn histories(pool: &PgPool, ids: &[SagaId]) -> Result<HashMap<SagaId, Vec<Entry>>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT id, history FROM sagas WHERE id = ANY($1)").bind(ids).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(id, text)| (SagaId(id), entries(&text))).collect())
}

/// Where unfinished sagas stand: definition, state and step.
pub type Standing = [String; 3];

/// A part of the unfinished sagas: those with greater ids than `after`, up to `until`.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    after: Uuid,
    until: Uuid,
}

impl Slice {
    /// All of them.
    pub const ALL: Self = Self { after: Uuid::nil(), until: Uuid::max() };

    /// What of it is behind a saga.
    pub fn behind(self, saga: SagaId) -> Self {
        Self { after: saga.0, ..self }
    }

    /// The first `size` of those behind a slice, or of all; `None` where there are no more. Looks at the index only.
    pub async fn next(pool: &PgPool, behind: Option<Self>, size: i64) -> Result<Option<Self>, sqlx::Error> {
        let after = behind.map_or(Uuid::nil(), |slice| slice.until);
        if after == Uuid::max() {
            return Ok(None);
        }
        let last = "SELECT id FROM unfinished WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1";
        let last: Option<Uuid> = sqlx::query_scalar(last).bind(after).bind(size - 1).fetch_optional(pool).await?;
        Ok(Some(Self { after, until: last.unwrap_or(Uuid::max()) }))
    }
}

/// How many unfinished sagas of a slice stand where.
pub async fn standings(pool: &PgPool, slice: Slice) -> Result<Vec<(Standing, i64)>, sqlx::Error> {
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT definition, state, coalesce(step, ''), count(*) FROM unfinished JOIN sagas USING (id)
         WHERE id > $1 AND id <= $2 GROUP BY 1, 2, 3",
    )
    .bind(slice.after)
    .bind(slice.until)
    .fetch_all(pool)
    .await?;
    let standing = |(definition, state, step, number)| ([definition, state, step], number);
    Ok(rows.into_iter().map(standing).collect())
}

/// How many sagas are marked for an operator.
pub async fn marked(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM sagas WHERE attention").fetch_one(pool).await
}

/// Unfinished sagas of a slice whose dispatcher is not among the living, oldest first.
pub async fn orphans(pool: &PgPool, living: &[Uuid], slice: Slice, limit: i64) -> Result<Vec<SagaId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM unfinished JOIN sagas USING (id)
         WHERE NOT dispatcher = ANY($1) AND id > $2 AND id <= $3 ORDER BY id LIMIT $4",
    )
    .bind(living)
    .bind(slice.after)
    .bind(slice.until)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(SagaId).collect())
}

/// A page of this replica's own unfinished sagas.
pub async fn own(pool: &PgPool, name: Uuid, after: Option<SagaId>, limit: i64) -> Result<Vec<SagaId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM unfinished JOIN sagas USING (id)
         WHERE dispatcher = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
    )
    .bind(name)
    .bind(after.map(|a| a.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(SagaId).collect())
}

/// All sagas that started before `until`, in pages by id, for the audit.
pub async fn page(pool: &PgPool, until: Timestamp, after: Option<SagaId>, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sagas WHERE started_at <= $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3"
    ));
    let rows = sqlx::query(sql).bind(until.millis()).bind(after.map(|a| a.0)).bind(limit).fetch_all(pool).await?;
    Ok(readable(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_for_all_ids_that_begin_with_them() {
        let id = Uuid::now_v7();
        let (hyphens, plain) = (id.to_string(), id.simple().to_string());
        for text in [&hyphens, &plain, &hyphens[..9], &plain[..1], &hyphens.to_uppercase()] {
            let (first, last) = ids_from(text).unwrap();
            assert!(first <= id && id <= last, "{text}");
        }
        assert_eq!(ids_from(&hyphens), Some((id, id)));
        for none in ["", "-", "key-1", &format!("{plain}0")] {
            assert_eq!(ids_from(none), None, "{none}");
        }
    }
}
