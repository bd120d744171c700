//! What the tests share: the service, a mock gateway behind a gate that can hold calls, and what the tests [`asks`].

use std::time::Duration;

use eventicket_contracts::envelope::{Answer, Key, Reply};
use eventicket_contracts::payments::{Payment, PaymentQuery};
use eventicket_contracts::subjects;
use eventicket_contracts::{Currency, CustomerId, Money};
use eventicket_kit::Context;
use eventicket_kit::http::{ANY_PORT, Reserved};
use eventicket_mock_gateway::ledger::{self, Ledger, Status};
use eventicket_mock_gateway::{Config, Server, Webhooks, sign};
use eventicket_payments::{ChargeRow, DATABASE, MIGRATOR, State};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::messages::webhook;

mod asks;

pub use crate::gate::{Gate, Hold};

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PRICE: Money = Money { amount: 4200, currency: Currency::EUR };

pub struct World {
    pub ctx: Context,
    pub pool: PgPool,
    pub gate: Gate,
    pub customer: CustomerId,
    services: Vec<JoinHandle<anyhow::Result<()>>>,
    mock: Option<JoinHandle<anyhow::Result<()>>>,
    config: Config,
    folder: tempfile::TempDir,
    /// Kept for the service, which comes to listen later and more than once.
    _webhooks_port: Reserved,
    replies: async_nats::Subscriber,
    events: async_nats::Subscriber,
    /// Replies that came while another one was awaited.
    early: Vec<Reply>,
}

impl World {
    /// Nobody tells the service what changes at the gateway.
    pub async fn new() -> Self {
        Self::with(false).await
    }

    pub async fn with_webhooks() -> Self {
        Self::with(true).await
    }

    /// The service takes webhooks; whether the gateway sends any is told by `sent`.
    pub async fn with(sent: bool) -> Self {
        Self::waiting(sent, 1).await
    }

    /// A call is waited for so many seconds.
    pub async fn waiting(sent: bool, seconds: u32) -> Self {
        let w = eventicket_testkit::world().await;
        let database = w.database(DATABASE, &MIGRATOR).await;
        let ctx = Context::for_tests(&w.database_url, &w.nats_url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = ctx.settings.payment_gateway_key.clone();
        let webhooks_port = Reserved::new(ANY_PORT).unwrap();
        let webhooks_at = webhooks_port.address().unwrap();
        let (url, secret) =
            (format!("http://{webhooks_at}/webhooks/payments"), ctx.settings.payment_webhook_secret.clone());
        let webhooks = sent.then_some(Webhooks { url, secret });
        let config =
            Config { listen: ANY_PORT, data: folder.path().to_owned(), key, latency: Duration::ZERO, webhooks };
        let (config, mock) = start_mock(config).await;
        let gate = Gate::new(config.listen).await;
        let ctx = ctx.with_settings(|s| {
            s.database_prefix = w.prefix.clone();
            s.payment_gateway_url = format!("http://{}", gate.address);
            s.payment_webhook_listen = Some(webhooks_at);
            s.payment_call_seconds = seconds;
        });
        let replies = ctx.nats.subscriber().subscribe(subjects::reply(0)).await.unwrap();
        let events = ctx.nats.subscriber().subscribe("evt.payment.>").await.unwrap();
        ctx.nats.flush().await;
        let pool = PgPool::connect(&database).await.unwrap();
        let services = vec![tokio::spawn(eventicket_payments::run(ctx.clone()))];
        Self {
            ctx,
            pool,
            gate,
            customer: CustomerId::fresh(),
            services,
            mock: Some(mock),
            config,
            folder,
            _webhooks_port: webhooks_port,
            replies,
            events,
            early: Vec::new(),
        }
    }

    /// One more replica of the service.
    pub fn replicate(&mut self) {
        self.services.push(tokio::spawn(eventicket_payments::run(self.ctx.clone())));
    }

    /// Drops the service where it stands.
    pub async fn crash(&mut self) {
        for service in self.services.drain(..) {
            service.abort();
            assert!(service.await.is_err_and(|error| error.is_cancelled()), "the service had ended before");
        }
    }

    /// Drops the gateway where it stands.
    pub async fn crash_mock(&mut self) {
        let mock = self.mock.take().unwrap();
        mock.abort();
        let _ = mock.await;
    }

    pub async fn restart_mock(&mut self) {
        let (config, mock) = start_mock(self.config.clone()).await;
        (self.config, self.mock) = (config, Some(mock));
    }

    pub async fn mock_settings(&self, settings: Value) {
        let request = self.mock("/test/settings").json(&settings);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    /// A call to the gateway past the gate.
    pub fn mock(&self, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.config.listen);
        reqwest::Client::new().post(url).bearer_auth(&self.config.key)
    }

    pub async fn mock_form(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let answer = self.mock(path).form(form).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// The customer does, or refuses, what a pending charge asks for; the status of the page that answers.
    pub async fn act(&self, pending: &Answer, what: &str) -> u16 {
        let Answer::Pending(pending) = pending else { panic!("not pending: {pending:?}") };
        let pending = pending.value();
        let page = pending["next_action"]["url"].as_str().expect("something to do");
        reqwest::Client::new().post(format!("{page}/{what}")).send().await.unwrap().status().as_u16()
    }

    /// A webhook as the gateway would send it, signed now.
    pub async fn webhook(&self, kind: &str, object: &Value) -> u16 {
        let body = webhook(&uuid::Uuid::now_v7().simple().to_string(), kind, object);
        self.post_webhook(&body, &self.signature(&body, 0)).await
    }

    /// The signature of a webhook so many seconds ago.
    pub fn signature(&self, body: &str, ago: i64) -> String {
        let now = self.ctx.clock.now().millis() / 1000;
        sign(&self.ctx.settings.payment_webhook_secret, now - ago, body)
    }

    pub async fn post_webhook(&self, body: &str, signature: &str) -> u16 {
        let url = format!("http://{}/webhooks/payments", self.ctx.settings.payment_webhook_listen.unwrap());
        let request = reqwest::Client::new().post(url).header("Stripe-Signature", signature).body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    }

    /// Stops the service, which finishes the calls in flight.
    pub async fn stop(&mut self) {
        self.ctx.shutdown.cancel();
        for service in self.services.drain(..) {
            service.await.unwrap().unwrap();
        }
    }

    /// Ends the test: what is left over fails it.
    pub async fn end(mut self) {
        self.stop().await;
        assert_eq!(self.dead_letters().await, 0, "dead letters are left");
        let rows = self.rows().await;
        let due: Vec<_> = rows.iter().filter(|row| row.state.is_due()).collect();
        assert!(due.is_empty(), "left over: {due:?}");
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM charges WHERE method IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        assert_eq!(kept, 0, "sealed methods are left");
    }

    pub fn ledger(&self) -> Ledger {
        ledger::read(self.folder.path()).unwrap()
    }

    /// The ledger's intents of a saga.
    pub fn statuses(&self, key: &Key) -> Vec<Status> {
        let saga = key.saga.to_string();
        let ledger = self.ledger();
        ledger.intents.iter().filter(|intent| intent.metadata["saga"] == saga).map(|intent| intent.status).collect()
    }

    pub async fn rows(&self) -> Vec<ChargeRow> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = eventicket_payments::charges(&self.pool, after.as_ref(), 100).await.unwrap();
            let Some(last) = page.last() else { return rows };
            after = Some(last.key.clone());
            rows.extend(page);
        }
    }

    pub async fn state(&self, key: &Key) -> State {
        let rows = self.rows().await;
        rows.iter().find(|row| row.key == *key).expect("a row").state
    }

    /// Waits for a row to come into the state.
    pub async fn until(&self, key: &Key, state: State) {
        let reached = async {
            while self.state(key).await != state {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{key} never is {}", state.name()));
    }

    /// What stands of a round's charges at the gateway: taken and not given back, an amount for each intent.
    pub fn standing(&self, key: &Key) -> Vec<i64> {
        let (saga, step, round) = (key.saga.to_string(), &key.step, key.round.to_string());
        let of_round = |intent: &&ledger::Intent| {
            let is = |name: &str, value: &str| intent.metadata.get(name).is_some_and(|found| found == value);
            is("saga", &saga) && is("step", step) && is("round", &round) && intent.status == Status::Succeeded
        };
        let left = |intent: &ledger::Intent| intent.amount - intent.refunded;
        self.ledger().intents.iter().filter(of_round).map(left).filter(|left| *left > 0).collect()
    }

    pub async fn payments(&self, key: &Key) -> Vec<Payment> {
        let query = PaymentQuery { booking: key.saga };
        self.ctx.nats.query("payments", "payment", &query).await.unwrap()
    }

    pub async fn dead_letters(&self) -> u64 {
        let dead = self.ctx.nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
        dead.cached_info().state.messages
    }

    pub fn ledger_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(ledger::FILE)).unwrap()
    }

    /// Waits until every saga that was to be opened is.
    pub async fn until_no_starts(&self) {
        let count = "SELECT count(*) FROM saga_starts WHERE NOT done";
        let none = async { while sqlx::query_scalar::<_, i64>(count).fetch_one(&self.pool).await.unwrap() > 0 {} };
        tokio::time::timeout(PATIENCE, none).await.expect("started");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.services.iter().for_each(JoinHandle::abort);
        if let Some(mock) = &self.mock {
            mock.abort();
        }
    }
}

async fn start_mock(config: Config) -> (Config, JoinHandle<anyhow::Result<()>>) {
    let server = Server::bind(config.clone()).await.unwrap();
    let config = Config { listen: server.local_addr(), ..config };
    (config, tokio::spawn(server.run(CancellationToken::new())))
}
