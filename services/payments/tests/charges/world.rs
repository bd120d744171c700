//! What the tests share: the service, a mock gateway behind a gate that can hold calls, and the way of commands and replies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use eventicket_contracts::envelope::{Answer, DomainEvent, Envelope, Half, Item, Key, Reply};
use eventicket_contracts::payments::{Payment, PaymentQuery};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Currency, CustomerId, Money, SagaId, Timestamp};
use eventicket_kit::Context;
use eventicket_kit::seal::SealKeys;
use eventicket_mock_gateway::ledger::{self, Ledger, Status};
use eventicket_mock_gateway::{Config, Server};
use eventicket_nats::{Outgoing, command_headers};
use eventicket_payments::{ChargeRow, DATABASE, MIGRATOR};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
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
    replies: async_nats::Subscriber,
    events: async_nats::Subscriber,
    /// Replies that came while another one was awaited.
    early: Vec<Reply>,
}

impl World {
    pub async fn new() -> Self {
        let w = eventicket_testkit::world().await;
        let url = w.database(DATABASE, &MIGRATOR).await;
        let ctx = Context::for_tests(&w.database_url, &w.nats_url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let key = ctx.settings.payment_gateway_key.clone();
        let config = Config { listen, data: folder.path().to_owned(), key, latency: Duration::ZERO };
        let (config, mock) = start_mock(config).await;
        let gate = Gate::new(config.listen).await;
        let ctx = ctx.with_settings(|s| {
            s.database_prefix = w.prefix.clone();
            s.payment_gateway_url = format!("http://{}", gate.address);
        });
        let replies = ctx.nats.subscriber().subscribe(subjects::reply(0)).await.unwrap();
        let events = ctx.nats.subscriber().subscribe("evt.payment.>").await.unwrap();
        ctx.nats.flush().await;
        let pool = PgPool::connect(&url).await.unwrap();
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
        let url = format!("http://{}/test/settings", self.config.listen);
        let request = reqwest::Client::new().post(url).bearer_auth(&self.config.key).json(&settings);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    /// Ends the test: what is left over fails it.
    pub async fn end(mut self) {
        self.ctx.shutdown.cancel();
        for service in self.services.drain(..) {
            service.await.unwrap().unwrap();
        }
        let dead = self.ctx.nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
        assert_eq!(dead.cached_info().state.messages, 0, "dead letters are left");
        let rows = self.rows().await;
        let due: Vec<_> = rows.iter().filter(|row| row.state.is_due()).collect();
        assert!(due.is_empty(), "left over: {due:?}");
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM charges WHERE method IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        assert_eq!(kept, 0, "sealed methods are left");
    }

    pub fn key(&self) -> Key {
        Key { saga: SagaId::fresh(), step: "PAY".into(), round: 1 }
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
        self.send("refund", vec![item(key, Half::Undo, &json!({"reason": "cancelled"}), None)]).await;
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
            let message = tokio::time::timeout(PATIENCE, self.replies.next()).await;
            let message = message.unwrap_or_else(|_| panic!("no answer to {half:?} of {key}")).unwrap();
            let envelope: Envelope<Reply> = serde_json::from_slice(&message.payload).unwrap();
            self.early.extend(envelope.items);
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

    pub async fn payments(&self, key: &Key) -> Vec<Payment> {
        let query = PaymentQuery { booking: key.saga };
        self.ctx.nats.query("payments", "payment", &query).await.unwrap()
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

pub fn item(key: &Key, half: Half, body: &Value, deadline: Option<Timestamp>) -> Item {
    let body = RawValue::from_string(body.to_string()).unwrap();
    Item { key: key.clone(), half, attempt: 1, deadline, trace: None, body }
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}

/// The code of a rejection.
pub fn code(answer: &Answer) -> &str {
    match answer {
        Answer::Rejected(rejection) => &rejection.code,
        other => panic!("not rejected: {other:?}"),
    }
}

pub fn refunded(amount: Option<Money>) -> Answer {
    Answer::done(json!({ "amount": amount }))
}

async fn start_mock(config: Config) -> (Config, JoinHandle<anyhow::Result<()>>) {
    let server = Server::bind(config.clone()).await.unwrap();
    let config = Config { listen: server.local_addr(), ..config };
    (config, tokio::spawn(server.run(CancellationToken::new())))
}

/// Stands between the service and the gateway, and holds the calls that it is told to.
pub struct Gate {
    address: SocketAddr,
    rule: Rule,
    held: mpsc::Receiver<()>,
}

/// Which calls are held: those whose path ends so, before the gateway gets them or when it has answered.
#[derive(Clone, Copy)]
pub enum Hold {
    Before(&'static str),
    After(&'static str),
}

type Rule = Arc<Mutex<Option<Hold>>>;

#[derive(Clone)]
struct Passage {
    target: SocketAddr,
    client: reqwest::Client,
    rule: Rule,
    held: mpsc::Sender<()>,
}

impl Gate {
    async fn new(target: SocketAddr) -> Self {
        let (tell, held) = mpsc::channel(16);
        let rule = Rule::default();
        let passage = Passage { target, client: reqwest::Client::new(), rule: Arc::clone(&rule), held: tell };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass).with_state(passage);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, rule, held }
    }

    /// From now on.
    pub fn hold(&self, hold: Hold) {
        *self.rule.lock().unwrap() = Some(hold);
    }

    /// Lets later calls pass; those that are held are never answered.
    pub fn open(&self) {
        *self.rule.lock().unwrap() = None;
    }

    /// Waits until a call is held.
    pub async fn holds(&mut self) {
        tokio::time::timeout(PATIENCE, self.held.recv()).await.expect("no call is held").unwrap();
    }
}

async fn pass(State(passage): State<Passage>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let rule = *passage.rule.lock().unwrap();
    if matches!(rule, Some(Hold::Before(end)) if path.ends_with(end)) {
        return passage.hold().await;
    }
    let url = format!("http://{}{path}", passage.target);
    let mut headers = parts.headers;
    headers.remove("host");
    let answer = passage.client.request(parts.method, url).headers(headers).body(body).send().await;
    if matches!(rule, Some(Hold::After(end)) if path.ends_with(end)) {
        return passage.hold().await;
    }
    // What is lost behind the gate is lost before it: the gateway's own answers only are passed on.
    let Ok(answer) = answer else { return (StatusCode::BAD_GATEWAY, "lost").into_response() };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

impl Passage {
    async fn hold(&self) -> Response {
        let _ = self.held.send(()).await;
        std::future::pending().await
    }
}
