//! Dead letters: the whole message, with why, and when it came first and last.

use async_nats::HeaderMap;
use bytes::Bytes;
use eventicket_contracts::{Clock, Timestamp, subjects};

use crate::publish::{Outgoing, PublishError};
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
    dead_part(nats, service, action, message, message.payload.clone(), reason).await
}

/// Stores a part of a message, as an envelope of one item.
pub(crate) async fn dead_part(
    nats: &Nats,
    service: &str,
    action: &str,
    message: &Message,
    payload: Bytes,
    reason: &str,
) -> Result<(), DeadLetterError> {
    tracing::error!(service, action, reason, "dead letter");
    metrics::counter!("eventicket_dead_letters_total", "service" => service.to_owned()).increment(1);
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
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !action.is_empty() && action.len() <= 64 && action.chars().all(plain) { action } else { "unknown" }
}

fn headers(message: &Message, reason: &str) -> HeaderMap {
    let mut headers = message.headers.clone().unwrap_or_default();
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
