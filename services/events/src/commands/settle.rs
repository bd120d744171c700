//! `events.settle`: the end of a publication; the event is published. It has no undo.

use std::collections::HashMap;

use eventicket_contracts::envelope::{Answer, Half, Key};
use eventicket_contracts::events::{Event, EventPublished, Settle};
use eventicket_contracts::{Clock, EventId, Timestamp, codes};
use eventicket_nats::{Delivered, Fault, Handled, decode};
use serde_json::{Value, json};

use crate::lifecycle::{self, Settlement};
use crate::store::Store;

/// Settles once a round; a round that is known gets its recorded answer.
pub(crate) async fn handle(store: &Store, clock: &Clock, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
    let keys: Vec<Key> = batch.iter().map(|command| command.item.key.clone()).collect();
    let mut ids: Vec<EventId> = batch.iter().filter_map(|c| decode::<Settle>(&c.item).ok()).map(|s| s.event).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut tx = store.begin_batch(&keys).await?;
    let (recorded, events) = (tx.recorded(&keys).await?, tx.lock_all(&ids).await?);
    let mut decided = Decided { recorded, events, now: clock.now(), answers: Vec::new(), published: Vec::new() };
    let handled = batch.iter().map(|command| decided.decide(command)).collect();
    let Decided { now, answers, published, .. } = decided;
    if !answers.is_empty() {
        tx.record(&answers, now).await?;
    }
    if !published.is_empty() {
        let events: Vec<Event> = published.iter().map(|p| p.event.clone()).collect();
        tx.move_all(&events).await?;
        tx.tell("published", published.iter().map(|p| (&p.event, json!(p))), now).await?;
    }
    tx.commit().await?;
    Ok(handled)
}

/// What a batch has decided so far.
struct Decided {
    recorded: HashMap<Key, Answer>,
    events: HashMap<EventId, Event>,
    now: Timestamp,
    answers: Vec<(Key, Answer)>,
    published: Vec<EventPublished>,
}

impl Decided {
    fn decide(&mut self, command: &Delivered) -> Handled {
        let item = &command.item;
        if item.half == Half::Undo {
            return Handled::Dead("settle has no undo".to_owned());
        }
        if let Some(answer) = self.recorded.get(&item.key) {
            return Handled::Answer(answer.clone());
        }
        if item.deadline.is_some_and(|deadline| deadline < self.now) {
            return Handled::Answer(Answer::Expired);
        }
        let answer = match decode::<Settle>(item) {
            Ok(settle) => self.settle(&item.key, &settle),
            Err(dead) => return dead,
        };
        self.recorded.insert(item.key.clone(), answer.clone());
        self.answers.push((item.key.clone(), answer.clone()));
        Handled::Answer(answer)
    }

    fn settle(&mut self, key: &Key, settle: &Settle) -> Answer {
        let settlement = self.events.get(&settle.event).map(|event| lifecycle::settle(event, settle.version, self.now));
        match settlement {
            Some(Settlement::Published(event)) => {
                self.events.insert(event.id, (*event).clone());
                self.published.push(EventPublished { event: *event, saga: key.saga });
                Answer::Done(Value::Null)
            }
            Some(Settlement::Already) => Answer::Done(Value::Null),
            Some(Settlement::Stale) | None => {
                Answer::rejected(codes::STALE_VERSION, "this version of the event is not being published")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::SagaId;
    use eventicket_contracts::envelope::Item;

    #[test]
    fn rule_02_a_recorded_answer_comes_before_the_deadline() {
        let key = Key { saga: SagaId::fresh(), step: "SETTLE".into(), round: 1 };
        let body = serde_json::value::to_raw_value(&Settle { event: EventId::fresh(), version: 1 }).unwrap();
        let deadline = Some(Timestamp(999));
        let item = Item { key: key.clone(), half: Half::Do, attempt: 2, deadline, trace: None, body };
        let command = Delivered { action: "settle".into(), item, reply_to: "reply.0".into(), deliveries: 1 };
        let (recorded, events, answers, published) = Default::default();
        let mut decided = Decided { recorded, events, now: Timestamp(1000), answers, published };
        assert_eq!(decided.decide(&command), Handled::Answer(Answer::Expired));
        assert!(decided.answers.is_empty(), "expired is not recorded");
        decided.recorded.insert(key, Answer::Done(Value::Null));
        assert_eq!(decided.decide(&command), Handled::Answer(Answer::Done(Value::Null)));
        assert!(decided.answers.is_empty(), "recorded once");
    }
}
