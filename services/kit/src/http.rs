//! Listeners, and the endpoints of health and metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections that wait to be accepted, as far as the kernel lets it: Linux allows as many. One too many is dropped, and who
/// connects tries again only after a second, so that of a rush's first moment whole thousands would be a second late.
const BACKLOG: i32 = 4096;

/// A free port of 127.0.0.1, for who listens.
pub const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Whether the process can serve now: its dependencies answer.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// Binds with `SO_REUSEPORT`, so that replicas on one machine share a port. Port 0 takes a free one.
pub fn bind_reuseport(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = shared(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A port that is kept for those who will share it by [`bind_reuseport`]: nobody else is given it meanwhile, and nothing
/// connects to it.
pub struct Reserved(Socket);

impl Reserved {
    /// Keeps this port; 0 keeps a free one.
    ///
    /// # Errors
    /// It is taken, or not allowed.
    pub fn new(address: SocketAddr) -> std::io::Result<Self> {
        // Without SO_REUSEADDR, by which others could take what nobody listens on.
        let socket = shared(address)?;
        socket.bind(&address.into())?;
        Ok(Self(socket))
    }

    /// The address with its port.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        let address = self.0.local_addr()?;
        address.as_socket().ok_or_else(|| std::io::Error::other("the address is none of the internet"))
    }
}

fn shared(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(socket)
}

/// The routes `/healthz` (the process lives), `/readyz` (it can serve, else 503) and `/metrics`.
pub fn operations<S: Clone + Send + Sync + 'static>(ready: Ready) -> Router<S> {
    let readyz = move || {
        let ready = ready();
        async move { if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") } }
    };
    Router::new().route("/healthz", get(async || "ok")).route("/readyz", get(readyz)).route("/metrics", get(metrics))
}

async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], crate::prometheus::render())
}

/// Serves [`operations`] until shutdown, for processes that have no API of their own.
pub async fn serve_operations(listener: TcpListener, ready: Ready, shutdown: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, operations(ready)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_are_served() {
        crate::prometheus::install();
        metrics::counter!("kit_test_total").increment(3);
        metrics::histogram!("kit_test_seconds").record(0.02);
        metrics::histogram!("kit_test_items").record(100.0);
        let listener = bind_reuseport(ANY_PORT).unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, shutdown) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let flag = Arc::clone(&ready);
        let server =
            tokio::spawn(serve_operations(listener, Arc::new(move || flag.load(Ordering::SeqCst)), shutdown.clone()));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        ready.store(true, Ordering::SeqCst);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let text = get(address, "/metrics").await;
        assert!(text.contains("kit_test_total 3"), "{text}");
        assert!(text.contains("kit_test_seconds_bucket{le=\"0.025\"} 1"), "{text}");
        assert!(text.contains("kit_test_items_bucket{le=\"128\"} 1"), "{text}");

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_is_kept_for_those_who_share_it() {
        let reserved = Reserved::new(ANY_PORT).unwrap();
        let address = reserved.address().unwrap();
        assert!(std::net::TcpListener::bind(address).is_err(), "not for others");
        drop(bind_reuseport(address).unwrap());
        bind_reuseport(address).unwrap();
    }

    #[tokio::test]
    async fn two_listeners_share_a_port() {
        let first = bind_reuseport(ANY_PORT).unwrap();
        let second = bind_reuseport(first.local_addr().unwrap()).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }
}
