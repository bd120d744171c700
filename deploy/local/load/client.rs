//! Kept-alive HTTP/1.1 connections, one request each at a time.

use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

type Connection = SendRequest<Full<Bytes>>;

/// Connections to one address, bounded in number.
pub struct Pool {
    address: String,
    idle: Mutex<Vec<Connection>>,
    free: Semaphore,
}

impl Pool {
    /// No connection yet.
    pub fn new(address: String, most: usize) -> Self {
        Self { address, idle: Mutex::new(Vec::new()), free: Semaphore::new(most) }
    }

    /// Books, waiting ten seconds for the end; status and body of the answer.
    pub async fn book(&self, token: &str, key: &str, body: String) -> anyhow::Result<(u16, Bytes)> {
        let _permit = self.free.acquire().await?;
        let mut connection = match self.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let request = hyper::Request::post("/v1/bookings")
            .header("host", &self.address)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .header("prefer", "wait=10")
            .body(Full::new(Bytes::from(body)))?;
        let response = connection.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok((status, body))
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    async fn open(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await.context("the gateway cannot be reached")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
