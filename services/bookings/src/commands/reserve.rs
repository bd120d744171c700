//! `bookings.reserve`: takes capacity under a hold that ends by itself.

use std::time::Duration;

use eventicket_contracts::bookings::{Reserve, ReserveItem, Reserved};
use eventicket_contracts::envelope::{Answer, Rejection};
use eventicket_contracts::{Timestamp, codes};
use eventicket_planted::Fault;

use super::{Decided, Round, is_late, too_old};
use crate::allocation::{Books, Content, Hold, Phase};
use crate::event::unknown;

/// Each ticket type once, also where the order names it twice.
pub(crate) fn check(mut reserve: Reserve) -> Result<Reserve, String> {
    let mut items: Vec<ReserveItem> = Vec::with_capacity(reserve.items.len());
    for item in reserve.items {
        match items.iter_mut().find(|known| known.ticket_type == item.ticket_type) {
            Some(known) => {
                known.quantity = known.quantity.saturating_add(item.quantity);
                known.seats.extend(item.seats);
            }
            None => items.push(item),
        }
    }
    if items.is_empty() || items.iter().any(|item| item.quantity == 0) {
        return Err("an order has at least one ticket of each type that it names".to_owned());
    }
    reserve.items = items;
    Ok(reserve)
}

/// The recorded answer, or a decision that is recorded.
pub(crate) fn decide(books: &mut Books, round: &Round, reserve: &Reserve, now: Timestamp) -> Decided {
    if Fault::DeadlineFirst.is_planted() && is_late(round, now) {
        return Ok(Answer::Expired);
    }
    if let Some(record) = books.record(&round.key) {
        return Ok(match &record.content {
            Content::Hold(hold) => Answer::done(&hold.reserved),
            Content::Refused { rejection, .. } => Answer::Rejected(rejection.clone()),
            Content::Tombstone => Answer::rejected(codes::UNDONE, "an undo came first"),
        });
    }
    if is_late(round, now) {
        return Ok(Answer::Expired);
    }
    if too_old(&round.key, now) {
        return Ok(Answer::rejected(codes::TOO_OLD, "the saga is older than records are kept"));
    }
    let (content, answer) = match hold(books, reserve, now) {
        Ok(hold) => {
            let answer = Answer::done(&hold.reserved);
            (Content::Hold(hold), answer)
        }
        Err(rejection) => {
            let answer = Answer::Rejected(rejection.clone());
            (Content::Refused { customer: reserve.customer, rejection }, answer)
        }
    };
    books.record_reserve(&round.key, reserve.event, content, round.trace.clone());
    Ok(answer)
}

fn hold(books: &Books, reserve: &Reserve, now: Timestamp) -> Result<Hold, Rejection> {
    let event = books.event(reserve.event).ok_or_else(unknown)?;
    let (lines, total) = event.quote(reserve, books.bought(event.id, reserve.customer), now)?;
    let seconds = |s: u32| Duration::from_secs(u64::from(s));
    let hold_until = now.plus(seconds(event.hold_seconds.unwrap_or(reserve.hold_seconds)));
    let grace_until = hold_until.plus(seconds(reserve.grace_seconds));
    let reserved = Reserved { lines, total, hold_until, title: event.title.clone() };
    let (customer, max_per_customer) = (reserve.customer, event.max_per_customer);
    Ok(Hold { phase: Phase::Held, customer, reserved, grace_until, max_per_customer })
}
