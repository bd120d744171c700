//! `payments.refund`: the undo of charge. It closes the row at once; what stands at the gateway is then cancelled or given
//! back by the driver.

use eventicket_contracts::codes;
use eventicket_contracts::payments::Refund;
use eventicket_nats::{Delivered, Handled, decode};

use super::{Decision, Surroundings, asker, is_too_old};
use crate::charge::{Charge, State, UNDONE};
use crate::decide::undo;

/// Undos have no deadline.
pub(super) fn decide(command: &Delivered, known: Option<&Charge>, surroundings: &Surroundings<'_>) -> Decision {
    let item = &command.item;
    if let Err(dead) = decode::<Refund>(item) {
        return Decision::unchanged(dead);
    }
    let Some(charge) = known else {
        if is_too_old(item.key.saga, surroundings.now) {
            return Decision::unchanged(Handled::Dead(
                "the charge's record may be gone: the saga is too old".to_owned(),
            ));
        }
        let tombstone = Charge { undo_asker: Some(asker(command)), ..Charge::new(item.key.clone(), None) };
        return answered(tombstone.rejected(State::Tombstone, codes::UNDONE, UNDONE));
    };
    match undo(charge, asker(command)) {
        Some(closed) => answered(closed),
        None => Decision::unchanged(charge.undo_answer().map_or(Handled::Later, Handled::Answer)),
    }
}

fn answered(charge: Charge) -> Decision {
    let handled = charge.undo_answer().map_or(Handled::Later, Handled::Answer);
    Decision { handled, write: Some(charge) }
}
