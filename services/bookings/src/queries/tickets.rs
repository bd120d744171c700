//! Query `tickets`: the tickets of a booking.

use eventicket_contracts::bookings::{TICKETS, TicketsQuery};
use eventicket_nats::QueryServer;

use super::unavailable;
use crate::store::Store;

pub(crate) async fn serve(server: &mut QueryServer, store: Store) -> anyhow::Result<()> {
    let answer = move |query: TicketsQuery| {
        let store = store.clone();
        async move { store.tickets(query.booking, query.customer).await.map_err(unavailable) }
    };
    server.endpoint(TICKETS, answer).await?;
    Ok(())
}
