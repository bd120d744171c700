//! Plans of seats, and who has which. The capacity locks of their events are held by whoever is here.
//!
//! Seats are looked up one by one, in subqueries of which a planner cannot make a join: a join's plan that was made while
//! the table was nearly empty reads it whole for each row, and is kept while the table grows.

use eventicket_contracts::envelope::Key;
use eventicket_contracts::{EventId, SagaId, TicketTypeId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::allocation::Books;
use crate::needs::{Free, Needs};
use crate::seats::{Seat, SeatChange};

type Done = Result<(), sqlx::Error>;
type Change = (EventId, String, SeatChange);

/// Free seats that are read of a type beyond those that are taken, to find neighbours among.
const CHOICE: i64 = 64;

/// Adds the seats that a batch needs to its books.
pub(super) async fn supply(tx: &mut PgConnection, books: &mut Books, needs: &Needs) -> Done {
    if !needs.plans.is_empty() {
        plans(tx, books, needs).await?;
    }
    let (events, labels): (Vec<Uuid>, Vec<&str>) = needs.seats().map(|(event, label)| (event.0, label)).unzip();
    if !events.is_empty() {
        by_label(tx, books, &events, &labels).await?;
    }
    let free: Vec<Free> = needs.free().collect();
    if !free.is_empty() {
        first_free(tx, books, &free).await?;
    }
    Ok(())
}

async fn plans(tx: &mut PgConnection, books: &mut Books, needs: &Needs) -> Done {
    let found = sqlx::query(
        "SELECT s.event, s.label, s.ticket_type, s.position, t.saga, t.step, t.round
         FROM seats s LEFT JOIN LATERAL (
             SELECT saga, step, round FROM taken_seats WHERE event = s.event AND seat = s.label LIMIT 1) AS t ON true
         WHERE s.event = ANY($1)",
    )
    .bind(needs.plans.iter().map(|event| event.0).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    found.iter().try_for_each(|row| add(books, row))
}

async fn by_label(tx: &mut PgConnection, books: &mut Books, events: &[Uuid], labels: &[&str]) -> Done {
    let found = sqlx::query(
        "SELECT n.event, n.label, s.ticket_type, s.position, t.saga, t.step, t.round
         FROM unnest($1::uuid[], $2::text[]) AS n (event, label)
         CROSS JOIN LATERAL (
             SELECT ticket_type, position FROM seats WHERE event = n.event AND label = n.label LIMIT 1) AS s
         LEFT JOIN LATERAL (
             SELECT saga, step, round FROM taken_seats WHERE event = n.event AND seat = n.label LIMIT 1) AS t ON true",
    )
    .bind(events)
    .bind(labels)
    .fetch_all(tx)
    .await?;
    found.iter().try_for_each(|row| add(books, row))
}

async fn first_free(tx: &mut PgConnection, books: &mut Books, wanted: &[Free]) -> Done {
    let found = sqlx::query(
        "SELECT f.*, NULL::uuid AS saga
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) AS n (event, ticket_type, first, number)
         CROSS JOIN LATERAL (
             SELECT s.event, s.label, s.ticket_type, s.position FROM seats s
             WHERE s.event = n.event AND s.ticket_type = n.ticket_type AND s.position >= n.first
             AND (SELECT saga FROM taken_seats WHERE event = s.event AND seat = s.label) IS NULL
             ORDER BY s.position LIMIT n.number) AS f",
    )
    .bind(wanted.iter().map(|free| free.event.0).collect::<Vec<_>>())
    .bind(wanted.iter().map(|free| free.kind.0).collect::<Vec<_>>())
    .bind(wanted.iter().map(|free| i64::from(free.from)).collect::<Vec<_>>())
    .bind(wanted.iter().map(|free| i64::from(free.number) + CHOICE).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    for row in &found {
        add(books, row)?;
        let (event, kind) = (EventId(row.try_get("event")?), TicketTypeId(row.try_get("ticket_type")?));
        books.read_to(event, kind, row.try_get::<i32, _>("position")?.cast_unsigned());
    }
    Ok(())
}

fn add(books: &mut Books, row: &PgRow) -> Done {
    let holder = match row.try_get::<Option<Uuid>, _>("saga")? {
        Some(saga) => {
            let round = row.try_get::<i32, _>("round")?.cast_unsigned();
            Some(Key { saga: SagaId(saga), step: row.try_get("step")?, round })
        }
        None => None,
    };
    let position = row.try_get::<i32, _>("position")?.cast_unsigned();
    let seat = Seat { kind: TicketTypeId(row.try_get("ticket_type")?), position, holder };
    books.add_seat(EventId(row.try_get("event")?), row.try_get("label")?, seat);
    Ok(())
}

/// Writes what became of seats. What is given back goes first: it may be taken again in the same batch. Nobody else
/// changes these rows meanwhile, so that they can be found by where they are.
pub(super) async fn write(tx: &mut PgConnection, changes: &[Change]) -> Done {
    if changes.is_empty() {
        return Ok(());
    }
    given_back(tx, changes).await?;
    taken(tx, changes).await?;
    removed(tx, changes).await?;
    placed(tx, changes).await
}

async fn given_back(tx: &mut PgConnection, changes: &[Change]) -> Done {
    delete(
        tx,
        "DELETE FROM taken_seats WHERE ctid = ANY(ARRAY(
             SELECT t.at FROM unnest($1::uuid[], $2::text[]) AS g (event, seat) CROSS JOIN LATERAL (
                 SELECT ctid AS at FROM taken_seats WHERE event = g.event AND seat = g.seat LIMIT 1) AS t))",
        columns(changes, |change| change.given_back),
    )
    .await
}

async fn delete(tx: &mut PgConnection, statement: &'static str, (events, labels): (Vec<Uuid>, Vec<&str>)) -> Done {
    if !events.is_empty() {
        sqlx::query(statement).bind(events).bind(labels).execute(tx).await?;
    }
    Ok(())
}

async fn taken(tx: &mut PgConnection, changes: &[Change]) -> Done {
    let (events, labels) = columns(changes, |change| change.taken.is_some());
    if events.is_empty() {
        return Ok(());
    }
    let holders = || changes.iter().filter_map(|(.., change)| change.taken.as_ref());
    sqlx::query(
        "INSERT INTO taken_seats (event, seat, saga, step, round)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::integer[])",
    )
    .bind(events)
    .bind(labels)
    .bind(holders().map(|key| key.saga.0).collect::<Vec<_>>())
    .bind(holders().map(|key| key.step.as_str()).collect::<Vec<_>>())
    .bind(holders().map(|key| key.round.cast_signed()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn removed(tx: &mut PgConnection, changes: &[Change]) -> Done {
    delete(
        tx,
        "DELETE FROM seats WHERE ctid = ANY(ARRAY(
             SELECT s.at FROM unnest($1::uuid[], $2::text[]) AS r (event, label) CROSS JOIN LATERAL (
                 SELECT ctid AS at FROM seats WHERE event = r.event AND label = r.label LIMIT 1) AS s))",
        columns(changes, |change| change.removed),
    )
    .await
}

async fn placed(tx: &mut PgConnection, changes: &[Change]) -> Done {
    let (events, labels) = columns(changes, |change| change.placed.is_some());
    if events.is_empty() {
        return Ok(());
    }
    let places = || changes.iter().filter_map(|(.., change)| change.placed);
    sqlx::query(
        "INSERT INTO seats (event, label, ticket_type, position)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[])
         ON CONFLICT (event, label) DO UPDATE SET ticket_type = excluded.ticket_type, position = excluded.position",
    )
    .bind(events)
    .bind(labels)
    .bind(places().map(|(kind, _)| kind.0).collect::<Vec<_>>())
    .bind(places().map(|(_, position)| position.cast_signed()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Events and labels of the seats that changed in this way.
fn columns(changes: &[Change], way: impl Fn(&SeatChange) -> bool) -> (Vec<Uuid>, Vec<&str>) {
    let those = changes.iter().filter(|(.., change)| way(change));
    those.map(|(event, label, _)| (event.0, label.as_str())).unzip()
}
