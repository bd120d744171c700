//! The message on the wire: an array of commands, or of replies, for one service, action and shard.
//!
//! An envelope is bounded by [`MAX_ITEMS`] and [`MAX_BYTES`]; a single command travels in an envelope of one. The item's
//! key, never the message's id, makes its effect idempotent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Json;
use crate::ids::SagaId;
use crate::time::Timestamp;

/// The version of the envelope that this build writes and reads.
pub const VERSION: u8 = 1;
/// Most items of one envelope.
pub const MAX_ITEMS: usize = 256;
/// Most bytes of one envelope's items; a single larger item still travels alone.
pub const MAX_BYTES: usize = 256 * 1024;
/// What an envelope has around its items, in bytes at most.
const FRAME: usize = 1024;

/// Names a round of a saga's step: `<saga>:<step>:<round>`. A round has a do and an undo.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The saga.
    pub saga: SagaId,
    /// The step's name in its definition, as `PAY`.
    pub step: String,
    /// 1 for the first round.
    pub round: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.saga, self.step, self.round)
    }
}

/// A text that is not `<saga>:<step>:<round>`.
#[derive(Debug, thiserror::Error)]
#[error("a key is <saga>:<step>:<round>")]
pub struct BadKey;

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(s: &str) -> Result<Self, BadKey> {
        let mut parts = s.splitn(3, ':');
        let mut next = || parts.next().ok_or(BadKey);
        let saga = next()?.parse().map_err(|_| BadKey)?;
        let step = next()?;
        let round = next()?.parse().map_err(|_| BadKey)?;
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        if step.is_empty() || step.len() > 64 || !step.bytes().all(plain) {
            return Err(BadKey);
        }
        Ok(Self { saga, step: step.to_owned(), round })
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which half of a round a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// The effect.
    Do,
    /// Its compensation, which may overtake it.
    Undo,
    /// Closes the round for an operator; the body is a [`Fence`], the output a [`Fenced`].
    Fence,
}

/// Body of `<service>.fence`: whatever of the round has not begun is closed, so that a late or replayed command of it is
/// refused; what has is told. One that is under way is closed, too: what it still brings is given back. Answer: [`Fenced`]
/// as soon as both ends are known; a repeat of the same fence gets the same answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fence {
    /// Numbers the fences of a round, from 1; a later one asks anew.
    pub id: u32,
    /// The action of the round's do, as `charge`.
    pub action: String,
    /// Closes and tells the undo, too.
    #[serde(default)]
    pub undo: bool,
    /// The body of the round's do; null where it cannot be built.
    #[serde(default)]
    pub body: Json,
}

/// What a fence found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fenced {
    /// The fence's.
    pub id: u32,
    /// Of the do.
    pub effect: Recorded,
    /// Of the undo, where the fence asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Recorded>,
}

/// What is recorded of one half of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// It happened, with this output.
    Done(Json),
    /// It was refused for good.
    Rejected(Rejection),
    /// It had not happened, and will not: the fence, or an undo before it, closed it.
    Closed,
}

/// One command in an envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The round it belongs to.
    pub key: Key,
    /// Do or undo.
    pub half: Half,
    /// Labels this sending; an answer to any attempt answers the round.
    pub attempt: u32,
    /// Past this point the command is answered `expired` and not carried out. Undos and the point of no return have none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::time::millis_option")]
    pub deadline: Option<Timestamp>,
    /// W3C `traceparent` of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The action's own body.
    #[serde(deserialize_with = "Json::of_any_depth")]
    pub body: Json,
}

/// What a service answers to one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It happened; final.
    Done(Json),
    /// It did not and will not happen; final.
    Rejected(Rejection),
    /// Under way; its end comes as another reply with the same key. Spends no attempt.
    Pending(Json),
    /// Nothing was recorded, send it again.
    Retry(String),
    /// This sending came past its deadline; says nothing about the round.
    Expired,
    /// It was dead-lettered, with this reason; it is not sent again.
    Dead(String),
}

impl Answer {
    /// `Done` with the given output.
    pub fn done(output: impl Serialize) -> Self {
        Self::Done(Json::of(&output).unwrap_or_default())
    }

    /// `Rejected` with a code of [`crate::codes`].
    pub fn rejected(code: &str, message: impl Into<String>) -> Self {
        Self::Rejected(Rejection { code: code.to_owned(), message: message.into() })
    }

    /// Whether it ends the half of the round it answers.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Rejected(_) | Self::Dead(_))
    }
}

/// A definite no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// A stable code of [`crate::codes`].
    pub code: String,
    /// For people; holds no secret and no personal data.
    pub message: String,
}

/// One reply in an envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The round that is answered.
    pub key: Key,
    /// Do or undo.
    pub half: Half,
    /// The attempt that is answered, for the history.
    pub attempt: u32,
    /// The answer.
    pub answer: Answer,
    /// W3C `traceparent` of the service's span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// An envelope of commands ([`Item`]), of replies ([`Reply`]) or of [`DomainEvent`]s.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`VERSION`].
    pub v: u8,
    /// At most [`MAX_ITEMS`].
    pub items: Vec<T>,
}

impl<T> Envelope<T> {
    /// An envelope of this build's version.
    pub fn new(items: Vec<T>) -> Self {
        Self { v: VERSION, items }
    }

    /// Why nobody takes an envelope that came in so many bytes; `None` where it is as it should be.
    pub fn flaw(&self, bytes: usize) -> Option<String> {
        let (v, items) = (self.v, self.items.len());
        if v != VERSION {
            Some(format!("envelope version {v} is not known"))
        } else if items > MAX_ITEMS {
            Some(format!("an envelope of {items} items is too large: it may have {MAX_ITEMS}"))
        } else if items > 1 && bytes > MAX_BYTES + FRAME {
            Some(format!("an envelope of {bytes} bytes is too large: several items may have {MAX_BYTES}"))
        } else {
            None
        }
    }
}

/// Why a payload is no envelope that this build reads, `what` names its items: it is of another version, or no envelope
/// at all.
pub fn unreadable(payload: &[u8], what: &str, error: &serde_json::Error) -> String {
    /// What envelopes of all versions have.
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    match serde_json::from_slice(payload) {
        Ok(Versioned { v }) if v != u32::from(VERSION) => format!("envelope version {v} is not known"),
        _ => format!("not an envelope of {what}: {error}"),
    }
}

/// Something that happened to an aggregate, as it stands in EVENTS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainEvent<D = Value> {
    /// Unique; consumers deduplicate by it.
    pub id: uuid::Uuid,
    /// The aggregate, as a booking's id.
    pub aggregate: uuid::Uuid,
    /// Rises with each change of the aggregate; consumers ignore older ones.
    pub version: i64,
    /// When it was committed.
    #[serde(with = "crate::time::millis")]
    pub at: Timestamp,
    /// W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The event's own fields.
    pub data: D,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_it_is_written() {
        let key = Key { saga: SagaId::fresh(), step: "PAY".into(), round: 3 };
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        for bad in
            ["", "x:PAY:1", &format!("{}:PAY", key.saga), &format!("{}:P Y:1", key.saga), &format!("{}::1", key.saga)]
        {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_item_keeps_its_body_as_it_came() {
        let text = format!(
            r#"{{"key":"{}:PAY:1","half":"do","attempt":1,"deadline":5,"body":{{"b": 1,  "a":2}}}}"#,
            SagaId::fresh()
        );
        let item: Item = serde_json::from_str(&text).unwrap();
        assert_eq!(item.deadline, Some(Timestamp(5)));
        assert_eq!(item.body.text(), r#"{"b": 1,  "a":2}"#);
    }

    #[test]
    fn an_envelope_is_bounded_in_count_and_bytes_but_a_single_item_is_not() {
        let flaw = |items: usize, bytes| Envelope::new(vec![(); items]).flaw(bytes).unwrap_or_default();
        assert_eq!([flaw(MAX_ITEMS, MAX_BYTES), flaw(1, 4 * MAX_BYTES), flaw(0, 9)], ["", "", ""]);
        assert_eq!(flaw(MAX_ITEMS + 1, 9), "an envelope of 257 items is too large: it may have 256");
        assert!(flaw(2, 2 * MAX_BYTES).starts_with("an envelope of 524288 bytes is too large"));
    }

    #[test]
    fn another_version_is_told_whatever_its_form() {
        let told = |text: &str| {
            let error = serde_json::from_str::<Envelope<Item>>(text).unwrap_err();
            unreadable(text.as_bytes(), "commands", &error)
        };
        assert_eq!(told(r#"{"v": 2, "commands": {}}"#), "envelope version 2 is not known");
        assert_eq!(told(r#"{"v": 900, "items": []}"#), "envelope version 900 is not known");
        for text in ["", "{", r#"{"items": []}"#, r#"{"v": 1, "items": [{}]}"#] {
            assert!(told(text).starts_with("not an envelope of commands: "), "{text}");
        }
    }

    #[test]
    fn answers_have_one_word_forms() {
        let show = |a: Answer| serde_json::to_string(&a).unwrap();
        assert_eq!(show(Answer::Expired), r#""expired""#);
        assert_eq!(
            show(Answer::rejected("sold_out", "none left")),
            r#"{"rejected":{"code":"sold_out","message":"none left"}}"#
        );
    }
}
