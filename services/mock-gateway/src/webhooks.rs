//! Webhooks: what changed is told to the address that wants to know, signed as Stripe does, until it is taken. What was not
//! taken yet stands in the ledger, so that it is told also after a kill.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventicket_contracts::Timestamp;
use eventicket_kit::client::Client;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::ledger::{Event, Record};
use crate::tokens::hex;

/// Where webhooks go.
#[derive(Clone)]
pub struct Webhooks {
    /// Address that takes them by POST.
    pub url: String,
    /// Signs them.
    pub secret: String,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Webhooks on their way at once.
const AT_ONCE: usize = 32;
/// How long their taker may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest wait before one is sent again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Beyond so many doublings all waits are the longest.
const MOST_DOUBLINGS: u32 = 8;
/// Longest wait for the next one: the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// The version of Stripe's API whose form they have.
const API_VERSION: &str = "2024-06-20";

/// Those that were not taken yet.
#[derive(Default)]
pub(crate) struct Queue {
    all: HashMap<String, Due>,
    /// Those that are not on their way, by time.
    waiting: BTreeSet<(i64, String)>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Due {
    pub id: String,
    pub kind: String,
    /// When what it tells happened, in milliseconds since 1970.
    pub at: i64,
    /// What it tells of, as JSON.
    pub object: Bytes,
    pub tries: u32,
}

impl Queue {
    /// Takes over what a record says; `object` is what it changed.
    pub fn enter(&mut self, record: &Record, object: Option<Bytes>, due: i64) {
        for event in &record.events {
            self.add(record.at, event, object.clone(), due);
        }
    }

    /// One that happened at `at`, due at `due`; `object` is what it tells of.
    pub fn add(&mut self, at: i64, event: &Event, object: Option<Bytes>, due: i64) {
        let object = object.unwrap_or(Bytes::from_static(b"null"));
        let webhook = Due { id: event.id.clone(), kind: event.kind.clone(), at, object, tries: 0 };
        self.waiting.insert((due, event.id.clone()));
        self.all.insert(event.id.clone(), webhook);
    }

    pub fn delivered(&mut self, ids: &[String]) {
        for id in ids {
            self.all.remove(id);
        }
    }

    /// Those whose time has come, at most `most`, or the time until the next one.
    pub fn take(&mut self, now: Timestamp, most: usize) -> (Vec<Due>, Option<Duration>) {
        let mut taken = Vec::new();
        while let Some((at, _)) = self.waiting.first() {
            let wait = Timestamp(*at).since(now);
            if !wait.is_zero() || taken.len() >= most {
                return (taken, Some(wait));
            }
            let first = self.waiting.pop_first();
            taken.extend(first.and_then(|(_, id)| self.all.get(&id).cloned()));
        }
        (taken, None)
    }

    pub fn put_back(&mut self, mut webhook: Due, now: Timestamp) {
        let wait = BACKOFF.0.saturating_mul(1 << webhook.tries.min(MOST_DOUBLINGS)).min(BACKOFF.1);
        webhook.tries += 1;
        self.waiting.insert((now.plus(wait).millis(), webhook.id.clone()));
        self.all.insert(webhook.id.clone(), webhook);
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }
}

/// Sends webhooks until shutdown.
pub(crate) async fn send(gateway: Arc<Gateway>, to: Webhooks, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = Arc::new(Client::new(&to.url, AT_ONCE, TIMEOUT)?);
    let secret: Arc<str> = to.secret.into();
    let mut under_way = JoinSet::new();
    loop {
        let (due, wait) = gateway.take_webhooks(AT_ONCE - under_way.len());
        for webhook in due {
            let (client, secret, unix) = (Arc::clone(&client), Arc::clone(&secret), gateway.now().millis() / 1000);
            under_way.spawn(async move {
                let taken = deliver(&client, &secret, unix, &webhook).await;
                (webhook, taken)
            });
        }
        // With none to spare the next end of one is awaited, not the time.
        let wait = if under_way.len() < AT_ONCE { wait.unwrap_or(LOOK).min(LOOK) } else { LOOK };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = gateway.unsent_changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
            Some(first) = under_way.join_next() => {
                let mut taken = Vec::new();
                let mut ended = Some(first);
                while let Some(Ok((webhook, ok))) = ended {
                    if ok { taken.push(webhook.id) } else { gateway.put_back(webhook) }
                    ended = under_way.try_join_next();
                }
                if !taken.is_empty() {
                    gateway.delivered(taken).await;
                }
            }
        }
    }
}

/// Whether it was taken.
async fn deliver(client: &Client, secret: &str, unix: i64, webhook: &Due) -> bool {
    match post(client, secret, unix, webhook.body()).await {
        Ok(status) if status.is_success() => true,
        Ok(status) => {
            tracing::debug!(webhook = webhook.id, %status, "a webhook was not taken");
            false
        }
        Err(error) => {
            tracing::debug!(webhook = webhook.id, %error, "a webhook did not arrive");
            false
        }
    }
}

async fn post(client: &Client, secret: &str, unix: i64, body: String) -> anyhow::Result<StatusCode> {
    let request = client.request(Method::POST, "").header("Stripe-Signature", sign(secret, unix, &body));
    let request = request.header(CONTENT_TYPE, "application/json").body(body.into())?;
    Ok(client.call(request).await?.status())
}

impl Due {
    /// As it is sent: ids and kinds are words of ours, and the object is JSON already.
    pub fn body(&self) -> String {
        let Self { id, kind, at, object, .. } = self;
        let (created, object) = (at / 1000, String::from_utf8_lossy(object));
        format!(
            r#"{{"id":"{id}","object":"event","api_version":"{API_VERSION}","created":{created},"type":"{kind}","data":{{"object":{object}}},"livemode":false}}"#
        )
    }
}

/// The value of `Stripe-Signature`: the time, and the HMAC-SHA-256 of `<time>.<body>`.
pub fn sign(secret: &str, unix: i64, body: &str) -> String {
    // A key of any length is taken.
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let signature = mac.map(|mac| mac.chain_update(format!("{unix}.")).chain_update(body).finalize().into_bytes());
    format!("t={unix},v1={}", hex(&signature.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Event;

    #[test]
    fn what_was_not_taken_waits_longer_each_time_and_what_was_taken_is_gone() {
        let mut queue = Queue::default();
        let event = Event { id: "evt_1".into(), kind: "refund.updated".into() };
        queue.enter(&Record { events: vec![event], ..Record::at(0) }, None, 100);
        assert_eq!(queue.take(Timestamp(99), 9), (vec![], Some(Duration::from_millis(1))));
        let (mut taken, next) = queue.take(Timestamp(100), 9);
        assert_eq!((taken.len(), next, queue.len()), (1, None, 1));
        queue.put_back(taken.remove(0), Timestamp(100));
        assert_eq!(queue.take(Timestamp(100), 9).1, Some(BACKOFF.0));
        let again = queue.take(Timestamp(300), 9).0.remove(0);
        queue.put_back(again, Timestamp(300));
        assert_eq!(queue.take(Timestamp(300), 9).1, Some(BACKOFF.0 * 2));
        queue.delivered(&["evt_1".into()]);
        assert_eq!((queue.take(Timestamp(9_999), 9), queue.len()), ((vec![], None), 0));
    }

    #[test]
    fn the_signature_is_stripes() {
        // The value is that of another implementation of HMAC.
        let expected = "53140ab8fa70c511cc40d5c9198af7dde7bbaee877038c056d8250c3bd3b2e11";
        assert_eq!(sign("whsec_test_secret", 1_492_774_577, "{}"), format!("t=1492774577,v1={expected}"));
    }
}
