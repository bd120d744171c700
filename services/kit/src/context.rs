//! What a service is started with.

use std::sync::Arc;

use eventicket_contracts::Clock;
use eventicket_nats::{Nats, StreamLimits};
use tokio_util::sync::CancellationToken;

use crate::Settings;

/// Everything that a service gets from the process that runs it.
#[derive(Clone)]
pub struct Context {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The connection to the broker.
    pub nats: Nats,
    /// Tells the time.
    pub clock: Clock,
    /// Cancelled when the service shall stop taking work and finish what it holds.
    pub shutdown: CancellationToken,
    /// Bounds of the streams.
    pub limits: StreamLimits,
}

impl Context {
    /// Connects to the broker and takes the machine's clock.
    pub async fn connect(settings: Settings, process: &str, limits: StreamLimits) -> anyhow::Result<Self> {
        let nats = Nats::connect(&settings.nats_url, process).await?;
        let shutdown = CancellationToken::new();
        Ok(Self { settings: Arc::new(settings), nats, clock: Clock::system(), shutdown, limits })
    }

    /// A context with development settings and small streams, all of which exist when this returns.
    pub async fn for_tests(database_url: &str, nats_url: &str) -> anyhow::Result<Self> {
        crate::tls::install();
        let settings = Settings::development(database_url, nats_url);
        let context = Self::connect(settings, "test", StreamLimits::small()).await?;
        eventicket_nats::ensure_streams(&context.nats, &context.limits).await?;
        Ok(context)
    }

    /// The same with other settings.
    pub fn with_settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}
