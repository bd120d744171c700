//! The queries of the service, one a file.

mod cancel;
mod change;
mod create;
mod delete;
mod event;
mod list;
mod publish;
mod stop;
mod update;

use std::sync::Arc;

use eventicket_contracts::codes;
use eventicket_contracts::events as names;
use eventicket_contracts::subjects::Service;
use eventicket_nats::{Nats, QueryError, QueryServer};
use serde_json::json;

use crate::Events;
use crate::lifecycle::Refusal;

/// Announces the queries; they are answered once the server runs.
pub(crate) async fn serve(nats: &Nats, events: &Arc<Events>) -> anyhow::Result<QueryServer> {
    let mut server = QueryServer::start(nats, Service::EVENTS.name(), "Events and their ticket types").await?;
    let service = events.clone();
    server.endpoint(names::CREATE, move |query| create::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::GET, move |query| event::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::LIST, move |query| list::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::UPDATE, move |query| update::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::DELETE, move |query| delete::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::PUBLISH, move |query| publish::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::STOP, move |query| stop::answer(service.clone(), query)).await?;
    let service = events.clone();
    server.endpoint(names::CANCEL, move |query| cancel::answer(service.clone(), query)).await?;
    Ok(server)
}

/// What went wrong goes to the log, where it was; the asker learns only that it did.
fn unavailable(error: sqlx::Error) -> QueryError {
    tracing::error!(%error, "a query of events cannot be answered");
    QueryError::new(codes::UNAVAILABLE, "events cannot be reached now")
}

fn refused(refusal: Refusal) -> QueryError {
    let error = QueryError::new(refusal.code(), refusal.to_string());
    match refusal {
        Refusal::Invalid(errors) => QueryError { details: Some(json!(errors)), ..error },
        _ => error,
    }
}
