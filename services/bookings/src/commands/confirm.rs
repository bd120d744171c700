//! `bookings.confirm`: turns a hold into tickets; the booking's point of no return.
//!
//! Its record is the hold's row. Every state but `held` is final and stands for one answer, so the answer to a repeat is
//! read from the state. There is no look at the time: until bookings has freed a hold, it can be confirmed.

use eventicket_contracts::bookings::{Confirm, Confirmed};
use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{Timestamp, codes};
use eventicket_planted::Fault;

use super::{Decided, NOTHING_RECORDED, Round, too_old};
use crate::allocation::{Books, Content, Phase};

/// The round whose hold is confirmed.
pub(crate) fn hold_key(round: &Round, confirm: &Confirm) -> Key {
    Key { saga: round.key.saga, step: confirm.hold_step.clone(), round: confirm.hold_round }
}

/// Confirms what is held. A hold that was never made is closed, so that the answer stays the same.
pub(crate) fn decide(books: &mut Books, round: &Round, confirm: &Confirm, now: Timestamp) -> Decided {
    assert!(!Fault::ConfirmPanics.is_planted(), "planted");
    let key = hold_key(round, confirm);
    let gone = || Ok(Answer::rejected(codes::HOLD_GONE, "the hold is gone"));
    let (phase, tickets) = match books.record(&key).map(|record| &record.content) {
        None if too_old(&key, now) => return Err(NOTHING_RECORDED.to_owned()),
        None => {
            books.close(&key, confirm.event);
            return gone();
        }
        Some(Content::Hold(hold)) => (hold.phase, hold.tickets()),
        Some(Content::Refused { .. } | Content::Tombstone) => return gone(),
    };
    match phase {
        Phase::Released | Phase::Expired => gone(),
        Phase::Confirmed => Ok(Answer::done(Confirmed { tickets })),
        Phase::Held => {
            books.confirm(&key, round.trace.clone());
            Ok(Answer::done(Confirmed { tickets }))
        }
    }
}
