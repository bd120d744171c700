//! Batches: charges are written under the locks of their sagas.

use std::collections::{HashMap, HashSet};

use eventicket_contracts::Timestamp;
use eventicket_contracts::envelope::Key;
use eventicket_nats::outbox::{self, NewEvent};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::row::{self, Askers, Columns, key, outcome_name, signed};
use crate::charge::{Asker, Charge, Keys, Terms};

/// A transaction that holds the locks of its sagas.
pub(crate) struct Batch {
    pub(super) tx: Transaction<'static, Postgres>,
    me: Uuid,
}

impl Batch {
    pub(super) fn new(tx: Transaction<'static, Postgres>, me: Uuid) -> Self {
        Self { tx, me }
    }

    /// The rows of these rounds, with whether this replica drives them.
    pub async fn rows(&mut self, keys: &[Key]) -> Result<HashMap<Key, (Charge, bool)>, sqlx::Error> {
        row::read(&mut self.tx, keys, self.me).await
    }

    /// Makes rows; answers which ones: one that is there already stays as it is.
    pub async fn insert(&mut self, new: &[&Charge], now: Timestamp) -> Result<HashSet<Key>, sqlx::Error> {
        if new.is_empty() {
            return Ok(HashSet::new());
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
                                  intent, undo_reason, undo_closed, fence, owner, created_at, updated_at)
             SELECT n.*, $22, $23, $23
             FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::integer[], $6::uuid[], $7::bigint[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                         $15::integer[], $16::text[], $17::integer[], $18::text[], $19::text[], $20::boolean[],
                         $21::text[])
                  AS n
             ON CONFLICT DO NOTHING RETURNING saga, step, round",
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
        .bind(self.me)
        .bind(now.millis())
        .fetch_all(&mut *self.tx)
        .await?;
        made.iter().map(key).collect()
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
                         $21::boolean[], $22::text[], $23::uuid[])
                  AS n (saga, step, round, state, version, needs_method, intent, create_key, confirm_key, refund_key,
                        refund, refunded, outcome, code, message, undo_reply_to, undo_attempt, next_action,
                        refund_error, undo_reason, undo_closed, fence, failed_refund)
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
        .bind(rows.iter().map(|charge| charge.next_action.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.refund_error.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.undo_reason.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|charge| charge.undo_closed).collect::<Vec<_>>())
        .bind(fences(rows))
        .bind(rows.iter().map(|charge| charge.failed_refund.map(|saga| saga.0)).collect::<Vec<_>>())
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

fn fences(rows: &[&Charge]) -> Vec<Option<String>> {
    // It holds no map whose keys are not texts, so that writing it cannot fail.
    rows.iter().map(|charge| charge.fence.as_ref().and_then(|fence| serde_json::to_string(fence).ok())).collect()
}
