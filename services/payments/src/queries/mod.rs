//! The queries of the service, one a file.

mod payment;

use eventicket_contracts::subjects::Service;
use eventicket_nats::{Nats, QueryServer};

use crate::store::Store;

/// Announces the queries; they are answered once the server runs.
pub(crate) async fn serve(nats: &Nats, store: Store) -> anyhow::Result<QueryServer> {
    let mut server = QueryServer::start(nats, Service::PAYMENTS.name(), "Charges and refunds").await?;
    payment::serve(&mut server, store).await?;
    Ok(server)
}
