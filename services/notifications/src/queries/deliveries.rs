//! Query `deliveries`: what was sent about a booking.

use eventicket_contracts::notifications::{DELIVERIES, DeliveriesQuery};
use eventicket_nats::{QueryError, QueryServer};

use crate::store::Store;

pub(crate) async fn serve(server: &mut QueryServer, store: Store) -> anyhow::Result<()> {
    let answer = move |query: DeliveriesQuery| {
        let store = store.clone();
        async move {
            store.deliveries(query.booking).await.map_err(|error| {
                tracing::error!(%error, "deliveries cannot be read");
                QueryError { code: "unavailable".into(), message: "deliveries cannot be read".into(), details: None }
            })
        }
    };
    server.endpoint(DELIVERIES, answer).await?;
    Ok(())
}
