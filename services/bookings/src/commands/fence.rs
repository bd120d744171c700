//! `bookings.fence`: closes a round for an operator, and tells what is recorded of it.
//!
//! Whatever of the round has not begun is closed for good. What a fence was told is recorded under its number, since a
//! release may still come after it; a later fence asks anew.

use eventicket_contracts::bookings::{Confirm, Confirmed};
use eventicket_contracts::envelope::{Answer, Fence, Fenced, Recorded, Rejection};
use eventicket_contracts::{EventId, Json, Timestamp, codes};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::confirm::hold_key;
use super::{Decided, NOTHING_RECORDED, Round, release, too_old};
use crate::allocation::{Books, Content, Phase};

/// A fence with the round that it closes.
#[derive(Clone, Debug)]
pub(crate) struct Fencing {
    pub id: u32,
    pub undo: bool,
    pub round: Fencible,
}

/// The round, by its do, as far as its record has to be found or made.
#[derive(Clone, Debug)]
pub(crate) enum Fencible {
    Reserve(EventId),
    Confirm(Confirm),
    Offer(Subject),
}

/// The part of a do's body that its record names. A body that could not be built names nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Subject {
    event: EventId,
    version: i64,
}

impl Default for Subject {
    fn default() -> Self {
        Self { event: EventId(Uuid::nil()), version: 0 }
    }
}

/// Its form.
pub(crate) fn check(fence: Fence) -> Result<Fencing, String> {
    let unreadable = |error: serde_json::Error| format!("the body of {} cannot be read: {error}", fence.action);
    let subject = |body: &Json| if body.is_null() { Ok(Subject::default()) } else { body.read() };
    let round = match fence.action.as_str() {
        "reserve" => Fencible::Reserve(subject(&fence.body).map_err(unreadable)?.event),
        "confirm" => Fencible::Confirm(fence.body.read::<Confirm>().map_err(unreadable)?),
        "offer" => Fencible::Offer(subject(&fence.body).map_err(unreadable)?),
        other => return Err(format!("there is no {other} to fence")),
    };
    Ok(Fencing { id: fence.id, undo: fence.undo, round })
}

/// The recorded answer, or what is recorded of the round, which is closed where that is nothing.
pub(crate) fn decide(books: &mut Books, round: &Round, fence: &Fencing, now: Timestamp) -> Decided {
    if let Some(answer) = books.fence_answer(&round.key, fence.id) {
        return Ok(answer.clone());
    }
    let (effect, undo) = match &fence.round {
        Fencible::Reserve(event) => reserve(books, round, *event, now)?,
        Fencible::Confirm(confirm) => (self::confirm(books, round, confirm, now)?, Recorded::Closed),
        Fencible::Offer(subject) => (offer(books, round, subject, now)?, Recorded::Closed),
    };
    let answer = Answer::done(Fenced { id: fence.id, effect, undo: fence.undo.then_some(undo) });
    books.record_fence(&round.key, fence.id, &answer);
    Ok(answer)
}

/// The reserve and its release. What is held stays held, for a release to free it.
fn reserve(books: &mut Books, round: &Round, event: EventId, now: Timestamp) -> Result<(Recorded, Recorded), String> {
    let undone = || Recorded::Done(Json::NULL);
    Ok(match books.record(&round.key).map(|record| &record.content) {
        None if too_old(&round.key, now) => return Err(NOTHING_RECORDED.to_owned()),
        None => {
            books.close(&round.key, event);
            (Recorded::Closed, Recorded::Closed)
        }
        Some(Content::Tombstone) => (Recorded::Closed, Recorded::Closed),
        Some(Content::Refused { rejection, .. }) => (Recorded::Rejected(rejection.clone()), undone()),
        Some(Content::Hold(hold)) => {
            let undo = match hold.phase {
                Phase::Held => Recorded::Closed,
                Phase::Confirmed => Recorded::Rejected(release::confirmed()),
                Phase::Released | Phase::Expired => undone(),
            };
            (done(&hold.reserved), undo)
        }
    })
}

/// The confirm. A hold that still waits for it is released, so that it comes too late.
fn confirm(books: &mut Books, round: &Round, confirm: &Confirm, now: Timestamp) -> Result<Recorded, String> {
    let key = hold_key(round, confirm);
    let phase = match books.record(&key).map(|record| &record.content) {
        None if too_old(&key, now) => return Err(NOTHING_RECORDED.to_owned()),
        None => {
            books.close(&key, confirm.event);
            return Ok(Recorded::Closed);
        }
        Some(Content::Hold(hold)) if hold.phase == Phase::Confirmed => {
            return Ok(done(&Confirmed { tickets: hold.tickets() }));
        }
        Some(Content::Hold(hold)) => hold.phase,
        Some(Content::Refused { .. } | Content::Tombstone) => return Ok(Recorded::Closed),
    };
    if phase == Phase::Held {
        books.end(&key, Phase::Released, codes::CLOSED, round.trace.clone());
    }
    Ok(Recorded::Closed)
}

fn offer(books: &mut Books, round: &Round, subject: &Subject, now: Timestamp) -> Result<Recorded, String> {
    match books.offer_answer(&round.key) {
        None if too_old(&round.key, now) => Err(NOTHING_RECORDED.to_owned()),
        None => {
            books.close_offer(&round.key, subject.event, subject.version);
            Ok(Recorded::Closed)
        }
        Some(Answer::Rejected(Rejection { code, .. })) if code == codes::CLOSED => Ok(Recorded::Closed),
        Some(Answer::Rejected(rejection)) => Ok(Recorded::Rejected(rejection.clone())),
        Some(Answer::Done(output)) => Ok(Recorded::Done(output.clone())),
        Some(other) => Err(format!("an offer is recorded as {other:?}")),
    }
}

fn done(output: &impl Serialize) -> Recorded {
    Recorded::Done(Json::of(&output).unwrap_or_default())
}
