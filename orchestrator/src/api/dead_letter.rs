//! Query `dead_letter`: one message that could not be handled, with its content.

use eventicket_contracts::sagas::DeadLetterDetail;
use eventicket_nats::QueryError;

use super::Reader;
use super::dead_letters::{failed, shown};

/// Most bytes of a content that is shown: an answer must fit a message of the broker.
const MAX_SHOWN: usize = 256 * 1024;

/// `None` where there is none of this number.
pub async fn get(reader: Reader, id: u64) -> Result<Option<DeadLetterDetail>, QueryError> {
    let letter = reader.nats.letter(id).await.map_err(|e| failed(&e))?;
    Ok(letter.map(|letter| {
        let mut payload = String::from_utf8_lossy(&letter.payload).into_owned();
        if payload.len() > MAX_SHOWN {
            payload.truncate((0..=MAX_SHOWN).rev().find(|&at| payload.is_char_boundary(at)).unwrap_or(0));
            payload.push('…');
        }
        DeadLetterDetail { letter: shown(letter), payload }
    }))
}
