//! Query `bookings`: a customer's bookings, newest first.

use eventicket_contracts::Json;
use eventicket_contracts::sagas::{BOOKING, ListBookings, Page};
use eventicket_nats::QueryError;

use super::{Reader, cut, failed};
use crate::runtime::journal;
use crate::runtime::turn::view;

/// A page of their views.
pub async fn list(reader: Reader, query: ListBookings) -> Result<Page<Json>, QueryError> {
    let limit = query.limit.clamp(1, 100);
    let rows = journal::of_owner(&reader.pool, query.owner, BOOKING, limit + 1, query.before).await;
    let mut rows = rows.map_err(|e| failed(&e))?;
    let next = cut(&mut rows, limit).map(|id| id.0);
    let views = rows.iter().map(|row| view(&reader.catalogue, row));
    Ok(Page { items: views.filter(|view| !view.is_null()).collect(), next })
}
