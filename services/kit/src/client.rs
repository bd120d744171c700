//! A client of one HTTP server that takes many small requests: connections that are kept, a request written at once, its
//! answer read in place.
//!
//! HTTP/1.1 in the clear or over TLS, answers with a length, in chunks, or until the connection ends. No redirects, no
//! proxies, no compression, and no repeats: whether a request may be sent again is for its caller to say.

mod answer;

use std::fmt::{Display, Write as _};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use answer::Answer;
use answer::{Head, Malformed};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is not used again: servers close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes that one read makes room for; most answers fit.
const READ: usize = 4 * 1024;
/// Most bytes of memory that a kept connection holds on to.
const MOST_KEPT: usize = 16 * 1024;
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A header or the path holds what would end it; nothing was sent.
    #[error("the request cannot be written")]
    Request,
    /// Nothing was sent.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// It may have arrived.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// It arrived.
    #[error("the answer makes no sense")]
    Malformed(#[from] Malformed),
    /// It may have arrived.
    #[error("no answer in time")]
    TimedOut,
}

/// Where requests go; shared by all who send them.
pub struct Client {
    host: String,
    port: u16,
    /// As the `Host` header has it.
    authority: String,
    /// Stands before each path.
    prefix: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Connection>>,
    most_idle: usize,
    /// For one request with its answer.
    patience: Duration,
}

/// A request, written as it is built.
pub struct Request {
    text: String,
    bad: bool,
}

struct Connection {
    stream: Stream,
    /// What was read of an answer.
    read: Vec<u8>,
    used: Instant,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Client {
    /// A client of the server at `base`, whose path stands before those of requests. At most `most_idle` connections are
    /// kept; an answer is waited for as long as `patience`.
    ///
    /// # Errors
    /// The address has another form, or nothing is known that vouches for servers.
    pub fn new(base: &str, most_idle: usize, patience: Duration) -> Result<Self, BadAddress> {
        let form = || BadAddress::Form(base.to_owned());
        let (scheme, rest) = base.split_once("://").ok_or_else(form)?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(form()),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| form())?),
            _ => (authority, if secure { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || !is_plain(authority) || !is_plain(prefix) {
            return Err(form());
        }
        let tls = if secure {
            crate::tls::install();
            let name = ServerName::try_from(host.clone()).map_err(|_| form())?;
            Some((TlsConnector::from(Arc::new(ClientConfig::with_platform_verifier()?)), name))
        } else {
            None
        };
        let (authority, prefix) = (authority.to_owned(), prefix.trim_end_matches('/').to_owned());
        Ok(Self { host, port, authority, prefix, tls, idle: Mutex::default(), most_idle, patience })
    }

    /// Begins a request.
    pub fn request(&self, method: &str, path: impl Display) -> Request {
        let mut request = Request { text: String::with_capacity(1024), bad: false };
        let (prefix, authority) = (&self.prefix, &self.authority);
        let _ = write!(request.text, "{method} {prefix}{path}");
        let target = request.text.len() - method.len() - 1;
        if target == 0 {
            request.text.push('/');
        }
        request.bad = !request.text[method.len() + 1..].bytes().all(|byte| byte.is_ascii_graphic());
        let _ = write!(request.text, " HTTP/1.1\r\nHost: {authority}\r\n");
        request
    }

    /// Sends a request and hands its answer to `take`.
    ///
    /// # Errors
    /// [`CallError`] tells whether the request may have arrived.
    pub async fn call<T>(&self, request: Request, take: impl FnOnce(&Answer<'_>) -> T) -> Result<T, CallError> {
        if request.bad {
            return Err(CallError::Request);
        }
        timeout(self.patience, self.exchange(request.text.as_bytes(), take)).await.unwrap_or(Err(CallError::TimedOut))
    }

    async fn exchange<T>(&self, request: &[u8], take: impl FnOnce(&Answer<'_>) -> T) -> Result<T, CallError> {
        let mut connection = match self.kept() {
            Some(connection) => connection,
            None => self.connect().await.map_err(CallError::Connect)?,
        };
        connection.stream.write(request).await?;
        let (answer, keeps) = connection.answer().await?;
        let taken = take(&answer);
        if keeps {
            self.keep(connection);
        }
        Ok(taken)
    }

    /// A connection that nothing has happened on since its last answer.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.used.elapsed() < IDLE && connection.stream.is_silent() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        connection.read.shrink_to(MOST_KEPT);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(match &self.tls {
                None => Stream::Clear(stream),
                Some((tls, name)) => Stream::Tls(Box::new(tls.connect(name.clone(), stream).await?)),
            })
        };
        let stream = timeout(CONNECT, connect).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Connection { stream, read: Vec::with_capacity(READ), used: Instant::now() })
    }
}

impl Request {
    /// As it is sent; `None` where it cannot be.
    pub fn text(&self) -> Option<&str> {
        (!self.bad).then_some(&self.text)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        let begin = self.text.len();
        let _ = write!(self.text, "{name}: {value}");
        self.bad |= self.text[begin..].bytes().any(|byte| byte.is_ascii_control());
        self.text.push_str("\r\n");
        self
    }

    /// Ends it without a body.
    #[must_use]
    pub fn empty(mut self) -> Self {
        self.text.push_str("Content-Length: 0\r\n\r\n");
        self
    }

    /// Ends it with a body.
    #[must_use]
    pub fn body(mut self, kind: &str, body: &str) -> Self {
        let _ = write!(self.text, "Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self
    }
}

impl Connection {
    /// Reads one answer; whether the connection can be used again.
    async fn answer(&mut self) -> Result<(Answer<'_>, bool), CallError> {
        self.read.clear();
        let head = loop {
            match Head::read(&self.read)? {
                // An answer on the way to the answer.
                Some(head) if head.is_informational() => drop(self.read.drain(..head.length())),
                Some(head) => break head,
                None => {
                    if !self.more().await? {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        };
        while !head.is_whole(&self.read)? {
            if !self.more().await? {
                if head.ends_with_connection() {
                    break;
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let keeps = head.keeps(&self.read);
        Ok((head.answer(&mut self.read)?, keeps))
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> Result<bool, CallError> {
        if self.read.len() > MOST {
            return Err(Malformed::TooLong.into());
        }
        self.read.reserve(READ);
        let read = match &mut self.stream {
            Stream::Clear(stream) => stream.read_buf(&mut self.read).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.read).await?,
        };
        Ok(read > 0)
    }
}

impl Stream {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Whether nothing came that nobody has read: the other side neither closed nor spoke.
    fn is_silent(&self) -> bool {
        let stream = match self {
            Self::Clear(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests;
