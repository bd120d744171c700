//! A client of one HTTP server that takes many small requests: hyper's connections over TCP or TLS, kept in a list between
//! requests, and answers that are read whole.
//!
//! No redirects, no proxies, no compression, and no repeats: whether a request may be sent again is for its caller to say.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is not used again: servers close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const MOST: usize = 4 * 1024 * 1024;

/// The address is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// It is no `http://` or `https://` with a host.
    #[error("{0} is no address of HTTP")]
    Form(String),
    /// What the machine trusts cannot be read.
    #[error("no trusted certificates")]
    Trust(#[from] rustls::Error),
}

/// Why there is no answer; but for `Connect` the request may have arrived.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("no answer")]
    Http(#[from] hyper::Error),
    /// The answer broke off, or is longer than any that is waited for.
    #[error("no whole answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
}

/// Where requests go; shared by all who send them.
pub struct Client {
    host: String,
    port: u16,
    /// The `Host` header.
    authority: HeaderValue,
    /// Stands before each path.
    prefix: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Idle>>,
    most_idle: usize,
    /// For one request with its answer.
    patience: Duration,
}

/// A connection that waits for its next request.
struct Idle {
    connection: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Client {
    /// A client of the server at `base`, whose path stands before those of requests. At most `most_idle` connections are
    /// kept; an answer is waited for as long as `patience`.
    ///
    /// # Errors
    /// The address has another form, or nothing is known that vouches for servers.
    pub fn new(base: &str, most_idle: usize, patience: Duration) -> Result<Self, BadAddress> {
        let form = || BadAddress::Form(base.to_owned());
        let uri: Uri = base.parse().map_err(|_| form())?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else { return Err(form()) };
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(form()),
        };
        let (port, plain) = match uri.port_u16() {
            Some(port) => (port, format!("{host}:{port}")),
            None => (if secure { 443 } else { 80 }, host.to_owned()),
        };
        // No user, no port that is no number.
        if host.is_empty() || authority.as_str() != plain || uri.query().is_some() {
            return Err(form());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if secure {
            crate::tls::install();
            let name = ServerName::try_from(host.clone()).map_err(|_| form())?;
            Some((TlsConnector::from(Arc::new(ClientConfig::with_platform_verifier()?)), name))
        } else {
            None
        };
        let authority = HeaderValue::try_from(plain).map_err(|_| form())?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port, authority, prefix, tls, idle: Mutex::default(), most_idle, patience })
    }

    /// Begins a request to a path, with or without a query, below the client's address.
    pub fn request(&self, method: Method, path: impl Display) -> Builder {
        let path = format!("{}{path}", self.prefix);
        let path = if path.is_empty() { "/" } else { &path };
        Request::builder().method(method).uri(path).header(HOST, &self.authority)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// [`CallError`] tells whether the request may have arrived.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        timeout(self.patience, self.exchange(request.map(Full::new))).await.unwrap_or(Err(CallError::TimedOut))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, CallError> {
        let mut connection = match self.kept().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = Limited::new(body, MOST).collect().await.map_err(CallError::Body)?.to_bytes();
        self.keep(connection);
        Ok(Response::from_parts(head, body))
    }

    /// A connection that the other side has not closed.
    async fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let Idle { mut connection, since } = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < IDLE && connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle && !connection.is_closed() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let connected = timeout(CONNECT, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(CallError::Connect)?;
            stream.set_nodelay(true).map_err(CallError::Connect)?;
            match &self.tls {
                None => shake_hands(stream).await,
                Some((tls, name)) => {
                    shake_hands(tls.connect(name.clone(), stream).await.map_err(CallError::Connect)?).await
                }
            }
        });
        connected.await.unwrap_or_else(|_| Err(CallError::Connect(io::ErrorKind::TimedOut.into())))
    }
}

/// Hands a stream to hyper; its connection lives as long as who sends on it.
async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, CallError> {
    // Requests are short: copied behind their head they leave in one piece.
    let (sender, connection) = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests;
