//! `events.fence`: closes a round of `settle`, so that a late or replayed one is refused.
//!
//! The record is the round's own: a round that a fence closed is one that was rejected with `closed`, which tells every
//! later fence the same.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Answer, Fence, Fenced, Half, Item, Recorded};
use eventicket_nats::{Handled, decode};

use super::desk::Desk;

/// Tells what is recorded of the round, or closes it.
pub(super) fn decide(desk: &mut Desk, item: &Item) -> Handled {
    if item.half != Half::Fence {
        return Handled::Dead("a fence is neither a do nor an undo".to_owned());
    }
    let fence = match decode::<Fence>(item) {
        Ok(fence) => fence,
        Err(dead) => return dead,
    };
    let effect = match desk.recorded(&item.key) {
        Some(Answer::Done(output)) => Recorded::Done(output.clone()),
        Some(Answer::Rejected(rejection)) if rejection.code != codes::CLOSED => Recorded::Rejected(rejection.clone()),
        Some(_) => Recorded::Closed,
        None => {
            desk.record(&item.key, Answer::rejected(codes::CLOSED, "the round was closed by a fence"));
            Recorded::Closed
        }
    };
    // There is no undo that could come.
    let undo = fence.undo.then_some(Recorded::Closed);
    Handled::Answer(Answer::done(Fenced { id: fence.id, effect, undo }))
}
