//! What the orchestrator answers: bookings for customers, sagas and their history for operators. One query a file.

pub mod booking;
pub mod bookings;
pub mod history;
pub mod saga;
pub mod sagas;

use std::sync::Arc;

use eventicket_contracts::sagas as contract;
use eventicket_contracts::sagas::{Attention, SagaSummary};
use eventicket_contracts::{Timestamp, subjects};
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
    server.endpoint(contract::GET_BOOKING, move |q| booking::get(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::LIST_BOOKINGS, move |q| bookings::list(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::LIST_SAGAS, move |q| sagas::list(r.clone(), q)).await?;
    let r = reader.clone();
    server.endpoint(contract::GET_SAGA, move |q| saga::get(r.clone(), q)).await?;
    server.endpoint(contract::HISTORY, move |q| history::get(reader.clone(), q)).await?;
    tracing::debug!(subject = subjects::query(SERVICE, "*"), "queries are answered");
    Ok(server)
}

fn failed(error: &sqlx::Error) -> QueryError {
    tracing::warn!(%error, "a query failed");
    QueryError { code: "unavailable".into(), message: "the journal cannot be read now".into(), details: None }
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
