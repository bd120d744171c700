//! The payment gateway's webhooks, on a listener of their own. Each is a hint ([`crate::hint`]); one that changes something
//! is answered once that is committed, and the others once they are known to change nothing.

pub(crate) mod event;
mod signature;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use eventicket_contracts::Clock;
use eventicket_contracts::envelope::Key;
use eventicket_contracts::metrics::WEBHOOKS;
use eventicket_kit::http::bind_reuseport;
use eventicket_kit::server::{Answers, Whole, serve, status};
use eventicket_nats::trace::{Span, Telling};
use futures::future::join_all;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use metrics::{Counter, counter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::charge::Charge;
use crate::driver::Driver;
use crate::hint::{Event, Hint, Told, hint};
use crate::recorder::Writes;
use crate::settled::Settled;
use crate::store::Store;

/// Path where webhooks are taken.
pub const PATH: &str = "/webhooks/payments";
/// Webhooks that may wait to be handled; a further one comes again.
const WAITING: usize = 1_024;
/// Webhooks that are looked up together.
const BATCH: usize = 256;
/// How often a row that others change meanwhile is looked at; then the webhook has to come again.
const LOOKS: u32 = 3;

/// What becomes of webhooks.
pub(crate) struct Webhooks {
    pub store: Store,
    pub driver: Driver,
    pub writes: Writes,
    pub settled: Arc<Settled>,
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

/// Where webhooks come in.
#[derive(Clone)]
struct Door {
    secret: Arc<str>,
    clock: Clock,
    settled: Arc<Settled>,
    webhooks: mpsc::Sender<Waiting>,
    /// The figure of those that tell nothing new, which are nearly all.
    nothing: Counter,
}

impl Webhooks {
    /// Takes webhooks until shutdown.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn run(
        self,
        listen: SocketAddr,
        secret: &str,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let listener = bind_reuseport(listen).with_context(|| format!("webhooks cannot be taken at {listen}"))?;
        let (webhooks, waiting) = mpsc::channel(WAITING);
        let nothing = counter!(WEBHOOKS, "result" => "nothing");
        let door = Door { secret: secret.into(), clock, settled: Arc::clone(&self.settled), webhooks, nothing };
        tokio::select! {
            () = serve(listener, door, shutdown) => {}
            () = self.handle(waiting) => {}
        }
        Ok(())
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
        let mut span = Span::below(after.trace.as_deref(), Telling::Consumer, || "payments webhook".to_owned());
        if let Some(span) = &mut span {
            span.set("eventicket.charge", key.to_string());
            span.set("eventicket.state", after.state.name());
        }
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

impl Answers for Door {
    const MOST_BYTES: usize = 256 * 1024;

    async fn answer(&self, head: &Parts, body: Bytes) -> Option<Whole> {
        let answer = match (head.uri.path(), &head.method) {
            (PATH, &Method::POST) => self.take(head, &body).await,
            (PATH, _) => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::NOT_FOUND,
        };
        Some(status(answer))
    }
}

impl Door {
    async fn take(&self, head: &Parts, body: &[u8]) -> StatusCode {
        let signature = head.headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !signature::is_signed(signature, body, &self.secret, self.clock.now()) {
            return answer("refused", StatusCode::BAD_REQUEST);
        }
        let Some(event) = event::read(body) else { return answer("foreign", StatusCode::OK) };
        if self.is_known(&event) {
            self.nothing.increment(1);
            return StatusCode::OK;
        }
        let (tell, told) = oneshot::channel();
        if self.webhooks.try_send(Waiting { event, answer: tell }).is_err() {
            return answer("full", StatusCode::SERVICE_UNAVAILABLE);
        }
        match told.await {
            Ok(Taken::Changed) => answer("changed", StatusCode::OK),
            Ok(Taken::Nothing) => answer("nothing", StatusCode::OK),
            Ok(Taken::NotYet) | Err(_) => answer("again", StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Whether the end that it tells of was committed here, so that it changes nothing.
    fn is_known(&self, event: &Event) -> bool {
        matches!(&event.told, Told::Intent { intent, .. } if self.settled.knows(&event.key, &intent.id))
    }
}

fn answer(result: &'static str, status: StatusCode) -> StatusCode {
    counter!(WEBHOOKS, "result" => result).increment(1);
    status
}
