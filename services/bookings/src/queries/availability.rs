//! Query `availability`: what is left of an event.

use eventicket_contracts::bookings::{AVAILABILITY, AvailabilityQuery};
use eventicket_nats::QueryServer;

use super::unavailable;
use crate::store::Store;

pub(crate) async fn serve(server: &mut QueryServer, store: Store) -> anyhow::Result<()> {
    let answer = move |query: AvailabilityQuery| {
        let store = store.clone();
        async move { store.availability(query.event).await.map_err(unavailable) }
    };
    server.endpoint(AVAILABILITY, answer).await?;
    Ok(())
}
