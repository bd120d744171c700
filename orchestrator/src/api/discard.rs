//! Query `discard`: a dead letter that nobody needs is taken off the list.

use eventicket_contracts::codes;
use eventicket_contracts::sagas::{DeadLetter, HandleDeadLetter};
use eventicket_nats::QueryError;

use super::dead_letters::{failed, shown};
use super::{Reader, failed as unread};
use crate::runtime::journal;

/// `None` where there is none of this number. A saga that has not ended may still need its letter: it is replayed, or the
/// saga is acted upon first. Who discarded what, and why, stands in the log.
pub async fn discard(reader: Reader, query: HandleDeadLetter) -> Result<Option<DeadLetter>, QueryError> {
    let Some(letter) = reader.nats.letter(query.id).await.map_err(|e| failed(&e))? else { return Ok(None) };
    let letter = shown(letter);
    let sagas = journal::load(&reader.pool, &letter.sagas).await.map_err(|e| unread(&e))?;
    if let Some(row) = sagas.iter().find(|row| !row.saga.ended()) {
        return Err(QueryError::new(codes::SAGA_UNFINISHED, format!("its saga {} has not ended", row.id)));
    }
    reader.nats.delete_letter(query.id).await.map_err(|e| failed(&e))?;
    let HandleDeadLetter { id, actor, reason } = query;
    let DeadLetter { subject, reason: dead, .. } = &letter;
    tracing::warn!(id, actor, reason, subject, dead, "a dead letter was discarded");
    Ok(Some(letter))
}
