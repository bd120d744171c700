//! Accounts, sessions, and the keys that sign access tokens.
//!
//! Nothing here logs an address, a name, a password or a token, and no event carries one.

mod account;
mod keys;
mod load;
mod passwords;
mod queries;
mod seed;
mod sessions;
mod store;

use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::identity::{AUDIENCE, Claims, ISSUER, Role, SERVICE, Tokens};
use eventicket_contracts::{Clock, CustomerId, Timestamp};
use eventicket_kit::tasks::Tasks;
use eventicket_kit::{Context, Settings, database};
use eventicket_nats::outbox::Relay;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use load::load_customers;
pub use seed::{SeedUser, account_id, seed};
pub use store::MIGRATOR;

use crate::keys::{KeyRing, Signer};
use crate::passwords::Passwords;
use crate::store::Store;

/// Name of the service's database.
pub const DATABASE: &str = SERVICE;

/// How often keys are looked at and what has had its time is deleted.
const UPKEEP: Duration = Duration::from_secs(3600);

/// What the queries share.
struct Identity {
    store: Store,
    keys: KeyRing,
    passwords: Passwords,
    clock: Clock,
    token_seconds: u32,
    wake_relay: Arc<Notify>,
}

impl Identity {
    /// An access token with the given refresh token.
    fn tokens(
        &self,
        signer: &Signer,
        user: CustomerId,
        roles: Vec<Role>,
        refresh_token: String,
    ) -> anyhow::Result<Tokens> {
        let life = Duration::from_secs(self.token_seconds.into());
        let claims = claims(user, roles, self.clock.now(), life);
        let access_token = signer.sign(&claims)?;
        Ok(Tokens { access_token, refresh_token, expires_in: self.token_seconds, token_type: "Bearer".into() })
    }

    /// Keeps keys and tables as they should be until shutdown.
    async fn upkeep(&self, shutdown: CancellationToken) {
        // Keys were looked at when the service started.
        loop {
            if let Err(error) = self.store.sweep(self.clock.now()).await {
                tracing::error!(%error, "identity's tables cannot be swept");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(UPKEEP) => {}
            }
            if let Err(error) = self.keys.rotate().await {
                tracing::error!(error = format!("{error:#}"), "signing keys cannot be rotated");
            }
        }
    }
}

/// What an access token says.
fn claims(user: CustomerId, roles: Vec<Role>, now: Timestamp, life: Duration) -> Claims {
    let seconds = |at: Timestamp| at.millis().div_euclid(1000);
    let (iat, exp) = (seconds(now), seconds(now.plus(life)));
    Claims { iss: ISSUER.into(), aud: AUDIENCE.into(), sub: user, iat, exp, roles }
}

/// Runs the service until shutdown: answers queries, tells of new accounts, rotates keys.
///
/// # Errors
/// The database or the broker cannot be reached, or a part ended before its time.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let pool = database(&ctx.settings, DATABASE, &MIGRATOR).await?;
    eventicket_kit::pool::watch(&pool, DATABASE, &ctx.shutdown);
    let relay = Relay::new(pool.clone(), ctx.nats.clone(), ctx.clock.clone()).limits(ctx.limits.clone());
    let store = Store::new(pool);
    let keys = KeyRing::new(store.clone(), &ctx.settings, ctx.clock.clone())?;
    keys.rotate().await?;
    let identity = Arc::new(Identity {
        keys,
        store,
        passwords: Passwords::new()?,
        clock: ctx.clock,
        token_seconds: ctx.settings.access_token_seconds,
        wake_relay: relay.waker(),
    });
    let queries = queries::serve(&ctx.nats, &identity).await?;

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    let shutdown = ctx.shutdown.clone();
    tasks.spawn("queries", async move {
        queries.run(shutdown).await;
        anyhow::Ok(())
    });
    let shutdown = ctx.shutdown.clone();
    tasks.spawn("outbox", async move {
        relay.run(shutdown).await;
        anyhow::Ok(())
    });
    tasks.spawn("upkeep", async move {
        identity.upkeep(ctx.shutdown).await;
        anyhow::Ok(())
    });
    tasks.join().await
}

/// Makes the next signing key where it is due, and drops those of which no token is left; tells whether one was made.
/// The service does so by itself every hour.
///
/// # Errors
/// The database cannot be reached.
pub async fn rotate(settings: &Settings, clock: &Clock) -> anyhow::Result<bool> {
    let store = Store::new(database(settings, DATABASE, &MIGRATOR).await?);
    KeyRing::new(store, settings, clock.clone())?.rotate().await
}
