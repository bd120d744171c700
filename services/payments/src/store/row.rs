//! Rows of `charges`, and the columns that statements over many of them take.

use std::collections::HashMap;

use eventicket_contracts::envelope::{Key, Rejection};
use eventicket_contracts::{Currency, CustomerId, Money, SagaId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::charge::{Asker, Charge, Keys, Outcome, State, Terms};

/// Rows by their rounds, each with whether this replica drives it.
pub(crate) type RowsFound = HashMap<Key, (Charge, bool)>;

/// A row, and who drives it.
pub(super) struct Found {
    pub charge: Charge,
    pub owner: Uuid,
}

/// The rows of these rounds, with whether `me` drives them.
pub(super) async fn read(connection: &mut PgConnection, keys: &[Key], me: Uuid) -> Result<RowsFound, sqlx::Error> {
    let columns = Columns::of(keys);
    let rows = sqlx::query(
        "SELECT c.* FROM charges c
         JOIN unnest($1::uuid[], $2::text[], $3::integer[]) AS k (saga, step, round) USING (saga, step, round)",
    )
    .bind(columns.sagas)
    .bind(columns.steps)
    .bind(columns.rounds)
    .fetch_all(connection)
    .await?;
    by_key(&rows, me)
}

pub(super) fn by_key(rows: &[PgRow], me: Uuid) -> Result<RowsFound, sqlx::Error> {
    let entry = |row: &PgRow| {
        let Found { charge, owner } = found(row)?;
        Ok((charge.key.clone(), (charge, owner == me)))
    };
    rows.iter().map(entry).collect()
}

/// Keys as columns.
pub(super) struct Columns<'a> {
    pub sagas: Vec<Uuid>,
    pub steps: Vec<&'a str>,
    pub rounds: Vec<i32>,
}

impl<'a> Columns<'a> {
    pub fn of(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let mut columns = Self { sagas: Vec::new(), steps: Vec::new(), rounds: Vec::new() };
        for key in keys {
            columns.sagas.push(key.saga.0);
            columns.steps.push(&key.step);
            columns.rounds.push(signed(key.round));
        }
        columns
    }
}

/// Askers as columns.
pub(super) struct Askers<'a> {
    pub subjects: Vec<Option<&'a str>>,
    pub attempts: Vec<Option<i32>>,
}

impl<'a> Askers<'a> {
    pub fn of(askers: impl Iterator<Item = Option<&'a Asker>>) -> Self {
        let columns = |asker: Option<&'a Asker>| {
            (asker.map(|asker| asker.reply_to.as_str()), asker.map(|asker| signed(asker.attempt)))
        };
        let (subjects, attempts) = askers.map(columns).unzip();
        Self { subjects, attempts }
    }
}

pub(super) fn outcome_name(charge: &Charge) -> Option<&'static str> {
    charge.outcome.map(|outcome| match outcome {
        Outcome::Done => "done",
        Outcome::Rejected => "rejected",
    })
}

pub(super) fn key(row: &PgRow) -> Result<Key, sqlx::Error> {
    let round = unsigned(row, "round")?;
    Ok(Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round })
}

pub(super) fn found(row: &PgRow) -> Result<Found, sqlx::Error> {
    let asker = |subject: &str, attempt: &str| -> Result<Option<Asker>, sqlx::Error> {
        let Some(reply_to) = row.try_get::<Option<String>, _>(subject)? else { return Ok(None) };
        Ok(Some(Asker { reply_to, attempt: row.try_get::<Option<i32>, _>(attempt)?.unwrap_or(0).cast_unsigned() }))
    };
    let state: String = row.try_get("state")?;
    let state = State::named(&state).ok_or_else(|| sqlx::Error::Decode(format!("unknown state {state}").into()))?;
    let outcome = match row.try_get::<Option<&str>, _>("outcome")? {
        Some("done") => Some(Outcome::Done),
        Some(_) => Some(Outcome::Rejected),
        None => None,
    };
    let rejection = match (row.try_get::<Option<String>, _>("code")?, row.try_get::<Option<String>, _>("message")?) {
        (Some(code), message) => Some(Rejection { code, message: message.unwrap_or_default() }),
        (None, _) => None,
    };
    let fence = match row.try_get::<Option<String>, _>("fence")? {
        Some(text) => Some(serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?),
        None => None,
    };
    let charge = Charge {
        key: key(row)?,
        state,
        version: row.try_get("version")?,
        terms: terms(row)?,
        intent: row.try_get("intent")?,
        next_action: row.try_get("next_action")?,
        keys: Keys {
            create: unsigned(row, "create_key")?,
            confirm: unsigned(row, "confirm_key")?,
            refund: unsigned(row, "refund_key")?,
        },
        refund: row.try_get("refund")?,
        refunded: row.try_get("refunded")?,
        refund_error: row.try_get("refund_error")?,
        outcome,
        rejection,
        asker: asker("reply_to", "attempt")?,
        undo_asker: asker("undo_reply_to", "undo_attempt")?,
        undo_reason: row.try_get("undo_reason")?,
        undo_closed: row.try_get("undo_closed")?,
        fence,
        failed_refund: row.try_get::<Option<Uuid>, _>("failed_refund")?.map(SagaId),
        trace: row.try_get("trace")?,
    };
    Ok(Found { charge, owner: row.try_get("owner")? })
}

fn terms(row: &PgRow) -> Result<Option<Terms>, sqlx::Error> {
    let Some(amount) = row.try_get::<Option<i64>, _>("amount")? else { return Ok(None) };
    let currency = Currency::parse(row.try_get("currency")?)
        .ok_or_else(|| sqlx::Error::Decode("a currency that cannot be read".into()))?;
    Ok(Some(Terms {
        customer: CustomerId(row.try_get("customer")?),
        amount: Money { amount, currency },
        description: row.try_get("description")?,
        method: row.try_get("method")?,
    }))
}

/// Places of rows in a list.
pub(super) fn places(found: Option<Vec<i32>>) -> Vec<usize> {
    found.unwrap_or_default().into_iter().filter_map(|place| usize::try_from(place).ok()).collect()
}

/// PostgreSQL has no unsigned integers; the casts are exact.
fn unsigned(row: &PgRow, column: &str) -> Result<u32, sqlx::Error> {
    Ok(row.try_get::<i32, _>(column)?.cast_unsigned())
}

pub(super) fn signed(number: u32) -> i32 {
    number.cast_signed()
}
