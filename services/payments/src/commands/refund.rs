//! `payments.refund`: the undo of charge. It closes the row at once; what stands at the gateway is then cancelled or given
//! back by the driver.

use eventicket_contracts::codes;
use eventicket_contracts::payments::Refund;
use eventicket_nats::trace::is_sampled;
use eventicket_nats::{Delivered, Handled, decode};

use super::{Decision, RECORD_GONE, Surroundings, asker, is_too_old};
use crate::charge::{Charge, State, UNDONE};
use crate::decide::undo;

/// Undos have no deadline.
pub(super) fn decide(command: &Delivered, known: Option<&Charge>, surroundings: &Surroundings<'_>) -> Decision {
    let item = &command.item;
    let Refund { reason } = match decode(item) {
        Ok(refund) => refund,
        Err(dead) => return Decision::unchanged(dead),
    };
    let Some(charge) = known else {
        if is_too_old(item.key.saga, surroundings.now) {
            return Decision::unchanged(Handled::Dead(RECORD_GONE.to_owned()));
        }
        let tombstone = Charge { undo_asker: Some(asker(command)), ..Charge::new(item.key.clone(), None) };
        return answered(tombstone.rejected(State::Tombstone, codes::UNDONE, UNDONE));
    };
    match undo(charge, asker(command), &reason) {
        Some(closed) => {
            // What is called from here on stands below the undo.
            let trace = item.trace.clone().filter(|trace| is_sampled(Some(trace))).or(closed.trace);
            answered(Charge { trace, ..closed })
        }
        None => Decision::unchanged(handled(charge)),
    }
}

fn answered(charge: Charge) -> Decision {
    Decision { handled: handled(&charge), write: Some(charge) }
}

/// What is under way is told when it has ended, or once the gateway was asked how it stands.
fn handled(charge: &Charge) -> Handled {
    let told = charge.undo_answer().filter(|_| !charge.state.is_due());
    told.map_or(Handled::Later, Handled::Answer)
}
