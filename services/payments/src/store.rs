//! The tables `charges` and `replicas`: the only file with SQL.

use std::collections::{HashMap, HashSet};

use eventicket_contracts::envelope::{Key, Rejection};
use eventicket_contracts::payments::Payment;
use eventicket_contracts::{BookingId, Currency, CustomerId, Money, SagaId, Timestamp};
use eventicket_kit::batch::lock_sagas;
use eventicket_nats::outbox::{self, NewEvent};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Postgres, Row, Transaction};
use uuid::Uuid;

use crate::charge::{Asker, Charge, Keys, Outcome, State, Terms};

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Rows of a dead replica that are taken over at once: each holds an advisory lock meanwhile.
const TAKEN_AT_ONCE: i64 = 1_000;

/// The service's database, as one replica uses it.
#[derive(Clone)]
pub(crate) struct Store {
    pool: PgPool,
    /// This replica; new at each start.
    me: Uuid,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self { pool, me: Uuid::now_v7() }
    }

    /// Opens a batch with the locks of its sagas; `None` where this replica was taken for dead, so that nobody would look
    /// for its rows after a crash.
    pub async fn begin(&self, keys: impl Iterator<Item = &Key>) -> Result<Option<Batch>, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        // Before the sagas' locks, as in take_over.
        let alive = sqlx::query("SELECT 1 FROM replicas WHERE id = $1 FOR KEY SHARE").bind(self.me);
        if alive.fetch_optional(&mut *tx).await?.is_none() {
            return Ok(None);
        }
        let sagas: Vec<SagaId> = keys.map(|key| key.saga).collect();
        lock_sagas(&mut tx, &sagas).await?;
        Ok(Some(Batch { tx, me: self.me }))
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
        let due: Vec<&str> = State::ALL.into_iter().filter(|state| state.is_due()).map(State::name).collect();
        let rows = sqlx::query("SELECT saga, step, round FROM charges WHERE owner = $1 AND state = ANY($2) LIMIT $3")
            .bind(dead)
            .bind(&due)
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
        .bind(&due)
        .fetch_all(&mut *tx)
        .await?;
        let taken = taken.iter().map(|row| Ok(found(row)?.charge)).collect::<Result<Vec<_>, sqlx::Error>>()?;
        tx.commit().await?;
        Ok(Some(taken))
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

/// A row, and whether this replica drives it.
pub(crate) struct Found {
    pub charge: Charge,
    pub owner: Uuid,
}

/// A transaction that holds the locks of its sagas.
pub(crate) struct Batch {
    tx: Transaction<'static, Postgres>,
    me: Uuid,
}

impl Batch {
    /// The rows of these rounds, with whether this replica drives them.
    pub async fn rows(&mut self, keys: &[Key]) -> Result<HashMap<Key, (Charge, bool)>, sqlx::Error> {
        let columns = Columns::of(keys);
        let rows = sqlx::query(
            "SELECT c.* FROM charges c
             JOIN unnest($1::uuid[], $2::text[], $3::integer[]) AS k (saga, step, round) USING (saga, step, round)",
        )
        .bind(columns.sagas)
        .bind(columns.steps)
        .bind(columns.rounds)
        .fetch_all(&mut *self.tx)
        .await?;
        let me = self.me;
        let entry = |row: &PgRow| {
            let Found { charge, owner } = found(row)?;
            Ok((charge.key.clone(), (charge, owner == me)))
        };
        rows.iter().map(entry).collect()
    }

    pub async fn insert(&mut self, new: &[&Charge], now: Timestamp) -> Result<(), sqlx::Error> {
        if new.is_empty() {
            return Ok(());
        }
        let terms = |pick: fn(&Terms) -> String| -> Vec<Option<String>> {
            new.iter().map(|charge| charge.terms.as_ref().map(pick)).collect()
        };
        let asker = |pick: fn(&Charge) -> Option<&Asker>| Askers::of(new.iter().map(|charge| pick(charge)));
        let (do_askers, undo_askers) = (asker(|c| c.asker.as_ref()), asker(|c| c.undo_asker.as_ref()));
        let columns = Columns::of(new.iter().map(|charge| &charge.key));
        sqlx::query(
            "INSERT INTO charges (saga, step, round, state, version, customer, amount, currency, description, method,
                                  outcome, code, message, reply_to, attempt, undo_reply_to, undo_attempt,
                                  owner, created_at, updated_at)
             SELECT n.*, $18, $19, $19
             FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::integer[], $6::uuid[], $7::bigint[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                         $15::integer[], $16::text[], $17::integer[])
                  AS n",
        )
        .bind(columns.sagas)
        .bind(columns.steps)
        .bind(columns.rounds)
        .bind(new.iter().map(|charge| charge.state.name()).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.version).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.terms.as_ref().map(|terms| terms.customer.0)).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.terms.as_ref().map(|terms| terms.amount.amount)).collect::<Vec<_>>())
        .bind(terms(|terms| terms.amount.currency.to_string()))
        .bind(terms(|terms| terms.description.clone()))
        .bind(new.iter().map(|c| c.terms.as_ref().and_then(|terms| terms.method.as_deref())).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| outcome_name(charge)).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.rejection.as_ref().map(|r| r.code.as_str())).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.rejection.as_ref().map(|r| r.message.as_str())).collect::<Vec<_>>())
        .bind(do_askers.subjects)
        .bind(do_askers.attempts)
        .bind(undo_askers.subjects)
        .bind(undo_askers.attempts)
        .bind(self.me)
        .bind(now.millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Writes rows over the version before theirs, and takes them for this replica; answers which ones were written.
    /// An id of an intent that is there stays, whatever is written.
    pub async fn update(&mut self, rows: &[&Charge], now: Timestamp) -> Result<HashSet<Key>, sqlx::Error> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let columns = Columns::of(rows.iter().map(|charge| &charge.key));
        let undo_askers = Askers::of(rows.iter().map(|charge| charge.undo_asker.as_ref()));
        let count = |pick: fn(&Keys) -> u32| rows.iter().map(|c| signed(pick(&c.keys))).collect::<Vec<i32>>();
        let written = sqlx::query(
            "UPDATE charges c
             SET state = n.state, version = n.version, owner = $18, updated_at = $19,
                 method = CASE WHEN n.needs_method THEN c.method END,
                 intent = coalesce(c.intent, n.intent),
                 create_key = n.create_key, confirm_key = n.confirm_key, refund_key = n.refund_key,
                 refund = n.refund, refunded = n.refunded,
                 outcome = n.outcome, code = n.code, message = n.message,
                 undo_reply_to = n.undo_reply_to, undo_attempt = n.undo_attempt
             FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::integer[], $6::boolean[], $7::text[],
                         $8::integer[], $9::integer[], $10::integer[], $11::text[], $12::bigint[], $13::text[],
                         $14::text[], $15::text[], $16::text[], $17::integer[])
                  AS n (saga, step, round, state, version, needs_method, intent, create_key, confirm_key, refund_key,
                        refund, refunded, outcome, code, message, undo_reply_to, undo_attempt)
             WHERE (c.saga, c.step, c.round) = (n.saga, n.step, n.round) AND c.version = n.version - 1
             RETURNING c.saga, c.step, c.round",
        )
        .bind(columns.sagas)
        .bind(columns.steps)
        .bind(columns.rounds)
        .bind(rows.iter().map(|charge| charge.state.name()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.version).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.state.needs_method()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.intent.as_deref()).collect::<Vec<_>>())
        .bind(count(|keys| keys.create))
        .bind(count(|keys| keys.confirm))
        .bind(count(|keys| keys.refund))
        .bind(rows.iter().map(|charge| charge.refund.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.refunded).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| outcome_name(charge)).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.rejection.as_ref().map(|r| r.code.as_str())).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.rejection.as_ref().map(|r| r.message.as_str())).collect::<Vec<_>>())
        .bind(undo_askers.subjects)
        .bind(undo_askers.attempts)
        .bind(self.me)
        .bind(now.millis())
        .fetch_all(&mut *self.tx)
        .await?;
        written.iter().map(key).collect()
    }

    pub async fn events(&mut self, events: Vec<NewEvent>, now: Timestamp) -> Result<(), sqlx::Error> {
        let tx: &mut PgConnection = &mut self.tx;
        outbox::write(tx, events, now).await
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
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
        let Charge { key, state, outcome, terms, intent, refunded, .. } = found(row)?.charge;
        let (amount, created_at) = (terms.map(|terms| terms.amount), Timestamp(row.try_get("created_at")?));
        Ok(ChargeRow { key, state, outcome, amount, intent, refunded, created_at })
    };
    rows.iter().map(charge_row).collect()
}

/// Keys as columns.
struct Columns<'a> {
    sagas: Vec<Uuid>,
    steps: Vec<&'a str>,
    rounds: Vec<i32>,
}

impl<'a> Columns<'a> {
    fn of(keys: impl IntoIterator<Item = &'a Key>) -> Self {
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
struct Askers<'a> {
    subjects: Vec<Option<&'a str>>,
    attempts: Vec<Option<i32>>,
}

impl<'a> Askers<'a> {
    fn of(askers: impl Iterator<Item = Option<&'a Asker>>) -> Self {
        let columns = |asker: Option<&'a Asker>| {
            (asker.map(|asker| asker.reply_to.as_str()), asker.map(|asker| signed(asker.attempt)))
        };
        let (subjects, attempts) = askers.map(columns).unzip();
        Self { subjects, attempts }
    }
}

fn outcome_name(charge: &Charge) -> Option<&'static str> {
    charge.outcome.map(|outcome| match outcome {
        Outcome::Done => "done",
        Outcome::Rejected => "rejected",
    })
}

fn key(row: &PgRow) -> Result<Key, sqlx::Error> {
    let round = unsigned(row, "round")?;
    Ok(Key { saga: SagaId(row.try_get("saga")?), step: row.try_get("step")?, round })
}

fn found(row: &PgRow) -> Result<Found, sqlx::Error> {
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
    let charge = Charge {
        key: key(row)?,
        state,
        version: row.try_get("version")?,
        terms: terms(row)?,
        intent: row.try_get("intent")?,
        keys: Keys {
            create: unsigned(row, "create_key")?,
            confirm: unsigned(row, "confirm_key")?,
            refund: unsigned(row, "refund_key")?,
        },
        refund: row.try_get("refund")?,
        refunded: row.try_get("refunded")?,
        outcome,
        rejection,
        asker: asker("reply_to", "attempt")?,
        undo_asker: asker("undo_reply_to", "undo_attempt")?,
        trace: None,
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

/// PostgreSQL has no unsigned integers; the casts are exact.
fn unsigned(row: &PgRow, column: &str) -> Result<u32, sqlx::Error> {
    Ok(row.try_get::<i32, _>(column)?.cast_unsigned())
}

fn signed(number: u32) -> i32 {
    number.cast_signed()
}
