//! Query `booking`: one booking, as its customer sees it.

use eventicket_contracts::sagas::{BOOKING, BookingView, GetBooking};
use eventicket_nats::QueryError;
use serde::Deserialize;

use super::{Reader, failed};
use crate::runtime::journal;

/// `None` where there is no such booking, or it is another customer's.
pub async fn get(reader: Reader, query: GetBooking) -> Result<Option<BookingView>, QueryError> {
    let rows = journal::load(&reader.pool, &[query.id]).await.map_err(|e| failed(&e))?;
    let row = rows.into_iter().find(|r| r.saga.definition == BOOKING);
    let row = row.filter(|r| query.owner.is_none() || r.owner == query.owner);
    let view = row.zip(reader.catalogue.kind(BOOKING)).map(|(row, kind)| (kind.view)(&row.view()));
    Ok(view.and_then(|v| BookingView::deserialize(v).ok()))
}
