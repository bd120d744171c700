//! A gate between the service and the payment gateway.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Notify, mpsc};

use crate::world::PATIENCE;

/// Stands between the service and the gateway, and holds the calls that it is told to.
pub struct Gate {
    pub address: SocketAddr,
    rule: Rule,
    held: mpsc::Receiver<()>,
    release: Arc<Notify>,
    traffic: Arc<Traffic>,
}

/// Calls that are under way, and how many at most there were.
#[derive(Default)]
struct Traffic {
    now: AtomicUsize,
    most: AtomicUsize,
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
    release: Arc<Notify>,
    traffic: Arc<Traffic>,
}

impl Gate {
    pub async fn new(target: SocketAddr) -> Self {
        let (tell, held) = mpsc::channel(16);
        let (rule, release, traffic) = (Rule::default(), Arc::new(Notify::new()), Arc::<Traffic>::default());
        let client = reqwest::Client::new();
        let (rules, releases, counts) = (rule.clone(), release.clone(), traffic.clone());
        let passage = Passage { target, client, rule: rules, held: tell, release: releases, traffic: counts };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass).with_state(passage);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, rule, held, release, traffic }
    }

    /// From now on.
    pub fn hold(&self, hold: Hold) {
        *self.rule.lock().unwrap() = Some(hold);
    }

    /// Lets later calls pass; those that are held stay so.
    pub fn open(&self) {
        *self.rule.lock().unwrap() = None;
    }

    /// Lets also those pass that are held.
    pub fn release(&self) {
        self.open();
        self.release.notify_waiters();
    }

    /// Most calls that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.traffic.most.load(Ordering::SeqCst)
    }

    /// Waits until a call is held.
    pub async fn holds(&mut self) {
        tokio::time::timeout(PATIENCE, self.held.recv()).await.expect("no call is held").unwrap();
    }
}

async fn pass(State(passage): State<Passage>, request: Request) -> Response {
    let now = passage.traffic.now.fetch_add(1, Ordering::SeqCst) + 1;
    passage.traffic.most.fetch_max(now, Ordering::SeqCst);
    let _ends = Ends(&passage.traffic.now);
    forward(&passage, request).await
}

/// A call is under way until its answer leaves, or its caller has gone.
struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn forward(passage: &Passage, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let rule = *passage.rule.lock().unwrap();
    if matches!(rule, Some(Hold::Before(end)) if path.ends_with(end)) {
        passage.hold().await;
    }
    let url = format!("http://{}{path}", passage.target);
    let mut headers = parts.headers;
    headers.remove("host");
    let answer = passage.client.request(parts.method, url).headers(headers).body(body).send().await;
    if matches!(rule, Some(Hold::After(end)) if path.ends_with(end)) {
        passage.hold().await;
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
    async fn hold(&self) {
        let released = self.release.notified();
        let _ = self.held.send(()).await;
        released.await;
    }
}
