//! `notifications.send`: done when the delivery is committed. It has no undo.

use std::collections::HashMap;

use eventicket_contracts::envelope::{Answer, Half, Key};
use eventicket_contracts::notifications::{Send, TEMPLATES};
use eventicket_contracts::{Clock, Timestamp, codes};
use eventicket_nats::{Delivered, Fault, Handled, decode};
use serde_json::Value;

use crate::store::{NewDelivery, Store};
use crate::templates;

/// Records one delivery a round; a round that is known gets its recorded answer.
pub(crate) async fn handle(store: &Store, clock: &Clock, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
    let keys: Vec<Key> = batch.iter().map(|command| command.item.key.clone()).collect();
    let mut tx = store.begin(&keys).await?;
    let mut recorded = tx.recorded(&keys).await?;
    let now = clock.now();
    let mut new = Vec::new();
    let handled = batch.iter().map(|command| decide(command, &mut recorded, &mut new, now)).collect();
    tx.insert(&new).await?;
    tx.commit().await?;
    Ok(handled)
}

fn decide(
    command: &Delivered,
    recorded: &mut HashMap<Key, Answer>,
    new: &mut Vec<NewDelivery>,
    now: Timestamp,
) -> Handled {
    let item = &command.item;
    if item.half == Half::Undo {
        return Handled::Dead("send has no undo".to_owned());
    }
    if let Some(answer) = recorded.get(&item.key) {
        return Handled::Answer(answer.clone());
    }
    if item.deadline.is_some_and(|deadline| deadline < now) {
        return Handled::Answer(Answer::Expired);
    }
    let send = match decode::<Send>(item) {
        Ok(send) => send,
        Err(dead) => return dead,
    };
    let refused = match check(&send) {
        Ok(refused) => refused,
        Err(reason) => return Handled::Dead(reason),
    };
    let answer = refused.clone().unwrap_or(Answer::Done(Value::Null));
    recorded.insert(item.key.clone(), answer.clone());
    new.push(NewDelivery { key: item.key.clone(), send, refused, at: now });
    Handled::Answer(answer)
}

/// The rejection of an unknown template; an error where the data is not what the template wants.
fn check(send: &Send) -> Result<Option<Answer>, String> {
    if !TEMPLATES.contains(&send.template.as_str()) {
        return Ok(Some(Answer::rejected(codes::UNKNOWN_TEMPLATE, "there is no notification of this name")));
    }
    templates::parse(&send.template, &send.data.to_string()).map(|_| None).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::envelope::Item;
    use eventicket_contracts::notifications::BOOKING_CONFIRMED;
    use eventicket_contracts::{CustomerId, SagaId};
    use serde_json::json;

    fn command(template: &str, data: Value) -> Delivered {
        let body = json!({"template": template, "customer": CustomerId::fresh(), "data": data}).to_string();
        let key = Key { saga: SagaId::fresh(), step: "NOTIFY".into(), round: 1 };
        let body = serde_json::value::RawValue::from_string(body).unwrap();
        let item = Item { key, half: Half::Do, attempt: 1, deadline: None, trace: None, body };
        Delivered { action: "send".into(), item, reply_to: "reply.0".into(), deliveries: 1 }
    }

    fn decided(command: &Delivered, recorded: &mut HashMap<Key, Answer>) -> (Handled, usize) {
        let mut new = Vec::new();
        let handled = decide(command, recorded, &mut new, Timestamp(1000));
        (handled, new.len())
    }

    fn mail() -> Value {
        json!({"booking": SagaId::fresh(), "title": "Gala", "lines": [], "total": {"amount": 0, "currency": "EUR"}})
    }

    #[test]
    fn a_repeat_within_the_batch_records_once() {
        let (command, mut recorded) = (command(BOOKING_CONFIRMED, mail()), HashMap::new());
        let first = decided(&command, &mut recorded);
        assert!(matches!(first, (Handled::Answer(Answer::Done(Value::Null)), 1)));
        assert!(matches!(decided(&command, &mut recorded), (Handled::Answer(Answer::Done(Value::Null)), 0)));
    }

    #[test]
    fn rule_02_a_recorded_answer_comes_before_the_deadline() {
        let (mut command, mut recorded) = (command(BOOKING_CONFIRMED, mail()), HashMap::new());
        command.item.deadline = Some(Timestamp(999));
        assert!(matches!(decided(&command, &mut recorded), (Handled::Answer(Answer::Expired), 0)));
        recorded.insert(command.item.key.clone(), Answer::Done(Value::Null));
        assert!(matches!(decided(&command, &mut recorded), (Handled::Answer(Answer::Done(Value::Null)), 0)));
    }

    #[test]
    fn what_cannot_be_read_is_dead_and_an_unknown_template_is_refused() {
        let mut recorded = HashMap::new();
        let refused = decided(&command("nonsense", json!({})), &mut recorded);
        let Handled::Answer(Answer::Rejected(rejection)) = &refused.0 else { panic!("not rejected") };
        assert_eq!((rejection.code.as_str(), refused.1), (codes::UNKNOWN_TEMPLATE, 1));
        assert!(matches!(decided(&command(BOOKING_CONFIRMED, json!({})), &mut recorded), (Handled::Dead(_), 0)));
        let mut undo = command(BOOKING_CONFIRMED, mail());
        undo.item.half = Half::Undo;
        assert!(matches!(decided(&undo, &mut recorded), (Handled::Dead(_), 0)));
    }
}
