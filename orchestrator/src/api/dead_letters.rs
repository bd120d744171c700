//! Query `dead_letters`: messages that could not be handled, oldest first.

use std::collections::BTreeSet;

use eventicket_contracts::envelope::{Envelope, Key};
use eventicket_contracts::sagas::{DeadLetter, DeadLetterPage, ListDeadLetters};
use eventicket_contracts::{SagaId, codes};
use eventicket_nats::{Letter, LettersError, QueryError};
use serde::Deserialize;

use super::Reader;

/// Most sagas that a page's letters are about: an answer must fit a message of the broker.
const MAX_SAGAS: usize = 8_192;

/// A page of dead letters.
pub async fn list(reader: Reader, query: ListDeadLetters) -> Result<DeadLetterPage, QueryError> {
    let limit = query.limit.clamp(1, 100) as usize;
    let (service, action) = (query.service.as_deref(), query.action.as_deref());
    let letters = reader.nats.dead_letters(service, action, query.after, limit + 1).await.map_err(|e| failed(&e))?;
    let read = letters.len();
    let (mut items, mut sagas) = (Vec::new(), 0);
    for letter in letters.into_iter().take(limit) {
        let item = shown(letter);
        sagas += item.sagas.len();
        items.push(item);
        if sagas > MAX_SAGAS {
            break;
        }
    }
    let next = items.last().filter(|_| items.len() < read).map(|last| last.id);
    Ok(DeadLetterPage { items, next })
}

pub(super) fn failed(error: &LettersError) -> QueryError {
    tracing::warn!(%error, "dead letters cannot be read");
    QueryError::new(codes::UNAVAILABLE, "the dead letters cannot be read now")
}

pub(super) fn shown(letter: Letter) -> DeadLetter {
    let sagas: BTreeSet<SagaId> = keys(&letter).into_iter().map(|key| key.saga).collect();
    DeadLetter {
        id: letter.id,
        service: letter.service,
        action: letter.action,
        reason: letter.reason,
        subject: letter.subject,
        sagas: sagas.into_iter().collect(),
        first_delivery: letter.first_delivery,
        last_delivery: letter.last_delivery,
        deliveries: letter.deliveries,
    }
}

/// An item of commands or of replies.
#[derive(Deserialize)]
struct Keyed {
    key: Key,
}

/// The rounds that a letter is about; none where it holds no envelope that can be read.
pub(super) fn keys(letter: &Letter) -> Vec<Key> {
    let envelope = serde_json::from_slice::<Envelope<Keyed>>(&letter.payload);
    envelope.map(|e| e.items.into_iter().map(|item| item.key).collect()).unwrap_or_default()
}
