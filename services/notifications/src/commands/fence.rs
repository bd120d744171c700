//! `notifications.fence`: closes a round of `send`, so that a late or replayed one is refused.
//!
//! The record is the round's own: a delivery that a fence closed is one that was refused with `closed`, which tells every
//! later fence the same. One that is recorded already leaves: a fence tells of it.

use eventicket_contracts::envelope::{Answer, Fence, Fenced, Half, Item, Recorded};
use eventicket_contracts::notifications::Send;
use eventicket_contracts::{CustomerId, Json, codes};
use eventicket_nats::{Handled, decode};
use uuid::Uuid;

use super::desk::Desk;
use crate::store::NewDelivery;

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
            let answer = Answer::rejected(codes::CLOSED, "the round was closed by a fence");
            let Send { template, customer, data } = never_sent(&fence);
            let (key, data, refused, at) = (item.key.clone(), data.text().to_owned(), Some(answer), desk.now);
            desk.record(NewDelivery { key, template, customer, data, refused, trace: None, at });
            Recorded::Closed
        }
    };
    // There is no undo that could come.
    let undo = fence.undo.then_some(Recorded::Closed);
    Handled::Answer(Answer::done(Fenced { id: fence.id, effect, undo }))
}

/// What the row of a closed round says of its mail: which one it would have been, where that is known, and nothing more.
fn never_sent(fence: &Fence) -> Send {
    match fence.body.read::<Send>() {
        Ok(send) => Send { data: Json::NULL, ..send },
        Err(_) => Send { template: String::new(), customer: CustomerId(Uuid::nil()), data: Json::NULL },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::envelope::Key;
    use eventicket_contracts::{SagaId, Timestamp};
    use serde_json::json;

    #[test]
    fn a_closed_round_keeps_its_template_and_nothing_that_it_would_have_said() {
        for (body, template) in [
            (
                json!({"template": "booking_confirmed", "customer": Uuid::nil(), "data": {"title": "x"}}),
                "booking_confirmed",
            ),
            (json!(null), ""),
        ] {
            let mut desk = Desk::new(Default::default(), Timestamp(1000));
            let key = Key { saga: SagaId::fresh(), step: "NOTIFY".into(), round: 1 };
            let fence = Fence { id: 1, action: "send".into(), undo: false, body: body.into() };
            let body = Json::of(&fence).unwrap();
            let item = Item { key, half: Half::Fence, attempt: 1, deadline: None, trace: None, body };
            let closed = Handled::Answer(Answer::done(Fenced { id: 1, effect: Recorded::Closed, undo: None }));
            assert_eq!((decide(&mut desk, &item), decide(&mut desk, &item)), (closed.clone(), closed));
            assert_eq!(desk.new.len(), 1, "recorded once");
            assert_eq!((desk.new[0].template.as_str(), desk.new[0].data.as_str()), (template, "null"));
        }
    }
}
