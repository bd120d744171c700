//! Query `sagas`: sagas by filter, newest first.

use eventicket_contracts::sagas::{ListSagas, Page, SagaSummary};
use eventicket_nats::QueryError;

use super::{Reader, failed, summary};
use crate::runtime::journal;

/// A page of sagas.
pub async fn list(reader: Reader, mut query: ListSagas) -> Result<Page<SagaSummary>, QueryError> {
    let limit = query.limit.clamp(1, 100);
    query.limit = limit + 1;
    let mut rows = journal::list(&reader.pool, &query).await.map_err(|e| failed(&e))?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|r| r.id.0);
    Ok(Page { items: rows.iter().map(|r| summary(&reader.catalogue, r)).collect(), next })
}
