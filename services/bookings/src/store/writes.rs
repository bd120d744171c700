//! What a batch writes, one statement a kind. The locks of sagas and events are held, so that nobody else writes these
//! rows and no order among them matters.

use std::sync::LazyLock;

use eventicket_contracts::Timestamp;
use eventicket_contracts::bookings::Reserved;
use eventicket_contracts::envelope::{Key, Rejection};
use eventicket_nats::outbox::{self, Rows};
use serde::Serialize;
use sqlx::postgres::PgArguments;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use super::rows;
use crate::allocation::{Changes, Content, FenceRecord, OfferRecord, Phase, Record};
use crate::event::{Event, TicketType};
use crate::tickets::code;

type Written = Result<(), sqlx::Error>;

/// What almost every batch writes, in one statement, which is one round trip: records that are new or changed, the ends of
/// grace, what is left of types, and the events.
static MOST: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH told AS ({told}),
         changed AS (
             UPDATE holds h SET state = u.state, changes = u.changes, codes = string_to_array(u.codes, ' '), changed_at = $1
             FROM unnest($5::uuid[], $6::text[], $7::integer[], $8::text[], $9::integer[], $10::text[])
                  AS u (saga, step, round, state, changes, codes)
             WHERE h.saga = u.saga AND h.step = u.step AND h.round = u.round),
         types AS (
             UPDATE ticket_types t SET available = u.available, free_from = u.free_from
             FROM unnest($11::uuid[], $12::uuid[], $13::bigint[], $14::bigint[]) AS u (event, id, available, free_from)
             WHERE t.event = u.event AND t.id = u.id),
         new AS MATERIALIZED (
             SELECT * FROM unnest($15::uuid[], $16::text[], $17::integer[], $18::text[], $19::integer[], $20::text[],
                                  $21::bigint[], $22::uuid[], $23::uuid[], $24::text[], $25::bigint[], $26::bigint[],
                                  $27::boolean[])
             AS n (saga, step, round, state, changes, codes, grace_until, event, customer, answer, tickets,
                   max_per_customer, counted)),
         ends AS (
             INSERT INTO hold_ends (until, sagas)
             SELECT grace_until, array_agg(saga) FROM new WHERE state = 'held' GROUP BY grace_until)
         INSERT INTO holds (saga, step, round, state, changes, codes, grace_until, event, customer, answer, tickets,
                            max_per_customer, counted, created_at, changed_at)
         SELECT saga, step, round, state, changes, string_to_array(codes, ' '), grace_until, event, customer, answer,
                tickets, max_per_customer, counted, $1, $1 FROM new",
        told = outbox::INSERT
    )
});

/// Writes it.
pub(super) async fn most(
    tx: &mut PgConnection,
    changes: &Changes,
    events: Rows,
    is_counted: impl Fn(&Record) -> bool,
    now: Timestamp,
) -> Written {
    let Changes { inserted: new, updated: changed, left, .. } = changes;
    if new.is_empty() && changed.is_empty() && left.is_empty() {
        return Ok(());
    }
    let holds = || new.iter().map(|(_, record)| record.content.hold());
    let query = sqlx::query(MOST.as_str()).bind(now.millis());
    let query = query.bind(events.ids).bind(events.subjects).bind(events.payloads);
    let query = bind_states(query, changed)
        .bind(left.iter().map(|left| left.event.0).collect::<Vec<_>>())
        .bind(left.iter().map(|left| left.kind.0).collect::<Vec<_>>())
        .bind(left.iter().map(|left| i64::from(left.available)).collect::<Vec<_>>())
        .bind(left.iter().map(|left| i64::from(left.free_from)).collect::<Vec<_>>());
    bind_states(query, new)
        .bind(holds().map(|hold| hold.map(|hold| hold.grace_until.millis())).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, record)| record.event.0).collect::<Vec<Uuid>>())
        .bind(new.iter().map(|(_, record)| customer(&record.content)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, record)| answer(&record.content)).collect::<Result<Vec<_>, _>>()?)
        .bind(holds().map(|hold| hold.map(|hold| i64::from(hold.tickets()))).collect::<Vec<_>>())
        .bind(holds().map(|hold| hold?.max_per_customer.map(i64::from)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, record)| is_counted(record)).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

/// The columns that change with a hold's state, behind those of its key.
fn bind_states(query: Query, records: &[(Key, Record)]) -> Query {
    query
        .bind(sagas(records.iter().map(|(key, _)| key)))
        .bind(steps(records.iter().map(|(key, _)| key)))
        .bind(rounds(records.iter().map(|(key, _)| key)))
        .bind(records.iter().map(|(_, record)| rows::state_name(&record.content)).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, record)| record.changes.cast_signed()).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, record)| codes(&record.content)).collect::<Vec<_>>())
}

fn customer(content: &Content) -> Option<Uuid> {
    match content {
        Content::Hold(hold) => Some(hold.customer.0),
        Content::Refused { customer, .. } => Some(customer.0),
        Content::Tombstone => None,
    }
}

/// Fresh codes for the tickets of a hold that was confirmed, with blanks between them.
fn codes(content: &Content) -> Option<String> {
    let hold = content.hold().filter(|hold| hold.phase == Phase::Confirmed)?;
    Some((0..hold.tickets()).map(|_| code()).collect::<Vec<_>>().join(" "))
}

fn answer(content: &Content) -> Result<Option<String>, sqlx::Error> {
    match content {
        Content::Hold(hold) => text::<Reserved>(&hold.reserved).map(Some),
        Content::Refused { rejection, .. } => text::<Rejection>(rejection).map(Some),
        Content::Tombstone => Ok(None),
    }
}

/// Events with their types, whole; their rows exist.
pub(super) async fn offered(tx: &mut PgConnection, events: &[Event]) -> Written {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|event| event.id.0).collect();
    sqlx::query(
        "UPDATE events e SET version = u.version, title = u.title, starts_at = u.starts_at, ends_at = u.ends_at,
             on_sale = u.on_sale, hold_seconds = u.hold_seconds, max_per_customer = u.max_per_customer,
             cancelled = u.cancelled
         FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[], $7::bigint[],
                     $8::bigint[], $9::boolean[])
              AS u (id, version, title, starts_at, ends_at, on_sale, hold_seconds, max_per_customer, cancelled)
         WHERE e.id = u.id",
    )
    .bind(&ids)
    .bind(events.iter().map(|event| event.version).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.title.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.starts_at.millis()).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.ends_at.millis()).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.on_sale).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.hold_seconds.map(i64::from)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.max_per_customer.map(i64::from)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.cancelled).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    ticket_types(tx, events, &ids).await
}

async fn ticket_types(tx: &mut PgConnection, events: &[Event], ids: &[Uuid]) -> Written {
    let types = || events.iter().flat_map(|event| (0_i32..).zip(&event.types).map(move |(at, kind)| (event, at, kind)));
    let column = |of: fn(&TicketType) -> i64| types().map(|(.., kind)| of(kind)).collect::<Vec<_>>();
    let of: Vec<Uuid> = types().map(|(event, ..)| event.id.0).collect();
    let kinds: Vec<Uuid> = types().map(|(.., kind)| kind.id.0).collect();
    sqlx::query(
        "DELETE FROM ticket_types t WHERE t.event = ANY($1)
         AND NOT EXISTS (SELECT 1 FROM unnest($2::uuid[], $3::uuid[]) AS k (event, id) WHERE k.event = t.event AND k.id = t.id)",
    )
    .bind(ids)
    .bind(&of)
    .bind(&kinds)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO ticket_types (event, id, position, name, price, currency, quantity, available, max_per_order,
                                   numbered, free_from)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::bigint[], $6::text[], $7::bigint[],
                              $8::bigint[], $9::bigint[], $10::boolean[], $11::bigint[])
         ON CONFLICT (event, id) DO UPDATE SET position = excluded.position, name = excluded.name,
             price = excluded.price, currency = excluded.currency, quantity = excluded.quantity,
             available = excluded.available, max_per_order = excluded.max_per_order, numbered = excluded.numbered,
             free_from = excluded.free_from",
    )
    .bind(of)
    .bind(kinds)
    .bind(types().map(|(_, at, _)| at).collect::<Vec<_>>())
    .bind(types().map(|(.., kind)| kind.name.as_str()).collect::<Vec<_>>())
    .bind(column(|kind| kind.price.amount))
    .bind(types().map(|(.., kind)| kind.price.currency.as_str()).collect::<Vec<_>>())
    .bind(column(|kind| i64::from(kind.quantity)))
    .bind(column(|kind| i64::from(kind.available)))
    .bind(types().map(|(.., kind)| kind.max_per_order.map(i64::from)).collect::<Vec<_>>())
    .bind(types().map(|(.., kind)| kind.numbered).collect::<Vec<_>>())
    .bind(column(|kind| i64::from(kind.free_from)))
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn offers(tx: &mut PgConnection, offers: &[OfferRecord], now: Timestamp) -> Written {
    if offers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO offers (saga, step, round, event, version, answer, created_at)
         SELECT n.*, $7 FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::uuid[], $5::bigint[], $6::text[]) AS n",
    )
    .bind(sagas(offers.iter().map(|offer| &offer.key)))
    .bind(steps(offers.iter().map(|offer| &offer.key)))
    .bind(rounds(offers.iter().map(|offer| &offer.key)))
    .bind(offers.iter().map(|offer| offer.event.0).collect::<Vec<_>>())
    .bind(offers.iter().map(|offer| offer.version).collect::<Vec<_>>())
    .bind(offers.iter().map(|offer| text(&offer.answer)).collect::<Result<Vec<_>, _>>()?)
    .bind(now.millis())
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn fences(tx: &mut PgConnection, fences: &[FenceRecord], now: Timestamp) -> Written {
    if fences.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO fences (saga, step, round, id, answer, created_at)
         SELECT n.*, $6 FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::text[]) AS n",
    )
    .bind(sagas(fences.iter().map(|fence| &fence.key)))
    .bind(steps(fences.iter().map(|fence| &fence.key)))
    .bind(rounds(fences.iter().map(|fence| &fence.key)))
    .bind(fences.iter().map(|fence| fence.id.cast_signed()).collect::<Vec<_>>())
    .bind(fences.iter().map(|fence| text(&fence.answer)).collect::<Result<Vec<_>, _>>()?)
    .bind(now.millis())
    .execute(tx)
    .await?;
    Ok(())
}

fn sagas<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Uuid> {
    keys.map(|key| key.saga.0).collect()
}

fn steps<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<&'a str> {
    keys.map(|key| key.step.as_str()).collect()
}

fn rounds<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<i32> {
    keys.map(|key| key.round.cast_signed()).collect()
}

fn text<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
