//! The connections of a process: one publishes, one consumes, so that a burst of messages never delays a publish.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};

/// How long a server that is not up is waited for at the start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Delay between two tries at the start.
const RETRY: Duration = Duration::from_millis(250);
/// Longest delay between two reconnects: a server that is back is found at once by people's measure.
const RECONNECT: Duration = Duration::from_millis(500);
/// How long an acknowledgement of a publish is waited for.
pub(crate) const ACK: Duration = Duration::from_secs(2);
/// Publishes in flight: more only lengthen the queue in the server.
const IN_FLIGHT: usize = 2_000;
/// Messages that one subscription may hold before the client drops some, which the event callback tells.
const SUBSCRIPTION: usize = 65_536;

/// The process cannot be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be read.
    #[error("NATS_URL is not an address such as nats://127.0.0.1:4222")]
    Address(#[source] std::io::Error),
    /// Nobody listens, or the credentials are refused.
    #[error("NATS cannot be reached")]
    Connect(#[source] async_nats::ConnectError),
}

/// The connections to the broker; cheap to clone.
#[derive(Clone)]
pub struct Nats {
    publisher: Client,
    subscriber: Client,
    publishing: jetstream::Context,
    consuming: jetstream::Context,
    /// The highest sequence that each stream acknowledged to this process.
    acknowledged: Arc<Mutex<HashMap<String, u64>>>,
}

impl Nats {
    /// Connects, waiting half a minute for a server that is not up; later losses are repaired in the background.
    ///
    /// # Errors
    /// The address is malformed, or no server answers.
    pub async fn connect(url: &str, process: &str) -> Result<Self, ConnectError> {
        let publisher = open(url, &format!("{process}-out")).await?;
        let subscriber = open(url, &format!("{process}-in")).await?;
        let publishing = ContextBuilder::new()
            .timeout(ACK)
            .ack_timeout(ACK)
            .max_ack_inflight(IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(publisher.clone());
        let consuming = ContextBuilder::new().timeout(ACK).build(subscriber.clone());
        Ok(Self { publisher, subscriber, publishing, consuming, acknowledged: Arc::default() })
    }

    /// Notes what a stream acknowledged.
    pub(crate) fn note_acknowledged(&self, stream: &str, sequence: u64) {
        let mut all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(stream) {
            Some(known) => *known = sequence.max(*known),
            None => drop(all.insert(stream.to_owned(), sequence)),
        }
    }

    /// The highest sequence that a stream acknowledged to this process: read before the stream's mark, it tells a stream
    /// that has lost what it acknowledged.
    pub fn acknowledged(&self, stream: &str) -> Option<u64> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).get(stream).copied()
    }

    /// Forgets it, once the loss is known.
    pub fn forget_acknowledged(&self, stream: &str) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).remove(stream);
    }

    /// The connection that publishes and asks.
    pub fn publisher(&self) -> &Client {
        &self.publisher
    }

    /// The connection that consumes and answers.
    pub fn subscriber(&self) -> &Client {
        &self.subscriber
    }

    /// JetStream over the publishing connection.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.publishing
    }

    /// JetStream over the consuming connection: consumers and their acknowledgements.
    pub(crate) fn consuming(&self) -> &jetstream::Context {
        &self.consuming
    }

    /// Whether both connections stand now.
    pub fn is_connected(&self) -> bool {
        let up = |c: &Client| c.connection_state() == async_nats::connection::State::Connected;
        up(&self.publisher) && up(&self.subscriber)
    }

    /// Sends what is buffered.
    pub async fn flush(&self) {
        let _ = tokio::join!(self.publisher.flush(), self.subscriber.flush());
    }
}

async fn open(url: &str, name: &str) -> Result<Client, ConnectError> {
    let addresses = url.split(',').map(|a| a.trim().parse::<ServerAddr>()).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(ConnectError::Address)?;
    let started = tokio::time::Instant::now();
    loop {
        let options = ConnectOptions::new()
            .name(name)
            .subscription_capacity(SUBSCRIPTION)
            .request_timeout(Some(ACK))
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(20).saturating_mul(1 << attempt.min(6)).min(RECONNECT)
            })
            .event_callback(tell);
        match with_credentials(options, &addresses).connect(addresses.as_slice()).await {
            Ok(client) => return Ok(client),
            Err(error) if started.elapsed() > PATIENCE => return Err(ConnectError::Connect(error)),
            Err(error) => {
                tracing::debug!(%error, "NATS is not ready");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The first address's user and password, or its user alone as a token; the client itself does not look for them there.
fn with_credentials(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    let Some(first) = addresses.iter().find(|a| a.has_user_pass()) else { return options };
    match (first.username(), first.password()) {
        (Some(user), Some(password)) => options.user_and_password(user.to_owned(), password.to_owned()),
        (Some(token), None) => options.token(token.to_owned()),
        _ => options,
    }
}

async fn tell(event: Event) {
    match event {
        Event::Connected => tracing::debug!("NATS is connected"),
        Event::Disconnected => tracing::warn!("NATS is disconnected"),
        Event::SlowConsumer(subscription) => {
            metrics::counter!(eventicket_contracts::metrics::NATS_DROPPED).increment(1);
            tracing::error!(subscription, "a subscription overflows and drops messages");
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS tells an error"),
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client tells an error"),
        other => tracing::debug!(%other, "NATS"),
    }
}
