//! What the tests share: a gateway that can crash, and calls to it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use eventicket_kit::http::ANY_PORT;
use eventicket_mock_gateway::{Config, Server, Webhooks};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const KEY: &str = "sk_test_1";
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct World {
    pub client: Client,
    pub address: SocketAddr,
    server: JoinHandle<anyhow::Result<()>>,
    pub folder: TempDir,
    webhooks: Option<Webhooks>,
}

impl World {
    pub async fn new() -> Self {
        Self::telling(None).await
    }

    /// One that tells what changes.
    pub async fn telling(webhooks: Option<Webhooks>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (address, server) = start(folder.path(), webhooks.clone()).await;
        Self { client: Client::new(), address, server, folder, webhooks }
    }

    /// As after kill -9: the task is dropped where it stands, and a new server reads the file.
    pub async fn crash(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
        (self.address, self.server) = start(self.folder.path(), self.webhooks.clone()).await;
    }

    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address)).bearer_auth(KEY).form(form)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        send(self.client.get(format!("http://{}{path}", self.address)).bearer_auth(KEY)).await
    }

    pub async fn create(&self) -> String {
        let form = [("amount", "4200"), ("currency", "eur"), ("metadata[saga]", "s1")];
        let (status, body) = send(self.post("/v1/payment_intents", &form)).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("requires_payment_method")));
        body["id"].as_str().unwrap().to_owned()
    }

    pub fn confirm(&self, intent: &str, token: &str, key: &str) -> RequestBuilder {
        let path = format!("/v1/payment_intents/{intent}/confirm");
        self.post(&path, &[("payment_method", token)]).header("Idempotency-Key", key)
    }

    pub fn cancel(&self, intent: &str) -> RequestBuilder {
        self.post(&format!("/v1/payment_intents/{intent}/cancel"), &[])
    }

    pub async fn paid(&self, token: &str) -> String {
        let intent = self.create().await;
        assert_eq!(send(self.confirm(&intent, token, &intent)).await.1["status"], "succeeded");
        intent
    }

    pub async fn refund(&self, intent: &str) -> (StatusCode, Value) {
        send(self.post("/v1/refunds", &[("payment_intent", intent)])).await
    }

    /// Looks until the object has this status.
    pub async fn until(&self, path: &str, status: &str) {
        let seen = async {
            while self.get(path).await.1["status"] != status {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{path} never is {status}"));
    }

    pub async fn settings(&self, settings: Value) -> Value {
        let url = format!("http://{}/test/settings", self.address);
        let response = self.client.post(url).bearer_auth(KEY).json(&settings).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }
}

async fn start(data: &Path, webhooks: Option<Webhooks>) -> (SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let config = Config { listen: ANY_PORT, data: data.to_owned(), key: KEY.into(), latency: Duration::ZERO, webhooks };
    let server = Server::bind(config).await.unwrap();
    (server.local_addr(), tokio::spawn(server.run(CancellationToken::new())))
}

pub async fn send(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}
