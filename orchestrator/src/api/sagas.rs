//! Query `sagas`: sagas by filter, newest first.

use eventicket_contracts::sagas::{ListSagas, Page, SagaSummary};
use eventicket_nats::QueryError;

use super::{Reader, cut, failed, summary};
use crate::runtime::journal;

/// A page of sagas.
pub async fn list(reader: Reader, mut query: ListSagas) -> Result<Page<SagaSummary>, QueryError> {
    let limit = query.limit.clamp(1, 100);
    query.limit = limit + 1;
    let mut rows = journal::list(&reader.pool, &query).await.map_err(|e| failed(&e))?;
    let next = cut(&mut rows, limit).map(|id| id.0);
    Ok(Page { items: rows.iter().map(|r| summary(&reader.catalogue, r)).collect(), next })
}
