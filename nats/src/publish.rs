//! JetStream publishes: pipelined, each acknowledged, and told apart into stored, certainly not stored, and unknown.

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use eventicket_contracts::envelope::{Envelope, MAX_BYTES, MAX_ITEMS, Reply, VERSION};
use eventicket_contracts::subjects;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::Nats;

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub subject: String,
    /// `Nats-Msg-Id`: the same again within the stream's window is stored once.
    pub id: String,
    /// Further headers.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Bytes,
}

/// Why a publish has no acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It is certainly not stored.
    #[error("refused: {0}")]
    Refused(String),
    /// It may be stored.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl Nats {
    /// Publishes messages one right after the other and waits for all acknowledgements: the sequence each was stored at.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<u64, PublishError>> {
        let mut acks = Vec::with_capacity(messages.len());
        for m in messages {
            let message = PublishMessage::build().payload(m.payload).headers(m.headers).message_id(&m.id);
            acks.push(self.jetstream().send_publish(m.subject, message).await);
        }
        // Side by side: a lost acknowledgement is waited for once, not once for each message.
        let acked = acks.into_iter().map(|ack| async {
            let ack = match ack {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            let ack = ack.map_err(|e| told(&e))?;
            self.note_acknowledged(&ack.stream, ack.sequence);
            Ok(ack.sequence)
        });
        futures::future::join_all(acked).await
    }

    /// Sends replies, each with the subject that it goes to, packed into envelopes. What fails is logged only: the
    /// orchestrator asks again and gets the recorded answer.
    pub async fn send_replies(&self, replies: Vec<(String, Reply)>) {
        let messages = reply_messages(replies);
        for result in self.publish_all(messages).await {
            if let Err(error) = result {
                tracing::warn!(%error, "replies were not sent; the orchestrator asks again");
            }
        }
    }
}

fn told(error: &async_nats::jetstream::context::PublishError) -> PublishError {
    let text = error.to_string();
    match error.kind() {
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => PublishError::Unknown(text),
        // The server has answered with an error, no stream takes the subject, or it never left.
        _ => PublishError::Refused(text),
    }
}

/// Headers of an envelope of commands whose answers go to `reply`.
pub fn command_headers(reply: &str, trace: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(subjects::HEADER_REPLY, reply);
    headers.insert(subjects::HEADER_SCHEMA, VERSION.to_string());
    if let Some(trace) = trace {
        headers.insert(subjects::HEADER_TRACE, trace);
    }
    headers
}

/// Envelopes of at most [`MAX_ITEMS`] and [`MAX_BYTES`], as JSON; `write` appends an item as JSON.
pub(crate) fn envelopes<T>(items: impl IntoIterator<Item = T>, write: impl Fn(&T, &mut Vec<u8>)) -> Vec<Bytes> {
    let head = format!(r#"{{"v":{VERSION},"items":["#).into_bytes();
    let mut out = Vec::new();
    let (mut body, mut count) = (head.clone(), 0);
    for item in items {
        let end = body.len();
        if count > 0 {
            body.push(b',');
        }
        let begin = body.len();
        write(&item, &mut body);
        if count > 0 && (count >= MAX_ITEMS || body.len() > MAX_BYTES) {
            let item = body.split_off(begin);
            body.truncate(end);
            body.extend_from_slice(b"]}");
            out.push(Bytes::from(std::mem::replace(&mut body, head.clone())));
            body.extend_from_slice(&item);
            count = 0;
        }
        count += 1;
    }
    if count > 0 {
        body.extend_from_slice(b"]}");
        out.push(Bytes::from(body));
    }
    out
}

/// Items that are JSON already.
pub(crate) fn written(item: &impl AsRef<[u8]>, body: &mut Vec<u8>) {
    body.extend_from_slice(item.as_ref());
}

/// Replies packed by subject.
pub(crate) fn reply_messages(replies: Vec<(String, Reply)>) -> Vec<Outgoing> {
    let mut by_subject: BTreeMap<String, Vec<Reply>> = BTreeMap::new();
    for (subject, reply) in replies {
        by_subject.entry(subject).or_default().push(reply);
    }
    let mut messages = Vec::new();
    for (subject, replies) in by_subject {
        for payload in envelopes(replies, write) {
            let mut headers = HeaderMap::new();
            headers.insert(subjects::HEADER_SCHEMA, VERSION.to_string());
            let id = uuid::Uuid::new_v4().to_string();
            messages.push(Outgoing { subject: subject.clone(), id, headers, payload });
        }
    }
    messages
}

pub(crate) fn bytes_of(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    write(value, &mut bytes);
    bytes
}

fn write(value: &impl Serialize, bytes: &mut Vec<u8>) {
    let begin = bytes.len();
    // Fails only on a map whose keys are no strings, which no contract has.
    if serde_json::to_writer(&mut *bytes, value).is_err() {
        bytes.truncate(begin);
        bytes.extend_from_slice(b"null");
    }
}

/// An envelope of one item, as JSON.
pub(crate) fn envelope_of(item: &impl Serialize) -> Bytes {
    bytes_of(&Envelope::new(vec![item])).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn envelopes_are_bounded_in_count_and_bytes_and_lose_nothing() {
        let small: Vec<Vec<u8>> = (0..MAX_ITEMS * 2 + 1).map(|n| n.to_string().into_bytes()).collect();
        let packed = envelopes(small, written);
        let sizes: Vec<usize> = packed.iter().map(|p| items(p).len()).collect();
        assert_eq!(sizes, [MAX_ITEMS, MAX_ITEMS, 1]);
        assert_eq!(items(&packed[2])[0], Value::from(MAX_ITEMS * 2));

        let large: Vec<Vec<u8>> = (0..3).map(|_| format!("\"{}\"", "x".repeat(MAX_BYTES / 2)).into_bytes()).collect();
        assert_eq!(envelopes(large, written).len(), 3, "two of them do not fit together");
        assert!(envelopes(Vec::<Vec<u8>>::new(), written).is_empty());
    }

    fn items(payload: &Bytes) -> Vec<Value> {
        let envelope: Envelope<Value> = serde_json::from_slice(payload).unwrap();
        assert_eq!(envelope.v, VERSION);
        envelope.items
    }
}
