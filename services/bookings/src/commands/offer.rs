//! `bookings.offer`: what is sold from now on, decided under the event's capacity lock.

use std::collections::HashSet;

use eventicket_contracts::bookings::Offer;
use eventicket_contracts::envelope::Answer;
use eventicket_contracts::{Timestamp, codes};

use super::{Decided, Round, is_late, too_old};
use crate::allocation::Books;
use crate::seats::{LABEL, is_label};

/// The form that the decision relies on.
pub(crate) fn check(offer: Offer) -> Result<Offer, String> {
    let types = &offer.ticket_types;
    if types.iter().enumerate().any(|(at, new)| types[..at].iter().any(|known| known.id == new.id)) {
        return Err("a ticket type is offered twice".to_owned());
    }
    if types.iter().any(|new| new.price.amount < 0) {
        return Err("a price is negative".to_owned());
    }
    if types.iter().any(|new| !new.seats.is_empty() && new.seats.len() != new.quantity as usize) {
        return Err("a numbered type has as many seats as tickets".to_owned());
    }
    let mut labels = HashSet::new();
    if !types.iter().flat_map(|new| &new.seats).all(|label| labels.insert(label)) {
        return Err("a seat is offered twice".to_owned());
    }
    if !labels.iter().all(|label| is_label(label)) {
        return Err(format!("a seat's label has 1 to {LABEL} bytes, and no NUL"));
    }
    if offer.version < 1 {
        return Err("versions begin with 1".to_owned());
    }
    Ok(offer)
}

/// The recorded answer, or a decision that is recorded.
pub(crate) fn decide(books: &mut Books, round: &Round, offer: &Offer, now: Timestamp) -> Decided {
    if let Some(answer) = books.offer_answer(&round.key) {
        return Ok(answer.clone());
    }
    if is_late(round, now) {
        return Ok(Answer::Expired);
    }
    if too_old(&round.key, now) {
        return Ok(Answer::rejected(codes::TOO_OLD, "the saga is older than records are kept"));
    }
    Ok(books.offer(&round.key, offer))
}
