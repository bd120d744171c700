//! The platform's secrets on one machine: made at the first start, kept in its folder.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use eventicket_kit::Settings;
use serde::{Deserialize, Serialize};

const FILE: &str = "secrets.json";

/// Keys that must stay the same as long as the data lives.
#[derive(Serialize, Deserialize)]
pub struct Secrets {
    idempotency_key: String,
    seal_keys: String,
    payment_gateway_key: String,
    payment_webhook_secret: String,
}

impl Secrets {
    /// Those in the folder, made where there are none.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn read_or_make(home: &Path) -> anyhow::Result<Self> {
        let path = home.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is not readable", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Settings { idempotency_key, seal_keys, payment_gateway_key, payment_webhook_secret, .. } =
                    Settings::development("", "");
                let secrets = Self { idempotency_key, seal_keys, payment_gateway_key, payment_webhook_secret };
                let text = serde_json::to_string_pretty(&secrets)? + "\n";
                eventicket_servers::write_private(&path, text.as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(secrets)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Settings with these secrets and the servers, and for the rest the environment's or the defaults.
    ///
    /// # Errors
    /// A variable of the environment cannot be read.
    pub fn settings(&self, database_url: &str, nats_url: &str) -> anyhow::Result<Settings> {
        let mut own = Settings::development(database_url, nats_url);
        own.idempotency_key.clone_from(&self.idempotency_key);
        own.seal_keys.clone_from(&self.seal_keys);
        own.payment_gateway_key.clone_from(&self.payment_gateway_key);
        own.payment_webhook_secret.clone_from(&self.payment_webhook_secret);
        let own = own.to_env();
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut settings = Settings::read(|name| {
            given(name).or_else(|| own.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()))
        })?;
        database_url.clone_into(&mut settings.database_url);
        nats_url.clone_into(&mut settings.nats_url);
        Ok(settings)
    }
}
