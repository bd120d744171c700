//! `events.settle`: bookings has decided on a change of what is sold: the event is so from now on, or stays as it was. It
//! has no undo.

use eventicket_contracts::envelope::{Answer, Half, Item};
use eventicket_contracts::events::Settle;
use eventicket_contracts::{Json, codes};
use eventicket_nats::{Handled, decode};

use super::desk::Desk;

/// Settles once a round; a round that is known gets its recorded answer.
pub(super) fn decide(desk: &mut Desk, item: &Item) -> Handled {
    if item.half != Half::Do {
        return Handled::Dead("settle has no undo".to_owned());
    }
    if let Some(answer) = desk.recorded(&item.key) {
        return Handled::Answer(answer.clone());
    }
    if item.deadline.is_some_and(|deadline| deadline < desk.now) {
        return Handled::Answer(Answer::Expired);
    }
    let Settle { event, version, refused } = match decode(item) {
        Ok(settle) => settle,
        Err(dead) => return dead,
    };
    let answer = if desk.settle(&item.key, event, version, refused.as_deref()) {
        Answer::Done(Json::NULL)
    } else {
        Answer::rejected(codes::STALE_VERSION, "no such change of the event is under way")
    };
    desk.record(&item.key, answer.clone());
    Handled::Answer(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::envelope::Key;
    use eventicket_contracts::{EventId, SagaId, Timestamp};

    #[test]
    fn rule_02_a_recorded_answer_comes_before_the_deadline() {
        let key = Key { saga: SagaId::fresh(), step: "SETTLE".into(), round: 1 };
        let settle = Settle { event: EventId::fresh(), version: 1, refused: None };
        let body = Json::of(&settle).unwrap();
        let deadline = Some(Timestamp(999));
        let item = Item { key: key.clone(), half: Half::Do, attempt: 2, deadline, trace: None, body };
        let mut desk = Desk::new(Default::default(), Default::default(), Timestamp(1000));
        assert_eq!(decide(&mut desk, &item), Handled::Answer(Answer::Expired));
        assert_eq!(desk.new_answers(), 0, "expired is not recorded");
        desk.record(&key, Answer::Done(Json::NULL));
        assert_eq!(decide(&mut desk, &item), Handled::Answer(Answer::Done(Json::NULL)));
        assert_eq!(desk.new_answers(), 1, "recorded once");
    }
}
