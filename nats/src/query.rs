//! Queries: questions to a service over core NATS, each an endpoint of a NATS micro service (ADR-32), so that
//! `nats micro ls` shows them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::client::RequestErrorKind;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Request, Service, ServiceExt};
use bytes::Bytes;
use eventicket_contracts::{metrics as names, subjects};
use futures::StreamExt;
use metrics::{Histogram, histogram};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::publish::bytes_of;
use crate::trace::{self, Span, Telling, Traceparent};
use crate::{Nats, SetupError};

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions of one endpoint that are answered at once.
const CONCURRENT: usize = 256;
/// Header of an answer that is a [`QueryError`].
const ERROR: &str = "Eventicket-Error";

/// A definite no to a query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct QueryError {
    /// Stable.
    pub code: String,
    /// For people.
    pub message: String,
    /// What the code's reader needs, as fields at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl QueryError {
    /// An error without details.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), details: None }
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryFailure {
    /// The service says no.
    #[error(transparent)]
    Refused(QueryError),
    /// No answer in time; what it asked for may have happened.
    #[error("no answer in time")]
    TimedOut,
    /// No replica of the service is there.
    #[error("nobody answers")]
    NobodyAnswers,
    /// The broker is away.
    #[error("not connected")]
    Disconnected,
    /// The answer is not of the query's form.
    #[error("an answer that cannot be read: {0}")]
    Malformed(String),
}

impl QueryFailure {
    /// Its code, or what it is.
    fn kind(&self) -> String {
        match self {
            Self::Refused(error) => error.code.clone(),
            Self::Malformed(_) => "malformed answer".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Nats {
    /// Asks a service.
    ///
    /// # Errors
    /// [`QueryFailure`], of which only `Refused` is an answer.
    pub async fn query<A: DeserializeOwned>(
        &self,
        service: &str,
        name: &str,
        query: &impl Serialize,
    ) -> Result<A, QueryFailure> {
        self.request(&subjects::query(service, name), query, TIMEOUT).await
    }

    /// A core NATS request, JSON both ways, with a span where it is asked [`trace::within`] a trace that is recorded.
    ///
    /// # Errors
    /// As [`Nats::query`].
    pub async fn request<A: DeserializeOwned>(
        &self,
        subject: &str,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<A, QueryFailure> {
        let mut span = trace::asked(subject);
        let place = span.as_ref().map(|span| span.place().to_string()).or_else(trace::here);
        let answer = self.ask(subject, request, timeout, place).await;
        if let (Some(span), Err(failure)) = (&mut span, &answer) {
            span.fail(failure.kind()); // its text may name somebody
        }
        answer
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        subject: &str,
        request: &impl Serialize,
        timeout: Duration,
        place: Option<String>,
    ) -> Result<A, QueryFailure> {
        if !self.is_connected() {
            return Err(QueryFailure::Disconnected);
        }
        let mut request = async_nats::Request::new().payload(bytes_of(request).into()).timeout(Some(timeout));
        if let Some(place) = place {
            let mut headers = HeaderMap::new();
            headers.insert(subjects::HEADER_TRACE, place);
            request = request.headers(headers);
        }
        let answer = self.publisher().send_request(subject.to_owned(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => QueryFailure::TimedOut,
            RequestErrorKind::NoResponders => QueryFailure::NobodyAnswers,
            _ => QueryFailure::Disconnected,
        })?;
        let malformed = |e: serde_json::Error| QueryFailure::Malformed(e.to_string());
        if answer.headers.as_ref().is_some_and(|h| h.get(ERROR).is_some()) {
            return Err(QueryFailure::Refused(serde_json::from_slice(&answer.payload).map_err(malformed)?));
        }
        serde_json::from_slice(&answer.payload).map_err(malformed)
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Vec<u8>, QueryError>> + Send>>;
type Handler = Arc<dyn Fn(Bytes) -> Answering + Send + Sync>;

/// How long a query's answers took; looked up once.
#[derive(Clone)]
struct Figures {
    ok: Histogram,
    refused: Histogram,
}

impl Figures {
    fn of(query: &str) -> Self {
        let of =
            |outcome: &'static str| histogram!(names::QUERY_SECONDS, "query" => query.to_owned(), "outcome" => outcome);
        Self { ok: of("ok"), refused: of("refused") }
    }
}

/// A service's queries.
pub struct QueryServer {
    name: String,
    client: async_nats::Client,
    service: Service,
    endpoints: Vec<(Endpoint, Handler, Figures)>,
}

impl QueryServer {
    /// Announces the micro service.
    ///
    /// # Errors
    /// NATS refuses it.
    pub async fn start(nats: &Nats, service: &str, description: &str) -> Result<Self, SetupError> {
        let builder = nats.subscriber().service_builder().description(description);
        let started = builder.start(service, env!("CARGO_PKG_VERSION")).await;
        let started =
            started.map_err(|e| SetupError::new(format!("the micro service {service} cannot be announced"), e))?;
        Ok(Self {
            name: service.to_owned(),
            client: nats.subscriber().clone(),
            service: started,
            endpoints: Vec::new(),
        })
    }

    /// Adds a query; it is answered once [`QueryServer::run`] runs.
    ///
    /// # Errors
    /// NATS refuses it.
    pub async fn endpoint<Q, A, F, Fut>(&mut self, name: &str, handler: F) -> Result<(), SetupError>
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
        F: Fn(Q) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, QueryError>> + Send + 'static,
    {
        let builder = self.service.endpoint_builder().name(name);
        let added = builder.add(subjects::query(&self.name, name)).await;
        let added = added.map_err(|e| SetupError::new(format!("the query {name} cannot be announced"), e))?;
        // Whoever is told that the service runs finds it there.
        let flushed = self.client.flush().await;
        flushed.map_err(|e| SetupError::new(format!("the query {name} cannot be announced"), e))?;
        let handler = Arc::new(handler);
        let erased: Handler = Arc::new(move |payload: Bytes| -> Answering {
            let handler = handler.clone();
            Box::pin(async move {
                let query = serde_json::from_slice(&payload)
                    .map_err(|e| QueryError::new("malformed", format!("the query cannot be read: {e}")))?;
                Ok(bytes_of(&handler(query).await?))
            })
        });
        self.endpoints.push((added, erased, Figures::of(&format!("{}.{name}", self.name))));
        Ok(())
    }

    /// Answers until shutdown, then finishes what is under way.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for (endpoint, handler, figures) in self.endpoints {
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                let asked = endpoint.take_until(shutdown.cancelled_owned());
                asked.for_each_concurrent(CONCURRENT, |r| answer(r, handler.clone(), figures.clone())).await;
            });
        }
        while tasks.join_next().await.is_some() {}
        shutdown.cancelled().await;
        if let Err(error) = self.service.stop().await {
            tracing::debug!(%error, "a micro service was not signed off");
        }
    }
}

async fn answer(request: Request, handler: Handler, figures: Figures) {
    let started = std::time::Instant::now();
    let asker = request.message.headers.as_ref().and_then(|headers| headers.get(subjects::HEADER_TRACE));
    let asker = asker.map(|place| place.as_str());
    let mut span = Span::below(asker, Telling::Server, || request.message.subject.to_string());
    let place = span.as_ref().map(Span::place).or_else(|| asker.and_then(Traceparent::parse));
    let handled = trace::within(place, handler(request.message.payload.clone()));
    // A task of its own, so that a panic ends this answer only.
    let answer = match tokio::spawn(handled).await {
        Ok(answer) => answer,
        Err(_) => Err(QueryError::new("internal", "the query failed")),
    };
    if let (Some(span), Err(error)) = (&mut span, &answer) {
        span.fail(error.code.clone());
    }
    drop(span);
    let took = if answer.is_ok() { &figures.ok } else { &figures.refused };
    took.record(started.elapsed().as_secs_f64());
    let mut headers = HeaderMap::new();
    let body = match answer {
        Ok(body) => body,
        Err(error) => {
            headers.insert(ERROR, error.code.replace(|c: char| c.is_control(), " "));
            bytes_of(&error)
        }
    };
    if let Err(error) = request.respond_with_headers(Ok(body.into()), headers).await {
        tracing::debug!(%error, "an answer was not sent");
    }
}
