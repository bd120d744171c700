//! The outbox: a batch writes its events beside its effects, and a relay publishes what is committed.
//!
//! The table, among the migrations of each service with events:
//!
//! ```sql
//! CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text STORAGE EXTERNAL NOT NULL, created_at bigint NOT NULL,
//!     sequence bigint);
//! CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
//! ```
//!
//! The payload's storage is for speed: it is large, read once, and not worth the time that its compression takes.
//!
//! A row is a message: an envelope with the row's id as message id. It keeps the sequence of its acknowledgement; where
//! the stream shows a loss, the rows beyond it are unsent again. Sent rows are deleted by age, unsent ones never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use eventicket_contracts::envelope::{DomainEvent, VERSION};
use eventicket_contracts::{Clock, Timestamp, subjects};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgPool, Row};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Nats;
use crate::publish::{Outgoing, PublishError, bytes_of, envelopes, written};
use crate::topology::{StreamLimits, StreamMark, ensure_stream};

/// Rows published together.
const BATCH: i64 = 500;
/// Time between two looks where nobody wakes the relay: finds what a dead process left.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a batch: events are in no hurry, and one transaction for many is cheaper than one for each.
const PAUSE: Duration = Duration::from_millis(200);
/// Age after which sent rows are deleted; a consumer that lost older events rebuilds by query.
const KEEP: Duration = Duration::from_secs(24 * 3_600);
/// Looks between two deletions by age.
const SWEEP_EVERY: u32 = 60;

/// An event of an aggregate, on subject `evt.<aggregate>.<what>`.
#[derive(Clone, Debug)]
pub struct NewEvent<D = Value> {
    /// As `booking`.
    pub aggregate: &'static str,
    /// As `confirmed`.
    pub what: &'static str,
    /// The event.
    pub event: DomainEvent<D>,
}

/// Inserts [`Rows`]: `$1` is the time, `$2` to `$4` are the columns in their order. For [`write`], and for services that write
/// their events in one statement with the effect.
pub const INSERT: &str = "INSERT INTO outbox (id, subject, payload, created_at)
     SELECT id, subject, payload, $1 FROM unnest($2::uuid[], $3::text[], $4::text[]) AS u (id, subject, payload)";

/// Events as rows of the table: one row a subject, more only where an envelope's bounds ask for it.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Of the messages.
    pub ids: Vec<Uuid>,
    /// Where they go.
    pub subjects: Vec<String>,
    /// Envelopes, as JSON.
    pub payloads: Vec<String>,
}

impl Rows {
    /// The rows of these events.
    pub fn of<D: Serialize>(events: impl IntoIterator<Item = NewEvent<D>>) -> Self {
        let mut by_subject: BTreeMap<(&str, &str), Vec<Vec<u8>>> = BTreeMap::new();
        for NewEvent { aggregate, what, event } in events {
            by_subject.entry((aggregate, what)).or_default().push(bytes_of(&event));
        }
        let mut rows = Self::default();
        for ((aggregate, what), events) in by_subject {
            for payload in envelopes(events, written) {
                rows.ids.push(Uuid::now_v7());
                rows.subjects.push(subjects::event(aggregate, what));
                rows.payloads.push(String::from_utf8_lossy(&payload).into_owned());
            }
        }
        rows
    }
}

/// Writes events in the transaction of their effect.
///
/// # Errors
/// The database's.
pub async fn write<D: Serialize>(
    tx: &mut PgConnection,
    events: Vec<NewEvent<D>>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let Rows { ids, subjects, payloads } = Rows::of(events);
    sqlx::query(INSERT).bind(now.millis()).bind(ids).bind(subjects).bind(payloads).execute(tx).await?;
    Ok(())
}

/// Why a batch of the outbox did not leave; it is tried again.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("the table cannot be reached")]
    Database(#[from] sqlx::Error),
    #[error("an event was not stored")]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Stream(#[from] crate::SetupError),
}

/// What a batch of the outbox left.
enum Drained {
    /// There was nothing.
    Nothing,
    /// Nothing more waits.
    All,
    /// More may wait.
    More,
}

/// Publishes what is committed. Several replicas may run; a row that two of them publish is stored once.
pub struct Relay {
    pool: PgPool,
    nats: Nats,
    clock: Clock,
    wake: Arc<Notify>,
    limits: StreamLimits,
}

impl Relay {
    /// A relay of the outbox in this database.
    pub fn new(pool: PgPool, nats: Nats, clock: Clock) -> Self {
        Self { pool, nats, clock, wake: Arc::new(Notify::new()), limits: StreamLimits::default() }
    }

    /// With these sizes, should the stream of events have to be made again.
    #[must_use]
    pub fn limits(mut self, limits: StreamLimits) -> Self {
        self.limits = limits;
        self
    }

    /// To be notified after each commit.
    pub fn waker(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Runs until shutdown. Faults are logged and tried again.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut mark: Option<StreamMark> = None;
        let mut looks = 0_u32;
        let mut looked = tokio::time::Instant::now() - LOOK;
        loop {
            if looked.elapsed() >= LOOK {
                looked = tokio::time::Instant::now();
                if let Err(error) = self.look(&mut mark, looks.is_multiple_of(SWEEP_EVERY)).await {
                    tracing::debug!(%error, "the outbox cannot be looked after now");
                }
                looks = looks.wrapping_add(1);
            }
            match self.drain(&mut mark).await {
                Ok(Drained::More) if !shutdown.is_cancelled() => continue,
                Ok(Drained::All) => {
                    tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(PAUSE) => {} }
                }
                Ok(Drained::More | Drained::Nothing) => {}
                Err(error) => tracing::warn!(%error, "the outbox cannot be relayed now"),
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        // What the last batches wrote still leaves.
        let _ = self.drain(&mut mark).await;
    }

    /// Publishes one batch.
    async fn drain(&self, mark: &mut Option<StreamMark>) -> Result<Drained, RelayError> {
        let rows = sqlx::query("SELECT id, subject, payload FROM outbox WHERE sequence IS NULL ORDER BY id LIMIT $1")
            .bind(BATCH)
            .fetch_all(&self.pool)
            .await?;
        if rows.is_empty() {
            return Ok(Drained::Nothing);
        }
        let ids: Vec<Uuid> = rows.iter().map(|r| r.get("id")).collect();
        let message = |r: &sqlx::postgres::PgRow| {
            let mut headers = HeaderMap::new();
            headers.insert(subjects::HEADER_SCHEMA, VERSION.to_string());
            Outgoing {
                subject: r.get("subject"),
                id: r.get::<Uuid, _>("id").to_string(),
                headers,
                payload: r.get::<String, _>("payload").into(),
            }
        };
        let results = self.nats.publish_all(rows.iter().map(message).collect()).await;
        let (mut sent, mut sequences) = (Vec::new(), Vec::new());
        let mut refused = None;
        for (id, result) in ids.iter().zip(results) {
            match result {
                Ok(sequence) => {
                    // The stream may go back behind it before the next look.
                    mark.iter_mut().for_each(|mark| mark.last = mark.last.max(sequence));
                    sent.push(*id);
                    sequences.push(i64::try_from(sequence).unwrap_or(i64::MAX));
                }
                Err(error) => refused = Some(error),
            }
        }
        let all = sent.len() == ids.len();
        sqlx::query(
            // A mark that is lost only sends its event again, so its commit need not reach the disk.
            // Not `o.sequence IS NULL`: for each of these the index of unsent rows would be walked, which are few only until the
            // stream is lost. Sequences begin at 1.
            "WITH lazy AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
                  locked AS MATERIALIZED (
                 SELECT id FROM outbox WHERE id = ANY($1) AND sequence IS NULL ORDER BY id FOR UPDATE)
             UPDATE outbox o SET sequence = u.sequence FROM lazy, unnest($1::uuid[], $2::bigint[]) AS u (id, sequence)
             WHERE o.id = u.id AND coalesce(o.sequence, 0) = 0 AND (SELECT count(*) FROM locked) > 0",
        )
        .bind(sent)
        .bind(sequences)
        .execute(&self.pool)
        .await?;
        if let Some(error) = refused {
            if matches!(error, PublishError::Refused(_)) {
                ensure_stream(&self.nats, subjects::EVENTS_STREAM, &self.limits).await?;
            }
            return Err(error.into());
        }
        Ok(if all && rows.len() >= BATCH as usize { Drained::More } else { Drained::All })
    }

    /// After a loss of the stream, unsends what went with it; now and then deletes what is old.
    async fn look(&self, mark: &mut Option<StreamMark>, sweep: bool) -> Result<(), RelayError> {
        let now = self.nats.stream_mark(subjects::EVENTS_STREAM).await?;
        let Some(now) = now else {
            return Ok(ensure_stream(&self.nats, subjects::EVENTS_STREAM, &self.limits).await?);
        };
        if mark.as_ref() != Some(&now) {
            // Sequences below the stream's first are of a former life; those above its last are lost.
            let first = now.first.and_then(|f| i64::try_from(f).ok()).unwrap_or(0);
            let unsent = sqlx::query(
                "WITH locked AS MATERIALIZED (
                     SELECT id FROM outbox WHERE sequence < $1 OR sequence > $2 ORDER BY id FOR UPDATE)
                 UPDATE outbox o SET sequence = NULL FROM locked l WHERE o.id = l.id",
            )
            .bind(first)
            .bind(i64::try_from(now.last).unwrap_or(i64::MAX));
            let lost = mark.as_ref().is_none_or(|old| now.lost_since(old));
            if lost {
                let n = unsent.execute(&self.pool).await?.rows_affected();
                if n > 0 {
                    tracing::warn!(rows = n, "the stream of events was lost; events are sent again");
                }
            }
            *mark = Some(now);
        }
        if sweep {
            let before = self.clock.now().millis() - i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
            sqlx::query(
                "WITH old AS MATERIALIZED (
                     SELECT id FROM outbox WHERE sequence IS NOT NULL AND created_at < $1 ORDER BY id
                     FOR UPDATE SKIP LOCKED)
                 DELETE FROM outbox o USING old WHERE o.id = old.id",
            )
            .bind(before)
            .execute(&self.pool)
            .await?;
        }
        Ok(())
    }
}
