//! A payment gateway for development and tests: the subset of Stripe's PaymentIntents and Refunds that payments uses,
//! over HTTP, with test tokens ([`tokens`]) and a ledger that survives kill -9 ([`ledger`]).
//!
//! No answer leaves before everything that it tells has been synced to the ledger.

mod answer;
mod book;
mod finished;
mod form;
mod gateway;
mod http;
mod intents;
pub mod ledger;
mod pages;
mod settings;
pub mod simulation;
mod test_routes;
pub mod tokens;
mod webhooks;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use eventicket_kit::http::bind_reuseport;
use eventicket_kit::server;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use webhooks::{Webhooks, sign};

use crate::gateway::{Gateway, Past};
use crate::http::App;
use crate::settings::Settings;

/// How a gateway is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder of the ledger, made where it is missing. One process at a time uses it.
    pub data: PathBuf,
    /// The secret key that every request must bear.
    pub key: String,
    /// How long each change takes at least, until `POST /test/settings` has changed any setting.
    pub latency: Duration,
    /// Who is told of changes.
    pub webhooks: Option<Webhooks>,
}

/// A gateway that is bound and has read its ledger.
pub struct Server {
    listener: TcpListener,
    gateway: Arc<Gateway>,
    key: String,
    webhooks: Option<Webhooks>,
    writer: oneshot::Receiver<std::io::Error>,
}

impl Server {
    /// Reads the ledger and binds. Waits for a former process that still holds the ledger, for some seconds.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let data = config.data.clone();
        let open = move || {
            let mut past = Past::default();
            ledger::open(&data, |record, place| past.enter(record, place)).map(|opened| (opened, past))
        };
        let opened = tokio::task::spawn_blocking(open).await?;
        let ((writer, broken), past) =
            opened.with_context(|| format!("the ledger in {} cannot be opened", config.data.display()))?;
        let listener = bind_reuseport(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
        let latency_ms = u64::try_from(config.latency.as_millis()).unwrap_or(u64::MAX);
        let settings = Settings { latency_ms, ..Settings::default() };
        let base = format!("http://{}", reachable(listener.local_addr()?));
        let gateway = Arc::new(Gateway::new(writer, past, settings, base, config.webhooks.is_some())?);
        Ok(Self { listener, gateway, key: config.key, webhooks: config.webhooks, writer: broken })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Serves until shutdown, or until the ledger cannot be written. Dropping the future cuts all connections.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { listener, gateway, key, webhooks, writer } = self;
        let app = App::new(Arc::clone(&gateway), &key);
        let sending = async {
            match webhooks {
                Some(to) => webhooks::send(Arc::clone(&gateway), to, shutdown.clone()).await,
                None => Ok(()),
            }
        };
        let serving = async {
            let serve = async {
                tokio::join!(gateway.settle_due(shutdown.clone()), server::serve(listener, app, shutdown.clone()));
                Ok(())
            };
            tokio::try_join!(sending, serve).map(|_| ())
        };
        tokio::select! {
            ended = serving => ended,
            Ok(error) = writer => Err(error).context("the ledger cannot be written"),
        }
    }
}

/// The address as this machine reaches it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

/// Binds and serves until shutdown.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let server = Server::bind(config).await?;
    tracing::info!(address = %server.local_addr(), "the mock payment gateway listens");
    server.run(shutdown).await
}
