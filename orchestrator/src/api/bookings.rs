//! Query `bookings`: a customer's bookings, newest first.

use eventicket_contracts::sagas::{BOOKING, BookingView, ListBookings, Page};
use eventicket_nats::QueryError;

use super::{Reader, cut, failed};
use crate::runtime::journal;

/// A page of bookings.
pub async fn list(reader: Reader, query: ListBookings) -> Result<Page<BookingView>, QueryError> {
    let limit = query.limit.clamp(1, 100);
    let rows = journal::of_owner(&reader.pool, query.owner, BOOKING, limit + 1, query.before).await;
    let mut rows = rows.map_err(|e| failed(&e))?;
    let next = cut(&mut rows, limit).map(|id| id.0);
    let kind = reader.catalogue.kind(BOOKING);
    let views = rows.iter().filter_map(|row| kind.map(|k| (k.view)(&row.view())));
    Ok(Page { items: views.filter_map(|v| v.read::<BookingView>().ok()).collect(), next })
}
