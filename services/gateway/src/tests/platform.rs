//! A gateway with NATS behind it, where tests answer by hand what services would.

use std::time::Duration;

use super::*;
use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::sagas::{AnsweredStart, BookingStatus, InFlight, StartAnswer, StartSaga, StatusChange};
use eventicket_contracts::{SagaId, subjects};
use eventicket_kit::Context;
use eventicket_nats::{QueryError, QueryServer};
use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A gateway with NATS behind it, and what a test puts there.
pub(super) struct Platform {
    pub(super) ctx: Context,
    pub(super) gateway: Gateway,
}

impl Platform {
    pub(super) async fn start() -> Self {
        let world = eventicket_testkit::world().await;
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
        let gateway = Gateway::of(App::new(&ctx).unwrap(), Router::new());
        let platform = Self { ctx, gateway };
        platform.listen().await;
        platform
    }

    /// Follows changes of bookings, and returns when they are heard.
    async fn listen(&self) {
        let (status, probe) = (self.gateway.app.status.clone(), SagaId::fresh());
        tokio::spawn(status.clone().follow(self.ctx.nats.clone(), self.ctx.shutdown.clone()));
        let mut waiter = status.wait(probe);
        loop {
            self.tell(probe, BookingStatus::Pending).await;
            if tokio::time::timeout(Duration::from_millis(50), waiter.changed()).await.is_ok() {
                return;
            }
        }
    }

    /// Returns when the broker knows what was subscribed to: it takes one connection's messages in order.
    async fn subscribed(&self) {
        let _ = self.ctx.nats.subscriber().request("nobody.is.here", "".into()).await;
    }

    /// Answers requests on a subject of core NATS; `None` is silence.
    pub(super) async fn answer<Q: DeserializeOwned + Send, A: Serialize + Send>(
        &self,
        subject: &'static str,
        answer: impl Fn(Q) -> Option<A> + Send + 'static,
    ) {
        let client = self.ctx.nats.subscriber().clone();
        let mut asked = client.subscribe(subject).await.unwrap();
        self.subscribed().await;
        tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let answer = answer(serde_json::from_slice(&message.payload).unwrap());
                let Some((answer, to)) = answer.zip(message.reply) else { continue };
                client.publish(to, serde_json::to_vec(&answer).unwrap().into()).await.unwrap();
            }
        });
    }

    /// Answers starts; `None` is silence.
    pub(super) async fn answer_starts(&self, answer: impl Fn(StartSaga) -> Option<StartAnswer> + Send + 'static) {
        let answered = move |asked: Envelope<StartSaga>| {
            let item = |start: StartSaga| Some(AnsweredStart { id: start.id, answer: answer(start)? });
            let answers: Vec<AnsweredStart> = asked.items.into_iter().filter_map(item).collect();
            (!answers.is_empty()).then(|| Envelope::new(answers))
        };
        self.answer(subjects::START, answered).await;
    }

    /// Answers a query.
    pub(super) async fn query<Q: DeserializeOwned + Send + 'static, A: Serialize + Send + 'static>(
        &self,
        service: &str,
        name: &str,
        answer: impl Fn(Q) -> Result<A, QueryError> + Send + Sync + 'static,
    ) {
        let mut server = QueryServer::start(&self.ctx.nats, service, "by hand").await.unwrap();
        server.endpoint(name, move |q| std::future::ready(answer(q))).await.unwrap();
        self.subscribed().await;
        tokio::spawn(server.run(self.ctx.shutdown.clone()));
    }

    pub(super) async fn tell(&self, id: SagaId, status: BookingStatus) {
        let hint = [StatusChange { id, status: status.name().into(), version: 9, view: None }];
        let client = self.ctx.nats.publisher();
        client.publish(subjects::STATUS, serde_json::to_vec(&hint).unwrap().into()).await.unwrap();
    }

    /// Tells what is in flight, and returns when it is heard.
    pub(super) async fn tell_in_flight(&self, in_flight: &InFlight) {
        let throttle = self.gateway.app.throttle.clone();
        tokio::spawn(throttle.clone().follow(self.ctx.nats.clone(), self.ctx.shutdown.clone()));
        while throttle.told() != Some(in_flight.clone()) {
            let payload = serde_json::to_vec(in_flight).unwrap();
            self.ctx.nats.publisher().publish(subjects::IN_FLIGHT, payload.into()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A customer and their token.
    pub(super) fn customer(&self) -> (CustomerId, String) {
        let id = CustomerId::fresh();
        (id, self.gateway.token(id, &[Role::Customer]))
    }
}
