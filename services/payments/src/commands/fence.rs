//! `payments.fence`: closes what of a round has not begun, and what is under way; tells what is recorded. A refund that is
//! under way is awaited, so that nobody is paid back twice.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Answer, Fence};
use eventicket_nats::{Delivered, Handled, decode};

use super::{Decision, RECORD_GONE, Surroundings, asker, is_too_old};
use crate::charge::{Charge, FENCED, State};
use crate::decide::fence;

/// The action whose rounds can be fenced here.
const CHARGE: &str = "charge";

/// Fences have no deadline.
pub(super) fn decide(command: &Delivered, known: Option<&Charge>, surroundings: &Surroundings<'_>) -> Decision {
    let item = &command.item;
    let asked: Fence = match decode(item) {
        Ok(asked) => asked,
        Err(dead) => return Decision::unchanged(dead),
    };
    if asked.action != CHARGE {
        return Decision::unchanged(Handled::Dead(format!("{} is no action of payments with rounds", asked.action)));
    }
    let last = known.and_then(|charge| charge.fence.as_ref());
    if let Some(last) = last.filter(|last| last.id >= asked.id) {
        let handled = match &last.answer {
            // Of an earlier one the latest answer says at least as much.
            Some(answer) => Handled::Answer(Answer::done(answer)),
            None if last.id == asked.id => Handled::Later,
            None => Handled::Answer(Answer::Retry("a later fence of the round is under way".to_owned())),
        };
        return Decision::unchanged(handled);
    }
    let charge = match known {
        Some(charge) => fence(charge, &asked, asker(command)),
        None if is_too_old(item.key.saga, surroundings.now) => {
            return Decision::unchanged(Handled::Dead(RECORD_GONE.to_owned()));
        }
        None => {
            let tombstone = Charge::new(item.key.clone(), None).rejected(State::Tombstone, codes::CLOSED, FENCED);
            fence(&tombstone, &asked, asker(command))
        }
    };
    let answer = charge.fence.as_ref().and_then(|fence| fence.answer.as_ref());
    let handled = answer.map_or(Handled::Later, |answer| Handled::Answer(Answer::done(answer)));
    Decision { handled, write: Some(charge) }
}
