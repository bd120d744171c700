//! The two writes that every charge has, its row and each step of its way: many in one statement, which is its transaction,
//! so that they are one round trip. Either all are written or none; what is not as it was expected is looked at in a
//! [`Batch`](super::Batch).
//!
//! Lists of values stand in the select list, where `unnest` hands them on one by one; in `FROM` each would be stored first.

use std::sync::LazyLock;

use eventicket_contracts::Timestamp;
use eventicket_kit::batch::{self, LOCKED, all_or_none};
use eventicket_nats::outbox::{self, Rows};

use super::Store;
use super::batch::recorded;
use super::row::{Columns, outcome_name, signed};
use crate::charge::{Charge, State};

/// A replica that was taken for dead writes nothing: nobody would look for its rows after a crash. Whether its row is locked before
/// the sagas or after them does not matter: nobody waits for that row.
const ALIVE: &str = "alive AS MATERIALIZED (SELECT FROM replicas WHERE id = $6 FOR KEY SHARE SKIP LOCKED)";
const IS_ALIVE: &str = "EXISTS (SELECT FROM alive)";

static BEGIN: LazyLock<String> = LazyLock::new(|| {
    let (locked, made) = (batch::locked("$5"), all_or_none(&["made"], "$7"));
    format!(
        "WITH {ALIVE}, {locked},
         made AS (
             INSERT INTO charges (saga, step, round, customer, amount, currency, description, method, reply_to, attempt,
                                  trace, state, version, owner, created_at, updated_at)
             SELECT unnest($2::uuid[]), unnest($3::text[]), unnest($4::integer[]), unnest($8::uuid[]),
                    unnest($9::bigint[]), unnest($10::text[]), unnest($11::text[]), unnest($12::text[]),
                    unnest($13::text[]), unnest($14::integer[]), unnest($15::text[]), $16, 1, $6, $1, $1
             WHERE {LOCKED} AND {IS_ALIVE}
             ON CONFLICT DO NOTHING RETURNING 1)
         {made}"
    )
});

static ADVANCE: LazyLock<String> = LazyLock::new(|| {
    let (locked, told, written) = (batch::locked("$5"), outbox::INSERT, all_or_none(&["written"], "$7"));
    format!(
        "WITH {ALIVE}, {locked}, told AS ({told}),
         written AS (
             UPDATE charges c
             SET state = n.state, version = n.version, intent = coalesce(c.intent, n.intent), outcome = n.outcome,
                 method = CASE WHEN n.needs_method THEN c.method END, updated_at = $1
             FROM (SELECT unnest($8::uuid[]) AS saga, unnest($9::text[]) AS step, unnest($10::integer[]) AS round,
                          unnest($11::text[]) AS state, unnest($12::integer[]) AS version, unnest($13::text[]) AS intent,
                          unnest($14::text[]) AS outcome, unnest($15::boolean[]) AS needs_method) AS n
             WHERE (c.saga, c.step, c.round) = (n.saga, n.step, n.round) AND c.version = n.version - 1
                   AND {LOCKED} AND {IS_ALIVE}
             RETURNING 1)
         {written}"
    )
});

impl Store {
    /// Makes rows of charges that begin, all or none: false where one is there already, or this replica was taken for dead.
    pub async fn open(&self, new: &[&Charge], now: Timestamp) -> Result<bool, sqlx::Error> {
        let begins: Vec<_> = new.iter().filter_map(|c| Some((c, c.terms.as_ref()?, c.asker.as_ref()?))).collect();
        if begins.len() < new.len() {
            return Ok(false);
        }
        let columns = Columns::of(new.iter().map(|charge| &charge.key));
        let query = sqlx::query(BEGIN.as_str())
            .bind(now.millis())
            .bind(columns.sagas)
            .bind(columns.steps)
            .bind(columns.rounds)
            .bind(locks(new))
            .bind(self.me)
            .bind(number(new))
            .bind(begins.iter().map(|(_, terms, _)| terms.customer.0).collect::<Vec<_>>())
            .bind(begins.iter().map(|(_, terms, _)| terms.amount.amount).collect::<Vec<_>>())
            .bind(begins.iter().map(|(_, terms, _)| terms.amount.currency.as_str()).collect::<Vec<_>>())
            .bind(begins.iter().map(|(_, terms, _)| terms.description.as_str()).collect::<Vec<_>>())
            .bind(begins.iter().map(|(_, terms, _)| terms.method.as_deref()).collect::<Vec<_>>())
            .bind(begins.iter().map(|(_, _, asker)| asker.reply_to.as_str()).collect::<Vec<_>>())
            .bind(begins.iter().map(|(_, _, asker)| signed(asker.attempt)).collect::<Vec<_>>())
            .bind(new.iter().map(|charge| recorded(charge)).collect::<Vec<_>>())
            .bind(State::Open.name());
        self.commands.at_once(query).await
    }

    /// Writes a step of each row's way ([`Charge::is_step_from`]) over the version before, and the events, all or none. An
    /// id of an intent that is there stays, whatever is written.
    pub async fn advance(&self, rows: &[&Charge], events: Rows, now: Timestamp) -> Result<bool, sqlx::Error> {
        let columns = Columns::of(rows.iter().map(|charge| &charge.key));
        let query = sqlx::query(ADVANCE.as_str())
            .bind(now.millis())
            .bind(events.ids)
            .bind(events.subjects)
            .bind(events.payloads)
            .bind(locks(rows))
            .bind(self.me)
            .bind(number(rows))
            .bind(columns.sagas)
            .bind(columns.steps)
            .bind(columns.rounds)
            .bind(rows.iter().map(|charge| charge.state.name()).collect::<Vec<_>>())
            .bind(rows.iter().map(|charge| charge.version).collect::<Vec<_>>())
            .bind(rows.iter().map(|charge| charge.intent.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|charge| outcome_name(charge)).collect::<Vec<_>>())
            .bind(rows.iter().map(|charge| charge.state.needs_method()).collect::<Vec<_>>());
        self.records.at_once(query).await
    }
}

fn locks(charges: &[&Charge]) -> Vec<i64> {
    batch::locks(charges.iter().map(|charge| charge.key.saga))
}

fn number(charges: &[&Charge]) -> i64 {
    i64::try_from(charges.len()).unwrap_or(i64::MAX)
}
