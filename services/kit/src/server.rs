//! A server of many small requests over HTTP/1.1: each is read whole and answered by one function. What has an API for
//! people, with routes and middleware, is better served by axum.

use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long requests under way may take after shutdown; nobody else takes new ones meanwhile.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Before the next try to accept, where the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An answer with its whole body.
pub type Whole = Response<Full<Bytes>>;

/// Answers requests.
pub trait Answers: Clone + Send + Sync + 'static {
    /// Most bytes of a request's body; a longer one is answered 413.
    const MOST_BYTES: usize;

    /// Answers a request. `None` cuts its connection in place of an answer.
    fn answer(&self, head: &Parts, body: Bytes) -> impl Future<Output = Option<Whole>> + Send;
}

/// Serves until shutdown, then lets requests under way end. Dropping it cuts every connection.
pub async fn serve(listener: TcpListener, answers: impl Answers, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, answers.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_REQUESTS, ended).await;
}

async fn connection<A: Answers>(stream: TcpStream, answers: A, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let answers = answers.clone();
        async move {
            let (head, body) = request.into_parts();
            match Limited::new(body, A::MOST_BYTES).collect().await {
                // An error in place of a response closes the connection without one.
                Ok(body) => answers.answer(&head, body.to_bytes()).await.ok_or(Cut),
                Err(_) => Ok(status(StatusCode::PAYLOAD_TOO_LARGE)),
            }
        }
    });
    // Answers are short: copied behind their head they leave in one piece.
    let mut serving = pin!(http1::Builder::new().writev(false).serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// An answer that is a status and nothing else.
pub fn status(status: StatusCode) -> Whole {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[derive(Debug, thiserror::Error)]
#[error("the answer is left out on purpose")]
struct Cut;
