//! Query `payment`: the charges of a booking.

use eventicket_contracts::payments::{PAYMENT, PaymentQuery};
use eventicket_nats::{QueryError, QueryServer};

use crate::store::Store;

pub(crate) async fn serve(server: &mut QueryServer, store: Store) -> anyhow::Result<()> {
    let answer = move |query: PaymentQuery| {
        let store = store.clone();
        async move {
            store.payments(query.booking).await.map_err(|error| {
                tracing::error!(%error, "payments cannot be read");
                QueryError::new("unavailable", "payments cannot be read")
            })
        }
    };
    server.endpoint(PAYMENT, answer).await?;
    Ok(())
}
