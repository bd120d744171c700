//! What waits in a platform of this machine: messages of the streams, commands in flight, mails.

use std::collections::BTreeMap;

use eventicket_contracts::subjects::{self, Service};
use eventicket_kit::Settings;
use eventicket_nats::Nats;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// The streams that are worked off, the orchestrator's and notifications' databases.
pub struct Queues {
    nats: Nats,
    journal: PgPool,
    deliveries: PgPool,
}

impl Queues {
    /// Connects.
    ///
    /// # Errors
    /// NATS cannot be reached, or an address is malformed.
    pub async fn connect(settings: &Settings) -> anyhow::Result<Self> {
        let pool = |database| -> anyhow::Result<PgPool> {
            Ok(PgPoolOptions::new()
                .max_connections(1)
                .connect_lazy(&eventicket_kit::database_url(settings, database)?)?)
        };
        Ok(Self {
            nats: Nats::connect(&settings.nats_url, "load").await?,
            journal: pool(eventicket_orchestrator::DATABASE)?,
            deliveries: pool(eventicket_notifications::DATABASE)?,
        })
    }

    /// Messages by stream; streams that cannot be read are left out.
    pub async fn streams(&self) -> BTreeMap<String, u64> {
        let names = Service::ALL.iter().map(|service| service.stream()).chain([subjects::REPLIES_STREAM.to_owned()]);
        let messages = names.map(async |name| {
            let stream = self.nats.jetstream().get_stream(&name).await.ok()?;
            Some((name, stream.cached_info().state.messages))
        });
        futures::future::join_all(messages).await.into_iter().flatten().collect()
    }

    /// Commands in flight by service, over all replicas of the orchestrator.
    pub async fn in_flight(&self) -> BTreeMap<String, i64> {
        let rows: Result<Vec<String>, _> =
            sqlx::query_scalar("SELECT outstanding FROM replicas").fetch_all(&self.journal).await;
        let mut sums = BTreeMap::new();
        for row in rows.unwrap_or_default() {
            let counts: BTreeMap<String, i64> = serde_json::from_str(&row).unwrap_or_default();
            for (service, count) in counts {
                *sums.entry(service).or_default() += count;
            }
        }
        sums
    }

    /// Mails that wait to be sent.
    pub async fn mails(&self) -> Option<u64> {
        let waiting = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM deliveries WHERE state = 'due'");
        waiting.fetch_one(&self.deliveries).await.ok().and_then(|count| u64::try_from(count).ok())
    }
}
