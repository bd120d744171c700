//! What the orchestrator answers: bookings for customers; sagas, breakers and dead letters for operators. One query a file.

pub mod booking;
pub mod bookings;
pub mod breakers;
pub mod bulk;
pub mod dead_letter;
pub mod dead_letters;
pub mod discard;
pub mod history;
pub mod replay;
pub mod saga;
pub mod sagas;
pub mod set_breaker;

mod acts;

use std::sync::Arc;

use eventicket_contracts::sagas as contract;
use eventicket_contracts::sagas::{Attention, SagaSummary};
use eventicket_contracts::{Clock, SagaId, Timestamp, codes, subjects};
use eventicket_nats::{Nats, QueryError, QueryServer};
use sqlx::PgPool;

use crate::runtime::row::Row;
use crate::sagas::Catalogue;

/// What the queries read from.
#[derive(Clone)]
pub struct Reader {
    /// The journal.
    pub pool: PgPool,
    /// For the views.
    pub catalogue: Arc<Catalogue>,
    /// For the dead letters, and for actions.
    pub nats: Nats,
    /// The time.
    pub clock: Clock,
}

/// Name of the orchestrator among the NATS micro services.
pub const SERVICE: &str = "orchestrator";

/// All queries, ready to run.
///
/// # Errors
/// NATS refuses an endpoint.
pub async fn server(nats: &Nats, reader: Reader) -> anyhow::Result<QueryServer> {
    let mut server = QueryServer::start(nats, SERVICE, "Sagas: bookings, their state and history").await?;
    let r = reader.clone();
    server.endpoint(contract::GET_BOOKINGS, move |q| booking::get(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::LIST_BOOKINGS, move |q| bookings::list(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::LIST_SAGAS, move |q| sagas::list(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::GET_SAGA, move |q| saga::get(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::HISTORY, move |q| history::get(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::BULK, move |q| bulk::act(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::BREAKERS, move |(): ()| breakers::list(r.clone())).await?;
    let r = reader.clone();
    server.endpoint(contract::SET_BREAKER, move |q| set_breaker::set(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::DEAD_LETTERS, move |q| dead_letters::list(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::DEAD_LETTER, move |q| dead_letter::get(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::REPLAY, move |q| replay::replay(r.clone(), q)).await?;
    server.endpoint(contract::DISCARD, move |q| discard::discard(reader.clone(), q)).await?;
    tracing::debug!(subject = subjects::query(SERVICE, "*"), "queries are answered");
    Ok(server)
}

fn failed(error: &sqlx::Error) -> QueryError {
    tracing::warn!(%error, "a query failed");
    QueryError::new(codes::UNAVAILABLE, "the journal cannot be read now")
}

/// Leaves a page of rows that were read one beyond its limit; the last one's id where more follow.
fn cut(rows: &mut Vec<Row>, limit: u32) -> Option<SagaId> {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    rows.last().filter(|_| more).map(|row| row.id)
}

fn summary(catalogue: &Catalogue, row: &Row) -> SagaSummary {
    let definition = catalogue.registry.get(&row.saga.definition, row.saga.version);
    SagaSummary {
        id: row.id,
        kind: row.saga.definition.clone(),
        definition_version: row.saga.version,
        state: row.saga.state().name().to_owned(),
        step: definition.filter(|_| !row.saga.ended()).and_then(|d| row.step(d)).map(str::to_owned),
        status: catalogue.kind(&row.saga.definition).map_or("", |k| (k.status)(&row.saga)).to_owned(),
        attention: row
            .saga
            .attention
            .iter()
            .map(|a| Attention { step: a.step.clone(), reason: a.reason.clone() })
            .collect(),
        event_id: row.event,
        user_id: row.owner,
        started_at: Timestamp(row.saga.started_at),
        updated_at: row.updated_at,
        trace_id: row.trace.as_deref().and_then(trace_id),
        version: row.version,
    }
}

/// The trace id of a W3C `traceparent`.
fn trace_id(traceparent: &str) -> Option<String> {
    traceparent.split('-').nth(1).map(str::to_owned)
}
