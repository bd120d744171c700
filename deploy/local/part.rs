//! The parts that the platform runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use eventicket_kit::{Context, Settings};
use eventicket_notifications::mailbox::Mailbox;
use tokio_util::sync::CancellationToken;
use url::Url;

/// A service, or what stands in for the world outside on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Part {
    /// Accounts, sessions, keys.
    Identity,
    /// Events and ticket types.
    Events,
    /// Capacity, holds, tickets.
    Bookings,
    /// Charges and refunds.
    Payments,
    /// E-mail.
    Notifications,
    /// Drives the sagas.
    Orchestrator,
    /// The REST API.
    Gateway,
    /// A payment gateway for development.
    MockGateway,
    /// Catches mail.
    Mailbox,
}

impl Part {
    /// Services behind the REST API.
    pub const SERVICES: [Self; 6] =
        [Self::Identity, Self::Events, Self::Bookings, Self::Payments, Self::Notifications, Self::Orchestrator];

    /// As it stands on the command line and in names of files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Events => "events",
            Self::Bookings => "bookings",
            Self::Payments => "payments",
            Self::Notifications => "notifications",
            Self::Orchestrator => "orchestrator",
            Self::Gateway => "gateway",
            Self::MockGateway => "mock-gateway",
            Self::Mailbox => "mailbox",
        }
    }

    /// Whether it is a service, which several replicas can run of.
    pub const fn is_service(self) -> bool {
        !matches!(self, Self::MockGateway | Self::Mailbox)
    }

    /// Runs the service until the context's shutdown.
    ///
    /// # Errors
    /// It cannot start, or it failed.
    pub async fn serve(self, ctx: Context) -> anyhow::Result<()> {
        match self {
            Self::Identity => Box::pin(eventicket_identity::run(ctx)).await,
            Self::Events => Box::pin(eventicket_events::run(ctx)).await,
            Self::Bookings => Box::pin(eventicket_bookings::run(ctx)).await,
            Self::Payments => Box::pin(eventicket_payments::run(ctx)).await,
            Self::Notifications => Box::pin(eventicket_notifications::run(ctx)).await,
            Self::Orchestrator => Box::pin(eventicket_orchestrator::run(ctx)).await,
            Self::Gateway => Box::pin(eventicket_gateway::run(ctx)).await,
            Self::MockGateway | Self::Mailbox => anyhow::bail!("{} is no service", self.name()),
        }
    }
}

/// Runs the mock payment gateway where the settings look for one, with its ledger in the folder. It sends webhooks where
/// payments listens for them.
///
/// # Errors
/// The address is not of this machine or taken; the ledger cannot be read or written.
pub async fn mock_gateway(settings: &Settings, data: PathBuf, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listen = address(&settings.payment_gateway_url).context("EVENTICKET_PAYMENT_GATEWAY_URL")?;
    let key = settings.payment_gateway_key.clone();
    let webhooks = settings.payment_webhook_listen.map(|at| eventicket_mock_gateway::Webhooks {
        url: format!("{}{}", local_url(at), eventicket_payments::WEBHOOKS),
        secret: settings.payment_webhook_secret.clone(),
    });
    let config = eventicket_mock_gateway::Config { listen, data, key, latency: Duration::ZERO, webhooks };
    eventicket_mock_gateway::run(config, shutdown).await
}

/// Runs the mailbox where the settings look for a mail server, with its mails in the folder.
///
/// # Errors
/// The address is not of this machine or taken; the folder cannot be made.
pub async fn mailbox(settings: &Settings, folder: PathBuf, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listen = address(&settings.smtp_url).context("EVENTICKET_SMTP_URL")?;
    let mailbox = Mailbox::bind(listen, folder).with_context(|| format!("the mailbox at {listen}"))?;
    mailbox.run(shutdown).await;
    Ok(())
}

/// How the address is reached from this machine.
pub fn local_url(address: SocketAddr) -> String {
    let host = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    format!("http://{}", SocketAddr::new(host, address.port()))
}

fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let url = Url::parse(url).context("not an address")?;
    let host = url.host_str().context("without a host")?;
    let port = url.port_or_known_default().context("without a port")?;
    format!("{host}:{port}").parse().with_context(|| format!("{host} is not an address of this machine"))
}
