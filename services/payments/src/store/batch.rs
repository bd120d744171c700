//! Batches: charges are written under the locks of their sagas, whatever changes in them.

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{SagaId, Timestamp};
use eventicket_kit::batch::{self, Batches, Read};
use eventicket_nats::outbox::{self, NewEvent};
use eventicket_nats::trace::is_sampled;
use serde::Serialize;
use uuid::Uuid;

use super::row::{self, Askers, Columns, RowsFound, outcome_name, signed};
use crate::charge::{Asker, Charge, Keys, Terms};

/// Whether this replica is there. Whoever takes it for dead holds its row, and is not waited for: it waits for sagas' locks.
const ALIVE: Read = Read { name: "alive", sql: "SELECT FROM replicas WHERE id = ANY($1) FOR KEY SHARE SKIP LOCKED" };
const CHARGES: Read =
    Read { name: "charges_of_sagas", sql: "SELECT c.* FROM unnest($1) AS k (saga) JOIN charges c USING (saga)" };
/// What batches read by.
pub(super) const READS: &[Read] = &[ALIVE, CHARGES];

/// A transaction that holds the locks of its sagas.
pub(crate) struct Batch {
    pub(super) tx: batch::Batch,
    me: Uuid,
}

impl Batch {
    /// Begins with the rows of these rounds; `None` where this replica was taken for dead.
    pub(super) async fn with_rows(
        batches: &Batches,
        keys: &[Key],
        me: Uuid,
    ) -> Result<Option<(Self, RowsFound)>, sqlx::Error> {
        let mut sagas: Vec<SagaId> = keys.iter().map(|key| key.saga).collect();
        sagas.sort_unstable();
        sagas.dedup();
        let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
        let (tx, rows) = batches.begin(&sagas, &[(ALIVE, &[me]), (CHARGES, &ids)]).await?;
        let [alive, found] = rows.as_slice() else { return Ok(None) };
        let found = row::by_key(found, me)?;
        Ok((!alive.is_empty()).then_some((Self { tx, me }, found)))
    }

    /// Begins without reading.
    pub(super) async fn without_rows(
        batches: &Batches,
        keys: impl Iterator<Item = &Key>,
        me: Uuid,
    ) -> Result<Option<Self>, sqlx::Error> {
        let sagas: Vec<SagaId> = keys.map(|key| key.saga).collect();
        let (tx, rows) = batches.begin(&sagas, &[(ALIVE, &[me])]).await?;
        Ok(rows.iter().any(|alive| !alive.is_empty()).then_some(Self { tx, me }))
    }

    /// The rows of these rounds, with whether this replica drives them.
    pub async fn rows(&mut self, keys: &[Key]) -> Result<RowsFound, sqlx::Error> {
        row::read(&mut self.tx, keys, self.me).await
    }

    /// Makes rows; answers how many: one that is there already stays as it is.
    pub async fn insert(&mut self, new: &[&Charge], now: Timestamp) -> Result<u64, sqlx::Error> {
        if new.is_empty() {
            return Ok(0);
        }
        let terms = |pick: fn(&Terms) -> String| -> Vec<Option<String>> {
            new.iter().map(|charge| charge.terms.as_ref().map(pick)).collect()
        };
        let asker = |pick: fn(&Charge) -> Option<&Asker>| Askers::of(new.iter().map(|charge| pick(charge)));
        let (do_askers, undo_askers) = (asker(|c| c.asker.as_ref()), asker(|c| c.undo_asker.as_ref()));
        let columns = Columns::of(new.iter().map(|charge| &charge.key));
        let made = sqlx::query(
            "INSERT INTO charges (saga, step, round, state, version, customer, amount, currency, description, method,
                                  outcome, code, message, reply_to, attempt, undo_reply_to, undo_attempt,
                                  intent, undo_reason, undo_closed, fence, trace, owner, created_at, updated_at)
             SELECT n.*, $23, $24, $24
             FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::integer[], $6::uuid[], $7::bigint[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                         $15::integer[], $16::text[], $17::integer[], $18::text[], $19::text[], $20::boolean[],
                         $21::text[], $22::text[])
                  AS n
             ON CONFLICT DO NOTHING",
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
        .bind(new.iter().map(|charge| charge.intent.as_deref()).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.undo_reason.as_deref()).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.undo_closed).collect::<Vec<_>>())
        .bind(fences(new))
        .bind(new.iter().map(|charge| recorded(charge)).collect::<Vec<_>>())
        .bind(self.me)
        .bind(now.millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(made.rows_affected())
    }

    /// Writes rows over the version before theirs, and takes them for this replica; answers which of them, by their
    /// places, were written. An id of an intent that is there stays, whatever is written.
    pub async fn update(&mut self, rows: &[&Charge], now: Timestamp) -> Result<Vec<usize>, sqlx::Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let columns = Columns::of(rows.iter().map(|charge| &charge.key));
        let undo_askers = Askers::of(rows.iter().map(|charge| charge.undo_asker.as_ref()));
        let count = |pick: fn(&Keys) -> u32| rows.iter().map(|c| signed(pick(&c.keys))).collect::<Vec<i32>>();
        let places: Option<Vec<i32>> = sqlx::query_scalar(
            "WITH written AS (UPDATE charges c
             SET state = n.state, version = n.version, owner = $24, updated_at = $25,
                 method = CASE WHEN n.needs_method THEN c.method END,
                 intent = coalesce(c.intent, n.intent),
                 create_key = n.create_key, confirm_key = n.confirm_key, refund_key = n.refund_key,
                 refund = n.refund, refunded = n.refunded,
                 outcome = n.outcome, code = n.code, message = n.message,
                 undo_reply_to = n.undo_reply_to, undo_attempt = n.undo_attempt,
                 next_action = n.next_action, refund_error = n.refund_error, undo_reason = n.undo_reason,
                 undo_closed = n.undo_closed, fence = n.fence, failed_refund = n.failed_refund
             FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::integer[], $6::boolean[], $7::text[],
                         $8::integer[], $9::integer[], $10::integer[], $11::text[], $12::bigint[], $13::text[],
                         $14::text[], $15::text[], $16::text[], $17::integer[], $18::text[], $19::text[], $20::text[],
                         $21::boolean[], $22::text[], $23::uuid[], $26::integer[])
                  AS n (saga, step, round, state, version, needs_method, intent, create_key, confirm_key, refund_key,
                        refund, refunded, outcome, code, message, undo_reply_to, undo_attempt, next_action,
                        refund_error, undo_reason, undo_closed, fence, failed_refund, place)
             WHERE (c.saga, c.step, c.round) = (n.saga, n.step, n.round) AND c.version = n.version - 1
             RETURNING n.place)
             SELECT array_agg(place) FROM written",
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
        .bind(rows.iter().map(|charge| charge.next_action.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.refund_error.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.undo_reason.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.undo_closed).collect::<Vec<_>>())
        .bind(fences(rows))
        .bind(rows.iter().map(|charge| charge.failed_refund.map(|saga| saga.0)).collect::<Vec<_>>())
        .bind(self.me)
        .bind(now.millis())
        .bind((0..i32::try_from(rows.len()).unwrap_or(i32::MAX)).collect::<Vec<_>>())
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row::places(places))
    }

    pub async fn events<D: Serialize>(&mut self, events: Vec<NewEvent<D>>, now: Timestamp) -> Result<(), sqlx::Error> {
        outbox::write(&mut self.tx, events, now).await
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

/// The charge's trace, where there will be spans below it.
pub(crate) fn recorded(charge: &Charge) -> Option<&str> {
    charge.trace.as_deref().filter(|trace| is_sampled(Some(trace)))
}

fn fences(rows: &[&Charge]) -> Vec<Option<String>> {
    // It holds no map whose keys are not texts, so that writing it cannot fail.
    rows.iter().map(|charge| charge.fence.as_ref().and_then(|fence| serde_json::to_string(fence).ok())).collect()
}
