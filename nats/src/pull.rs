//! Messages of a durable consumer, through the loss of the stream, of the consumer and of the connection.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::topology::ensure_stream;
use crate::{Nats, SetupError, StreamLimits, lag};

/// A message with its acknowledgement.
pub type Message = async_nats::jetstream::Message;

/// The server tells in this rhythm that it is there; two beats missing mean that something is lost.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Length of one pull request.
const EXPIRES: Duration = Duration::from_secs(30);
/// Messages asked for at once; prefetched ones age against `ack_wait`, so it is kept small: envelopes are large.
const PREFETCH: usize = 128;
/// Delay between two tries to set up what was lost.
const REBUILD: Duration = Duration::from_millis(200);

/// A durable consumer.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// The stream's name.
    pub stream: String,
    /// The consumer's name, shared by the replicas.
    pub durable: String,
    /// The subjects that it gets.
    pub filter: String,
    /// A message that is not acknowledged comes again after this.
    pub ack_wait: Duration,
    /// Most messages without acknowledgement, over all replicas.
    pub max_ack_pending: i64,
}

impl Default for ConsumerSpec {
    fn default() -> Self {
        Self {
            stream: String::new(),
            durable: String::new(),
            filter: String::new(),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 10_000,
        }
    }
}

/// The messages of a durable consumer. Stream and consumer are made, and made again after a loss.
pub struct Pull {
    nats: Nats,
    spec: ConsumerSpec,
    limits: StreamLimits,
    shutdown: CancellationToken,
    stream: Option<pull::Stream>,
}

impl Pull {
    /// Sets up stream and consumer.
    ///
    /// # Errors
    /// The server refuses them.
    pub async fn open(
        nats: Nats,
        spec: ConsumerSpec,
        limits: StreamLimits,
        shutdown: CancellationToken,
    ) -> Result<Self, SetupError> {
        let mut pull = Self { nats, spec, limits, shutdown, stream: None };
        pull.stream = Some(pull.build().await?);
        tokio::spawn(lag::watch(pull.nats.clone(), pull.spec.clone(), pull.shutdown.clone()));
        Ok(pull)
    }

    async fn build(&self) -> Result<pull::Stream, SetupError> {
        ensure_stream(&self.nats, &self.spec.stream, &self.limits).await?;
        let config = pull::Config {
            durable_name: Some(self.spec.durable.clone()),
            filter_subject: self.spec.filter.clone(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.spec.ack_wait,
            max_ack_pending: self.spec.max_ack_pending,
            max_deliver: -1,
            ..pull::Config::default()
        };
        let consumer = self.nats.consuming().create_consumer_on_stream(config, self.spec.stream.as_str()).await;
        let failed = |e: async_nats::Error| SetupError::new(format!("no consumer of {}", self.spec.stream), e);
        let consumer = consumer.map_err(|e| failed(e.into()))?;
        let stream = consumer.stream().max_messages_per_batch(PREFETCH).heartbeat(HEARTBEAT).expires(EXPIRES);
        stream.messages().await.map_err(|e| failed(e.into()))
    }

    /// Waits for a message and takes with it those that are ready, at most `most`; `None` after shutdown.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Message>> {
        loop {
            if self.shutdown.is_cancelled() {
                self.give_back().await;
                return None;
            }
            let Some(stream) = &mut self.stream else {
                self.rebuild().await;
                continue;
            };
            let first = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => continue,
                first = stream.next() => first,
            };
            let mut messages = Vec::new();
            let mut lost = first.is_none();
            let mut item = first;
            while let Some(next) = item.take() {
                match next {
                    Ok(message) => messages.push(message),
                    Err(error) => {
                        tracing::debug!(stream = self.spec.stream, %error, "a consumer is set up again");
                        lost = true;
                        break;
                    }
                }
                if messages.len() < most {
                    item = stream.next().now_or_never().flatten();
                }
            }
            if lost {
                self.stream = None;
            }
            if !messages.is_empty() {
                return Some(messages);
            }
        }
    }

    /// What is prefetched goes to another replica at once, not only when its time to be acknowledged is over.
    async fn give_back(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        while let Some(Some(Ok(message))) = stream.next().now_or_never() {
            if message.ack_with(AckKind::Nak(None)).await.is_err() {
                return;
            }
        }
    }

    async fn rebuild(&mut self) {
        match self.build().await {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                tracing::debug!(stream = self.spec.stream, %error, "a consumer cannot be set up yet");
                tokio::select! { () = tokio::time::sleep(REBUILD) => {}, () = self.shutdown.cancelled() => {} }
            }
        }
    }
}
