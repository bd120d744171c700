//! `notifications.send`: done when the delivery is committed. It has no undo.

use eventicket_contracts::envelope::{Answer, Half, Item};
use eventicket_contracts::notifications::TEMPLATES;
use eventicket_contracts::{CustomerId, codes};
use eventicket_nats::trace::is_sampled;
use eventicket_nats::{Handled, decode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::desk::Desk;
use crate::store::NewDelivery;
use crate::templates;

/// Records one delivery a round; a round that is known gets its recorded answer.
pub(super) fn decide(desk: &mut Desk, item: &Item) -> Handled {
    if item.half != Half::Do {
        return Handled::Dead("send has no undo".to_owned());
    }
    if let Some(answer) = desk.recorded(&item.key) {
        return Handled::Answer(answer.clone());
    }
    if item.deadline.is_some_and(|deadline| deadline < desk.now) {
        return Handled::Answer(Answer::Expired);
    }
    let Asked { template, customer, data } = match decode(item) {
        Ok(asked) => asked,
        Err(dead) => return dead,
    };
    match check(&template, data.get()) {
        Ok(refused) => {
            let (key, data, at) = (item.key.clone(), data.get().to_owned(), desk.now);
            let trace = item.trace.clone().filter(|trace| is_sampled(Some(trace)));
            Handled::Answer(desk.record(NewDelivery { key, template, customer, data, refused, trace, at }))
        }
        Err(reason) => Handled::Dead(reason),
    }
}

/// The contract's `Send`, with its data as it came: it is stored as it is.
#[derive(Deserialize)]
struct Asked<'a> {
    template: String,
    customer: CustomerId,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The rejection of an unknown template; an error where the data is not what the template wants.
fn check(template: &str, data: &str) -> Result<Option<Answer>, String> {
    if !TEMPLATES.contains(&template) {
        return Ok(Some(Answer::rejected(codes::UNKNOWN_TEMPLATE, "there is no notification of this name")));
    }
    templates::parse(template, data).map(|_| None).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::envelope::Key;
    use eventicket_contracts::notifications::{BOOKING_CONFIRMED, BOOKING_REFUNDED};
    use eventicket_contracts::{Json, SagaId, Timestamp};
    use serde_json::{Value, json};

    fn command(template: &str, data: Value) -> Item {
        let body = json!({"template": template, "customer": CustomerId::fresh(), "data": data});
        let key = Key { saga: SagaId::fresh(), step: "NOTIFY".into(), round: 1 };
        Item { key, half: Half::Do, attempt: 1, deadline: None, trace: None, body: body.into() }
    }

    fn desk() -> Desk {
        Desk::new(Default::default(), Timestamp(1000))
    }

    fn mail() -> Value {
        json!({"booking": SagaId::fresh(), "title": "Gala", "lines": [], "total": {"amount": 0, "currency": "EUR"}})
    }

    const DONE: Handled = Handled::Answer(Answer::Done(Json::NULL));

    #[test]
    fn a_repeat_within_the_batch_records_once() {
        let (command, mut desk) = (command(BOOKING_CONFIRMED, mail()), desk());
        assert_eq!((decide(&mut desk, &command), decide(&mut desk, &command)), (DONE, DONE));
        assert_eq!(desk.new.len(), 1);
    }

    #[test]
    fn rule_02_a_recorded_answer_comes_before_the_deadline() {
        let (mut command, mut desk) = (command(BOOKING_CONFIRMED, mail()), desk());
        command.deadline = Some(Timestamp(999));
        assert_eq!(decide(&mut desk, &command), Handled::Answer(Answer::Expired));
        assert!(desk.new.is_empty(), "expired is not recorded");
        let mut desk = Desk::new([(command.key.clone(), Answer::Done(Json::NULL))].into(), Timestamp(1000));
        assert_eq!(decide(&mut desk, &command), DONE);
        assert!(desk.new.is_empty(), "recorded once");
    }

    #[test]
    fn what_cannot_be_read_is_dead_and_an_unknown_template_is_refused() {
        let mut desk = desk();
        let Handled::Answer(Answer::Rejected(rejection)) = decide(&mut desk, &command("nonsense", json!({}))) else {
            panic!("not rejected")
        };
        assert_eq!((rejection.code.as_str(), desk.new.len()), (codes::UNKNOWN_TEMPLATE, 1));
        for (template, data) in [(BOOKING_CONFIRMED, json!({})), (BOOKING_REFUNDED, mail())] {
            assert!(matches!(decide(&mut desk, &command(template, data)), Handled::Dead(_)), "{template}");
        }
        let mut undo = command(BOOKING_CONFIRMED, mail());
        undo.half = Half::Undo;
        assert!(matches!(decide(&mut desk, &undo), Handled::Dead(_)));
        assert_eq!(desk.new.len(), 1);
    }
}
