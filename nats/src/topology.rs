//! The streams: made when they are missing, updated when their limits change, and watched for loss.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{Nats, SetupError};

/// How long events are kept.
const EVENTS_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Between two looks whether all streams are there.
const LOOK: Duration = Duration::from_secs(1);
/// Most bytes of a message of commands or replies, its headers included: whatever is stored must fit a message of the
/// server (1 MiB by default) also as a dead letter, which has further headers.
const MESSAGE: i32 = (1 << 20) - (16 << 10);
/// How long a message id is remembered.
const DUPLICATES: Duration = Duration::from_secs(120);

/// Sizes of the streams in bytes, reserved when they are created; together they must fit the server's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Of each stream of commands.
    pub commands: i64,
    /// Of the replies.
    pub replies: i64,
    /// Of the events.
    pub events: i64,
    /// Of the dead letters.
    pub dead_letters: i64,
    /// Copies of each stream: 1 on one machine, 3 in a cluster.
    pub replicas: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        const MIB: i64 = 1 << 20;
        Self { commands: 64 * MIB, replies: 64 * MIB, events: 1_024 * MIB, dead_letters: 256 * MIB, replicas: 1 }
    }
}

impl StreamLimits {
    /// A few MiB each, for tests.
    pub fn small() -> Self {
        const MIB: i64 = 1 << 20;
        Self { commands: 8 * MIB, replies: 8 * MIB, events: 8 * MIB, dead_letters: 8 * MIB, replicas: 1 }
    }

    /// Bytes that all streams reserve.
    pub fn total(&self) -> i64 {
        let services = i64::try_from(Service::ALL.len()).unwrap_or(i64::MAX);
        self.commands * services + self.replies + self.events + self.dead_letters
    }
}

/// Makes every stream that is missing and updates those whose limits have changed.
///
/// # Errors
/// The server refuses a stream, as where its store is too small.
pub async fn ensure_streams(nats: &Nats, limits: &StreamLimits) -> Result<(), SetupError> {
    for config in all(limits) {
        ensure(nats.jetstream(), config).await?;
    }
    Ok(())
}

/// Makes streams again that are deleted under the platform, also those that nobody pulls from; runs until shutdown.
pub async fn keep_streams(nats: Nats, limits: StreamLimits, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        if let Err(error) = ensure_streams(&nats, &limits).await {
            tracing::debug!(%error, "the streams cannot be looked after now");
        }
    }
}

/// Makes or updates one stream by its name.
pub(crate) async fn ensure_stream(nats: &Nats, name: &str, limits: &StreamLimits) -> Result<(), SetupError> {
    let own = all(limits).into_iter().find(|c| c.name == name);
    // A service of somebody who builds on this runtime.
    let foreign = || {
        let service = subjects::service_of_stream(name)?;
        Some(Config { num_replicas: limits.replicas, ..queue(name, subjects::commands_of(&service), limits.commands) })
    };
    let config = own.or_else(foreign).ok_or_else(|| SetupError::plain(format!("no stream is named {name}")))?;
    ensure(nats.jetstream(), config).await
}

fn all(limits: &StreamLimits) -> Vec<Config> {
    let mut configs: Vec<Config> =
        Service::ALL.into_iter().map(|s| queue(&s.stream(), s.commands(), limits.commands)).collect();
    configs.push(queue(subjects::REPLIES_STREAM, subjects::REPLIES.to_owned(), limits.replies));
    configs.push(log(subjects::EVENTS_STREAM, subjects::EVENTS, limits.events, EVENTS_AGE));
    configs.push(log(subjects::DEADLETTERS_STREAM, subjects::DEADLETTERS, limits.dead_letters, Duration::ZERO));
    for config in &mut configs {
        config.num_replicas = limits.replicas;
    }
    configs
}

/// A queue is in memory: what it held is sent again where it is lost, as after a restart of the server (6.11), and a
/// store of files makes and removes one whenever a queue runs empty, a third of the server's CPU.
fn queue(name: &str, subject: String, bytes: i64) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_bytes: bytes,
        max_message_size: MESSAGE,
        storage: StorageType::Memory,
        ..base()
    }
}

fn log(name: &str, subject: &str, bytes: i64, age: Duration) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_bytes: bytes,
        max_age: age,
        ..base()
    }
}

fn base() -> Config {
    Config {
        storage: StorageType::File,
        duplicate_window: DUPLICATES,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        allow_direct: true,
        ..Config::default()
    }
}

/// A stream's sequences begin at the microseconds since 1970, so that none is ever used twice: else a late
/// acknowledgement for a stream that was deleted would take a message from its successor.
fn first_sequence(now: Timestamp) -> u64 {
    u64::try_from(now.millis()).unwrap_or(0).saturating_mul(1_000)
}

async fn ensure(context: &Context, mut config: Config) -> Result<(), SetupError> {
    if let Some(there) = info(context, &config.name).await? {
        if same(&there.config, &config) {
            return Ok(());
        }
        // An update would take another first sequence silently, and refuses another storage, so it keeps the stream's own.
        config.first_sequence = there.config.first_sequence;
        config.storage = there.config.storage;
        let name = config.name.clone();
        let updated = context.update_stream(config).await;
        updated.map_err(|e| SetupError::new(format!("the stream {name} cannot be updated"), e))?;
        return Ok(());
    }
    config.first_sequence = Some(first_sequence(Clock::system().now()));
    match context.create_stream(&config).await {
        Ok(_) => {
            tracing::info!(stream = config.name, "stream made");
            Ok(())
        }
        // Another process was faster: its first sequence differs, which is all.
        Err(_) if info(context, &config.name).await?.is_some() => Ok(()),
        Err(error) => Err(SetupError::new(format!("the stream {} cannot be made", config.name), error)),
    }
}

async fn info(context: &Context, name: &str) -> Result<Option<Info>, SetupError> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(SetupError::new(format!("the stream {name} cannot be read"), error)),
        },
    }
}

fn same(there: &Config, wanted: &Config) -> bool {
    there.subjects == wanted.subjects
        && there.retention == wanted.retention
        && there.discard == wanted.discard
        && there.max_bytes == wanted.max_bytes
        && there.max_message_size == wanted.max_message_size
        && there.max_age == wanted.max_age
        && there.num_replicas == wanted.num_replicas
        && there.duplicate_window == wanted.duplicate_window
}

/// What tells one life of a stream from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMark {
    /// The first sequence that it was made with.
    pub first: Option<u64>,
    /// The last sequence that it stored.
    pub last: u64,
}

impl StreamMark {
    /// Whether the stream was deleted, or went back to an older store, since `old` was read. (A purge keeps both
    /// figures; what it took is sent again by the steps' own time-outs.)
    pub fn lost_since(&self, old: &Self) -> bool {
        self.first != old.first || self.last < old.last
    }
}

impl Nats {
    /// A stream's mark; `None` where there is no such stream.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn stream_mark(&self, name: &str) -> Result<Option<StreamMark>, SetupError> {
        let info = info(self.jetstream(), name).await?;
        Ok(info.map(|i| StreamMark { first: i.config.first_sequence, last: i.state.last_sequence }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_shows_in_the_mark() {
        let old = StreamMark { first: Some(5), last: 9 };
        assert!(!StreamMark { first: Some(5), last: 9 }.lost_since(&old));
        assert!(!StreamMark { first: Some(5), last: 12 }.lost_since(&old));
        assert!(StreamMark { first: Some(8), last: 12 }.lost_since(&old), "made anew");
        assert!(StreamMark { first: Some(5), last: 8 }.lost_since(&old), "an older store came back");
    }

    #[test]
    fn sequences_of_a_new_stream_are_above_all_of_an_older_one() {
        let (older, newer) = (first_sequence(Timestamp(1_000)), first_sequence(Timestamp(1_001)));
        assert_eq!(newer - older, 1_000, "a stream of up to a million messages a second never reaches its successor");
    }
}
