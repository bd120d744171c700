//! Query `replay`: a dead letter is sent again on the subject that it came on, then taken off the list.

use std::collections::BTreeSet;

use eventicket_contracts::codes;
use eventicket_contracts::envelope::Key;
use eventicket_contracts::sagas::{Act, Action, HandleDeadLetter, Replayed};
use eventicket_nats::QueryError;

use super::dead_letters::{failed, keys, shown};
use super::{Reader, acts};

/// `None` where there is none of this number.
///
/// It is noted in the history of its sagas before it is sent, since what it brings may end them. Whatever fails on the
/// way leaves the letter where it is: sent twice it does no harm.
pub async fn replay(reader: Reader, query: HandleDeadLetter) -> Result<Option<Replayed>, QueryError> {
    let Some(letter) = reader.nats.letter(query.id).await.map_err(|e| failed(&e))? else { return Ok(None) };
    note(&reader, &query, keys(&letter)).await?;
    reader.nats.publish_again(&letter).await.map_err(|error| {
        tracing::warn!(%error, id = query.id, "a dead letter was not sent again");
        QueryError::new(codes::UNAVAILABLE, format!("it could not be sent again on {}", letter.subject))
    })?;
    reader.nats.delete_letter(query.id).await.map_err(|e| failed(&e))?;
    tracing::info!(id = query.id, actor = query.actor, reason = query.reason, "a dead letter was sent again");
    let about = shown(letter);
    Ok(Some(Replayed { id: about.id, subject: about.subject, sagas: about.sagas }))
}

/// Writes actor and reason into each saga's history; one that has ended or is unknown is left out.
async fn note(reader: &Reader, query: &HandleDeadLetter, keys: Vec<Key>) -> Result<(), QueryError> {
    let steps: BTreeSet<_> = keys.into_iter().map(|key| (key.saga, key.step)).collect();
    let act = |(saga, step)| Act {
        saga,
        owner: None,
        actor: query.actor.clone(),
        reason: query.reason.clone(),
        action: Action::Replayed { step },
        trace: None,
    };
    let answers = acts::all(reader, steps.into_iter().map(act).collect()).await;
    match answers.into_iter().find_map(Result::err) {
        None => Ok(()),
        Some(error) => {
            tracing::warn!(%error, id = query.id, "the replay of a dead letter was not noted");
            Err(QueryError::new(codes::UNAVAILABLE, "it could not be noted in the history of its sagas"))
        }
    }
}
