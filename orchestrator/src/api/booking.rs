//! Query `bookings_by_id`: bookings, as their customers see them.

use std::collections::HashMap;

use eventicket_contracts::sagas::{BOOKING, GetBooking};
use eventicket_contracts::{Json, SagaId};
use eventicket_nats::QueryError;

use super::{Reader, failed};
use crate::runtime::journal;
use crate::runtime::row::Row;
use crate::runtime::turn::view;

/// Most bookings of one answer.
const MOST: usize = 256;
/// Bytes behind which an answer ends: it must fit a message of the broker.
const ENOUGH: usize = 384 * 1024;

/// `None` where there is no such booking, or it is another customer's.
pub async fn get(reader: Reader, mut queries: Vec<GetBooking>) -> Result<Vec<Option<Json>>, QueryError> {
    queries.truncate(MOST);
    let ids: Vec<SagaId> = queries.iter().map(|query| query.id).collect();
    let rows = journal::load(&reader.pool, &ids).await.map_err(|e| failed(&e))?;
    let rows: HashMap<SagaId, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
    let (mut answers, mut bytes) = (Vec::with_capacity(queries.len()), 0);
    for query in &queries {
        let is_theirs = |row: &&Row| query.owner.is_none() || row.owner == query.owner;
        let row = rows.get(&query.id).filter(|row| row.saga.definition == BOOKING).filter(is_theirs);
        let answer = row.map(|row| view(&reader.catalogue, row));
        bytes += answer.as_ref().map_or(4, |answer| answer.text().len());
        answers.push(answer);
        if bytes > ENOUGH {
            break;
        }
    }
    Ok(answers)
}
