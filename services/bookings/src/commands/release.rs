//! `bookings.release`: the undo of reserve, which may overtake it.

use eventicket_contracts::bookings::Release;
use eventicket_contracts::envelope::{Answer, Rejection};
use eventicket_contracts::{Json, Timestamp, codes};
use eventicket_planted::Fault;

use super::{Decided, NOTHING_RECORDED, Round, too_old};
use crate::allocation::{Books, Content, Phase};
use crate::event::no;

/// Gives the capacity back once; without a reserve it leaves a tombstone. What is confirmed is past undoing: the saga's
/// point of no return lies between the two.
pub(crate) fn decide(books: &mut Books, round: &Round, release: &Release, now: Timestamp) -> Decided {
    assert!(!Fault::ReleasePanics.is_planted(), "planted");
    let phase = match books.record(&round.key).map(|record| &record.content) {
        None if too_old(&round.key, now) => return Err(NOTHING_RECORDED.to_owned()),
        None => {
            books.close(&round.key, release.event);
            return Ok(Answer::Done(Json::NULL));
        }
        Some(Content::Hold(hold)) => hold.phase,
        Some(Content::Refused { .. } | Content::Tombstone) => return Ok(Answer::Done(Json::NULL)),
    };
    match phase {
        Phase::Confirmed => Ok(Answer::Rejected(confirmed())),
        Phase::Released | Phase::Expired => Ok(Answer::Done(Json::NULL)),
        Phase::Held => {
            let phase = if release.reason == codes::HOLD_EXPIRED { Phase::Expired } else { Phase::Released };
            books.end(&round.key, phase, &release.reason, round.trace.clone());
            Ok(Answer::Done(Json::NULL))
        }
    }
}

pub(crate) fn confirmed() -> Rejection {
    no(codes::CONFIRMED, "the booking is confirmed")
}
