//! Dead letters: the whole message, with why, and when it came first and last. They are written here, read, sent again.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetError, DirectGetErrorKind, Stream};
use bytes::Bytes;
use eventicket_contracts::{Clock, Timestamp, subjects};
use serde::Serialize;

use crate::publish::{Outgoing, PublishError, envelope_of};
use crate::{Message, Nats};

/// A dead letter was not stored.
#[derive(Debug, thiserror::Error)]
#[error("the dead letter was not stored")]
pub struct DeadLetterError(#[source] PublishError);

/// Longest reason in a header, in bytes.
const REASON: usize = 512;

/// Stores a whole message among the dead letters.
///
/// # Errors
/// It was not stored; the message must not be acknowledged.
pub async fn dead_letter(
    nats: &Nats,
    service: &str,
    action: &str,
    message: &Message,
    reason: &str,
) -> Result<(), DeadLetterError> {
    store(nats, service, action, message, message.payload.clone(), reason).await
}

/// Stores one item of a message, as an envelope of its own.
///
/// # Errors
/// As [`dead_letter`].
pub async fn dead_item(
    nats: &Nats,
    service: &str,
    action: &str,
    message: &Message,
    item: &impl Serialize,
    reason: &str,
) -> Result<(), DeadLetterError> {
    store(nats, service, action, message, envelope_of(item), reason).await
}

async fn store(
    nats: &Nats,
    service: &str,
    action: &str,
    message: &Message,
    payload: Bytes,
    reason: &str,
) -> Result<(), DeadLetterError> {
    tracing::error!(service, action, reason, "dead letter");
    metrics::counter!(eventicket_contracts::metrics::DEAD_LETTERS, "service" => service.to_owned()).increment(1);
    let outgoing = Outgoing {
        subject: subjects::dead_letter(service, token(action)),
        id: uuid::Uuid::new_v4().to_string(),
        headers: headers(message, reason),
        payload,
    };
    match nats.publish_all(vec![outgoing]).await.pop() {
        Some(Err(error)) => Err(DeadLetterError(error)),
        _ => Ok(()),
    }
}

/// An action as it may stand in a subject.
fn token(action: &str) -> &str {
    if is_token(action) { action } else { "unknown" }
}

fn is_token(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

fn headers(message: &Message, reason: &str) -> HeaderMap {
    let mut headers = message.headers.as_ref().map(original).unwrap_or_default();
    let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=reason.len().min(REASON)).rev().find(|&n| reason.is_char_boundary(n)).unwrap_or(0);
    headers.insert(subjects::HEADER_REASON, &reason[..end]);
    headers.insert(subjects::HEADER_SUBJECT, message.subject.as_str());
    let now = Clock::system().now();
    let (first, deliveries) = match message.info() {
        Ok(info) => {
            let millis = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(now.millis());
            (Timestamp(millis), info.delivered)
        }
        Err(_) => (now, 1),
    };
    headers.insert(subjects::HEADER_FIRST, first.to_string());
    headers.insert(subjects::HEADER_LAST, now.to_string());
    headers.insert(subjects::HEADER_DELIVERIES, deliveries.to_string());
    headers
}

/// A dead letter as it is stored.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its number in the stream of dead letters.
    pub id: u64,
    /// The service that could not handle it.
    pub service: String,
    /// The action.
    pub action: String,
    /// Why.
    pub reason: String,
    /// The subject that it came on.
    pub subject: String,
    /// When it was delivered first.
    pub first_delivery: Timestamp,
    /// When it was given up.
    pub last_delivery: Timestamp,
    /// How often it was delivered.
    pub deliveries: u64,
    /// The message, or the item of it, as it came.
    pub payload: Bytes,
    headers: HeaderMap,
}

/// The dead letters cannot be read, or one cannot be taken off.
#[derive(Debug, thiserror::Error)]
#[error("the stream of dead letters: {0}")]
pub struct LettersError(String);

impl Nats {
    /// Dead letters with a higher number than `after`, oldest first: at most `most`, and of one service or action where
    /// these are given.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn dead_letters(
        &self,
        service: Option<&str>,
        action: Option<&str>,
        after: Option<u64>,
        most: usize,
    ) -> Result<Vec<Letter>, LettersError> {
        if ![service, action].into_iter().flatten().all(is_token) {
            return Ok(Vec::new()); // no letter has such a name
        }
        let filter = subjects::dead_letter(service.unwrap_or("*"), action.unwrap_or("*"));
        let (stream, mut next) = (self.dead_letter_stream().await?, after.map_or(1, |n| n.saturating_add(1)));
        let mut letters = Vec::new();
        while letters.len() < most {
            let got = stream.direct_get_builder().next_by_subject(&filter).sequence(next).send().await;
            let Some(letter) = found(got)? else { break };
            next = letter.id.saturating_add(1);
            letters.push(letter);
        }
        Ok(letters)
    }

    /// One dead letter; `None` where there is none of this number.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn letter(&self, id: u64) -> Result<Option<Letter>, LettersError> {
        let stream = self.dead_letter_stream().await?;
        found(stream.direct_get_builder().sequence(id).send().await)
    }

    /// Publishes a dead letter on the subject that it came on, with a message id of its own.
    ///
    /// # Errors
    /// No stream takes it, or there is no answer.
    pub async fn publish_again(&self, letter: &Letter) -> Result<(), PublishError> {
        let id = uuid::Uuid::new_v4().to_string();
        let (subject, payload) = (letter.subject.clone(), letter.payload.clone());
        let again = Outgoing { subject, id, headers: original(&letter.headers), payload };
        self.publish_all(vec![again]).await.pop().map_or(Ok(()), |stored| stored.map(drop))
    }

    /// Takes a dead letter off the list.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn delete_letter(&self, id: u64) -> Result<(), LettersError> {
        let stream = self.dead_letter_stream().await?;
        if let Err(error) = stream.delete_message(id).await {
            // Another one may have been faster.
            if self.letter(id).await?.is_some() {
                return Err(LettersError(error.to_string()));
            }
        }
        Ok(())
    }

    async fn dead_letter_stream(&self) -> Result<Stream<()>, LettersError> {
        let stream = self.jetstream().get_stream_no_info(subjects::DEADLETTERS_STREAM).await;
        stream.map_err(|error| LettersError(error.to_string()))
    }
}

fn found(got: Result<StreamMessage, DirectGetError>) -> Result<Option<Letter>, LettersError> {
    match got {
        Ok(message) => Ok(Some(letter(message))),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(LettersError(error.to_string())),
    }
}

fn letter(message: StreamMessage) -> Letter {
    let header = |name: &str| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
    let stored = Timestamp(i64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default());
    let mut names = message.subject.split('.').skip(1).map(str::to_owned);
    let (service, action) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    Letter {
        id: message.sequence,
        service,
        action,
        reason: header(subjects::HEADER_REASON),
        subject: header(subjects::HEADER_SUBJECT),
        first_delivery: header(subjects::HEADER_FIRST).parse().unwrap_or(stored),
        last_delivery: header(subjects::HEADER_LAST).parse().unwrap_or(stored),
        deliveries: header(subjects::HEADER_DELIVERIES).parse().unwrap_or(1),
        payload: message.payload,
        headers: message.headers,
    }
}

/// The headers that the message came with; what the broker and the dead letter added is left out.
fn original(headers: &HeaderMap) -> HeaderMap {
    let added = [
        subjects::HEADER_REASON,
        subjects::HEADER_SUBJECT,
        subjects::HEADER_FIRST,
        subjects::HEADER_LAST,
        subjects::HEADER_DELIVERIES,
    ];
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter() {
        let text: &str = name.as_ref();
        if !text.starts_with("Nats-") && !added.contains(&text) {
            values.iter().for_each(|value| kept.append(name.clone(), value.clone()));
        }
    }
    kept
}
