//! The payment gateway's webhooks, on a listener of their own. Each is a hint ([`crate::hint`]); one that changes something
//! is answered once that is committed, and the others once they are known to change nothing.

mod event;
mod signature;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use eventicket_contracts::Clock;
use eventicket_contracts::envelope::Key;
use eventicket_kit::http::bind_reuseport;
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::charge::Charge;
use crate::driver::Driver;
use crate::hint::{Event, Hint, hint};
use crate::recorder::Writes;
use crate::store::Store;

pub(crate) use event::read;

/// Path where webhooks are taken.
pub const PATH: &str = "/webhooks/payments";
/// Webhooks that may wait to be handled; a further one comes again.
const WAITING: usize = 1_024;
/// Webhooks that are looked up together.
const BATCH: usize = 256;
/// Bytes of a webhook.
const MOST_BYTES: usize = 256 * 1024;
/// How often a row that others change meanwhile is looked at; then the webhook has to come again.
const LOOKS: u32 = 3;
/// How long requests under way at shutdown may take.
const DRAIN: Duration = Duration::from_secs(5);
const METRIC: &str = "eventicket_payment_webhooks_total";

/// What becomes of webhooks.
pub(crate) struct Webhooks {
    pub store: Store,
    pub driver: Driver,
    pub writes: Writes,
}

/// A webhook that waits for its answer.
struct Waiting {
    event: Event,
    answer: oneshot::Sender<Taken>,
}

/// Whether it need not come again, and what it did, for the metric.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    /// It changed something, which is committed.
    Changed,
    /// It changes nothing.
    Nothing,
    /// It is to come again.
    NotYet,
}

#[derive(Clone)]
struct Door {
    secret: Arc<str>,
    clock: Clock,
    webhooks: mpsc::Sender<Waiting>,
}

impl Webhooks {
    /// Takes webhooks until shutdown.
    ///
    /// # Errors
    /// The address is taken, or the listener fails.
    pub async fn run(
        self,
        listen: SocketAddr,
        secret: &str,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let listener = bind_reuseport(listen).with_context(|| format!("webhooks cannot be taken at {listen}"))?;
        let (webhooks, waiting) = mpsc::channel(WAITING);
        let door = Door { secret: secret.into(), clock, webhooks };
        let router = Router::new().route(PATH, post(take)).layer(DefaultBodyLimit::max(MOST_BYTES)).with_state(door);
        let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let cut = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = serving.into_future() => ended.context("webhooks"),
            () = self.handle(waiting) => Ok(()),
            () = cut => Ok(()),
        }
    }

    /// Handles what is ready together, until the listener is gone.
    async fn handle(&self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            for _ in 0..LOOKS {
                match self.look(std::mem::take(&mut batch)).await {
                    Ok(again) => batch = again,
                    Err(error) => tracing::warn!(%error, "webhooks cannot be handled now: they come again"),
                }
                if batch.is_empty() {
                    break;
                }
            }
            batch.drain(..).for_each(|waiting| waiting.end(Taken::NotYet));
        }
    }

    /// Looks at the rows of a batch and writes what changes; those whose row somebody else changed are returned.
    async fn look(&self, batch: Vec<Waiting>) -> Result<Vec<Waiting>, sqlx::Error> {
        let keys: Vec<Key> = batch.iter().map(|waiting| waiting.event.key.clone()).collect();
        let rows = self.store.rows(&keys).await?;
        let mut effects = Vec::new();
        for waiting in batch {
            let Event { key, told, .. } = &waiting.event;
            // Another installation's, where there is no row.
            let row = rows.get(key).map(|(charge, _)| charge);
            match row.map_or(Hint::Nothing, |charge| hint(charge, told)) {
                Hint::Nothing => waiting.end(Taken::Nothing),
                Hint::NotYet => waiting.end(Taken::NotYet),
                Hint::Write(after) => effects.extend(row.map(|before| (before.clone(), *after, waiting))),
                Hint::Stray(stray) => {
                    let before = Charge { version: 0, ..(*stray).clone() };
                    effects.push((before, *stray, waiting));
                }
            }
        }
        let ids: Vec<String> = effects.iter().map(|(_, _, waiting)| waiting.event.id.clone()).collect();
        // Asked after the rows, so that one whose effect came between the two is known.
        let known = if ids.is_empty() { HashSet::new() } else { self.store.known_webhooks(&ids).await? };
        let written = effects.into_iter().map(async |(before, after, waiting)| {
            if known.contains(&waiting.event.id) {
                waiting.end(Taken::Nothing);
                return None;
            }
            self.write(before, after, waiting).await
        });
        Ok(join_all(written).await.into_iter().flatten().collect())
    }

    /// Commits a row and drives it on; the webhook comes back where the row has changed meanwhile.
    async fn write(&self, before: Charge, after: Charge, waiting: Waiting) -> Option<Waiting> {
        let (key, new) = (after.key.clone(), before.version == 0);
        let Ok(written) = self.writes.write(before, after, Some(waiting.event.id.clone())).await else {
            // What is a row already is given back already.
            if new && self.store.rows(&[key]).await.is_ok_and(|rows| !rows.is_empty()) {
                waiting.end(Taken::Nothing);
                return None;
            }
            return Some(waiting);
        };
        if new {
            let charge = &written.key;
            tracing::error!(%charge, "an intent took money that is not its round's: it is given back");
        }
        if written.state.is_due() {
            self.driver.take(written);
        }
        waiting.end(Taken::Changed);
        None
    }
}

impl Waiting {
    fn end(self, taken: Taken) {
        let _ = self.answer.send(taken); // who sent it may have gone
    }
}

async fn take(State(door): State<Door>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signature::is_signed(signature, &body, &door.secret, door.clock.now()) {
        return answer("refused", StatusCode::BAD_REQUEST);
    }
    let Some(event) = read(&body) else { return answer("foreign", StatusCode::OK) };
    let (tell, told) = oneshot::channel();
    if door.webhooks.try_send(Waiting { event, answer: tell }).is_err() {
        return answer("full", StatusCode::SERVICE_UNAVAILABLE);
    }
    match told.await {
        Ok(Taken::Changed) => answer("changed", StatusCode::OK),
        Ok(Taken::Nothing) => answer("nothing", StatusCode::OK),
        Ok(Taken::NotYet) | Err(_) => answer("again", StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn answer(result: &'static str, status: StatusCode) -> StatusCode {
    metrics::counter!(METRIC, "result" => result).increment(1);
    status
}
