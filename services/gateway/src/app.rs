//! What all requests share.

use std::sync::Arc;

use eventicket_contracts::Clock;
use eventicket_kit::seal::SealKeys;
use eventicket_kit::{Context, Settings};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::Verifier;
use crate::backend::Backend;
use crate::health::Health;
use crate::idempotency::Fingerprints;
use crate::limits::Limits;
use crate::status::Status;
use crate::throttle::Throttle;

/// Most event streams that a process serves at once; each costs a socket and a few kilobytes.
const MAX_STREAMS: usize = 4_096;

/// What all requests share.
pub struct App {
    pub backend: Backend,
    pub auth: Verifier,
    pub limits: Limits,
    pub throttle: Arc<Throttle>,
    pub fingerprints: Fingerprints,
    pub seal: SealKeys,
    pub status: Arc<Status>,
    pub health: Health,
    pub streams: Arc<Semaphore>,
    pub clock: Clock,
    /// Ends waits and streams, so that a shutdown need not wait for them.
    pub shutdown: CancellationToken,
}

/// The state of the routes.
pub type Shared = Arc<App>;

impl App {
    /// From a service's context.
    pub fn new(ctx: &Context) -> anyhow::Result<Self> {
        Self::over(
            Backend::new(ctx.nats.clone(), ctx.shutdown.clone()),
            &ctx.settings,
            ctx.clock.clone(),
            ctx.shutdown.clone(),
        )
    }

    /// Over any backend.
    pub fn over(
        backend: Backend,
        settings: &Settings,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            backend,
            auth: Verifier::new(clock.clone()),
            limits: Limits::new(&settings.rates),
            throttle: Arc::default(),
            fingerprints: Fingerprints::new(&settings.idempotency_key)?,
            seal: SealKeys::parse(&settings.seal_keys)?,
            status: Arc::new(Status::default()),
            health: Health::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            clock,
            shutdown,
        })
    }
}
