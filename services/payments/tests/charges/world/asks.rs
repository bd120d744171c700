//! What the tests ask of the service by messages, and what it answers and tells.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::{Answer, DomainEvent, Envelope, Fenced, Half, Item, Key, Reply};
use eventicket_contracts::subjects::{self, Service};
use eventicket_kit::seal::SealKeys;
use eventicket_nats::{Outgoing, command_headers};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};

use super::{PATIENCE, PRICE, World};
use crate::messages::{fence_item, item, json};

impl World {
    pub fn key(&self) -> Key {
        Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 }
    }

    /// Of a saga that is older than the records are kept.
    pub fn old_key(&self) -> Key {
        let month_ago = u64::try_from(self.ctx.clock.now().millis() / 1000).unwrap() - 31 * 24 * 3600;
        let made = uuid::Timestamp::from_unix(uuid::NoContext, month_ago, 0);
        Key { saga: SagaId(uuid::Uuid::new_v7(made)), ..self.key() }
    }

    pub fn seal(&self, token: &str) -> String {
        SealKeys::parse(&self.ctx.settings.seal_keys).unwrap().seal(self.customer, token)
    }

    pub fn charge(&self, token: &str) -> Value {
        json!({"customer": self.customer, "amount": PRICE, "method": self.seal(token), "description": "Gala"})
    }

    pub async fn send_do(&self, key: &Key, body: &Value) {
        self.send("charge", vec![item(key, Half::Do, body, None)]).await;
    }

    pub async fn send_undo(&self, key: &Key) {
        self.send_undo_attempt(key, 1).await;
    }

    pub async fn send_undo_attempt(&self, key: &Key, attempt: u32) {
        self.send("refund", vec![Item { attempt, ..item(key, Half::Undo, &json!({"reason": "cancelled"}), None) }])
            .await;
    }

    pub async fn send_fence(&self, key: &Key, id: u32, undo: bool) {
        self.send("fence", vec![fence_item(key, id, undo)]).await;
    }

    pub async fn fenced(&mut self, key: &Key, id: u32, undo: bool) -> Fenced {
        self.send_fence(key, id, undo).await;
        self.fence_answer(key).await
    }

    pub async fn fence_answer(&mut self, key: &Key) -> Fenced {
        match self.answer(key, Half::Fence).await {
            Answer::Done(fenced) => fenced.read().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn send(&self, action: &str, items: Vec<Item>) {
        let message = Outgoing {
            subject: subjects::command(Service::PAYMENTS, action, 0),
            id: uuid::Uuid::now_v7().to_string(),
            headers: command_headers(&subjects::reply(0), None),
            payload: json(&Envelope::new(items)),
        };
        for sent in self.ctx.nats.publish_all(vec![message]).await {
            sent.unwrap();
        }
    }

    /// The next reply to this half of a round.
    pub async fn answer(&mut self, key: &Key, half: Half) -> Answer {
        let wanted = |reply: &Reply| reply.key == *key && reply.half == half;
        loop {
            if let Some(at) = self.early.iter().position(wanted) {
                return self.early.remove(at).answer;
            }
            match tokio::time::timeout(PATIENCE, self.replies()).await {
                Ok(replies) => self.early.extend(replies),
                Err(_) => panic!("no answer to {half:?} of {key}: {}", self.known_of(key).await),
            }
        }
    }

    /// What is known of a charge that nobody answers, and of the services that should.
    async fn known_of(&mut self, key: &Key) -> String {
        let ended = self.services.iter_mut().filter_map(|service| service.now_or_never()).collect::<Vec<_>>();
        let rows = self.rows().await.into_iter().filter(|row| row.key == *key).collect::<Vec<_>>();
        let (dead, at_gateway) = (self.dead_letters().await, self.statuses(key));
        // Beyond the first: a reply was lost with a connection.
        let connects = self.ctx.nats.subscriber().statistics().connects.load(Ordering::Relaxed);
        format!("ended: {ended:?}, rows: {rows:?}, gateway: {at_gateway:?}, dead letters: {dead}, connects: {connects}")
    }

    /// The next replies, whatever they answer.
    pub async fn replies(&mut self) -> Vec<Reply> {
        let message = self.replies.next().await.unwrap();
        let envelope: Envelope<Reply> = serde_json::from_slice(&message.payload).unwrap();
        envelope.items
    }

    /// A reply that is there already, whatever it answers.
    pub fn reply_now(&mut self) -> Option<Vec<Reply>> {
        self.replies().now_or_never()
    }

    /// Whether such a reply came while another one was awaited.
    pub fn came(&self, key: &Key, half: Half) -> bool {
        self.early.iter().any(|reply| reply.key == *key && reply.half == half)
    }

    /// Asks again until the half of the round has ended.
    pub async fn ended(&mut self, key: &Key, half: Half) -> Answer {
        loop {
            match self.answer(key, half).await {
                Answer::Pending(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                end => return end,
            }
            match half {
                Half::Do => self.send_do(key, &self.charge("pm_card_visa")).await,
                Half::Undo => self.send_undo(key).await,
                Half::Fence => unreachable!("fences are never pending"),
            }
        }
    }

    pub async fn charged(&mut self, key: &Key, token: &str) -> Answer {
        self.send_do(key, &self.charge(token)).await;
        self.answer(key, Half::Do).await
    }

    pub async fn undone(&mut self, key: &Key) -> Answer {
        self.send_undo(key).await;
        self.answer(key, Half::Undo).await
    }

    /// The next event of payments: its subject's last word and itself.
    pub async fn event(&mut self) -> (String, DomainEvent) {
        let message = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("no event").unwrap();
        let mut envelope: Envelope<DomainEvent> = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(envelope.items.len(), 1);
        (message.subject.rsplit('.').next().unwrap().to_owned(), envelope.items.remove(0))
    }
}
