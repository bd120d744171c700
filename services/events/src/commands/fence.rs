//! `events.fence`: ends a round of `settle`, so that a late or replayed one changes nothing.
//!
//! Whoever fences it gives up what would have told the end of a change, which must not be pending for ever: the fence's
//! body is the settlement, and is carried out, as the do would have been. Only where it settles nothing the round is closed.
//! The record is the round's own: a round that a fence closed is one that was rejected with `closed`, which tells every
//! later fence the same.

use eventicket_contracts::envelope::{Answer, Fence, Fenced, Half, Item, Recorded};
use eventicket_contracts::events::Settle;
use eventicket_contracts::{Json, codes};
use eventicket_nats::{Handled, decode};

use super::desk::Desk;

/// The action whose rounds are fenced here.
const SETTLE: &str = "settle";

/// The settlement that a fence stands for; none where its body could not be built.
pub(super) fn settlement(fence: &Fence) -> Option<Settle> {
    fence.body.read::<Settle>().ok().filter(|_| fence.action == SETTLE)
}

/// Tells what is recorded of the round, or ends it.
pub(super) fn decide(desk: &mut Desk, item: &Item) -> Handled {
    if item.half != Half::Fence {
        return Handled::Dead("a fence is neither a do nor an undo".to_owned());
    }
    let fence = match decode::<Fence>(item) {
        Ok(fence) => fence,
        Err(dead) => return dead,
    };
    let effect = match desk.recorded(&item.key).cloned() {
        Some(Answer::Done(output)) => Recorded::Done(output),
        Some(Answer::Rejected(rejection)) if rejection.code != codes::CLOSED => Recorded::Rejected(rejection),
        Some(_) => Recorded::Closed,
        None if settle(desk, item, &fence) => {
            desk.record(&item.key, Answer::Done(Json::NULL));
            Recorded::Done(Json::NULL)
        }
        None => {
            desk.record(&item.key, Answer::rejected(codes::CLOSED, "the round was closed by a fence"));
            Recorded::Closed
        }
    };
    // There is no undo that could come.
    let undo = fence.undo.then_some(Recorded::Closed);
    Handled::Answer(Answer::done(Fenced { id: fence.id, effect, undo }))
}

/// Carries out the settlement of the round; false where it settles nothing.
fn settle(desk: &mut Desk, item: &Item, fence: &Fence) -> bool {
    settlement(fence).is_some_and(|s| desk.settle(&item.key, s.event, s.version, s.refused.as_deref()))
}
