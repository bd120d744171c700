//! The queries of the service, one a file.

mod availability;
mod tickets;

use eventicket_contracts::codes;
use eventicket_contracts::subjects::Service;
use eventicket_nats::{Nats, QueryError, QueryServer};

use crate::store::Store;

/// Announces the queries; they are answered once the server runs.
pub(crate) async fn serve(nats: &Nats, store: Store) -> anyhow::Result<QueryServer> {
    let mut server = QueryServer::start(nats, Service::BOOKINGS.name(), "Tickets, and what is left of events").await?;
    tickets::serve(&mut server, store.clone()).await?;
    availability::serve(&mut server, store).await?;
    Ok(server)
}

fn unavailable(error: sqlx::Error) -> QueryError {
    tracing::warn!(%error, "a query cannot be answered now");
    QueryError::new(codes::UNAVAILABLE, "bookings cannot be read now")
}
