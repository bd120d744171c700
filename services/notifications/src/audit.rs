//! What an audit reads of the service.

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::Key;
use sqlx::PgPool;

/// A delivery and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The round that asked for it.
    pub key: Key,
    /// `due`, `sent`, `failed` or `refused`.
    pub state: String,
}

/// The deliveries of these sagas, in no order.
///
/// # Errors
/// The database cannot be read.
pub async fn deliveries(pool: &PgPool, sagas: &[SagaId]) -> Result<Vec<Recorded>, sqlx::Error> {
    crate::store::of_sagas(pool, sagas).await
}
