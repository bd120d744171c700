//! What runs: the file that tells the other commands where everything of the running platform is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use eventicket_kit::Settings;
use serde::{Deserialize, Serialize};

use crate::secrets::Secrets;

const FILE: &str = "platform.json";

/// A running platform.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Platform {
    /// The process that started it.
    pub pid: u32,
    /// PostgreSQL's address with user and password.
    pub database_url: String,
    /// Stands before the names of the services' databases.
    pub database_prefix: String,
    /// NATS' address with user and password.
    pub nats_url: String,
    /// The REST API, without a slash at its end.
    pub gateway_url: String,
    /// The payment gateway.
    pub payment_gateway_url: String,
    /// Folder of the mock payment gateway's ledger.
    pub ledger: PathBuf,
    /// Folder of the mailbox.
    pub mailbox: PathBuf,
    /// Processes of services, where each has its own.
    #[serde(default)]
    pub processes: BTreeMap<String, u32>,
    /// Where those tell their metrics.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
}

impl Platform {
    /// The platform that runs in the folder.
    ///
    /// # Errors
    /// None runs, or the file cannot be read.
    pub fn read(home: &Path) -> anyhow::Result<Self> {
        match Self::last(home)? {
            Some(platform) if eventicket_servers::is_locked(home) => Ok(platform),
            _ => bail!(
                "no platform runs in {}: start it with `eventicket up`, or set {} to where it runs",
                home.display(),
                crate::home::VARIABLE
            ),
        }
    }

    /// The platform that runs or ran in the folder: after a kill the file is still there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last(home: &Path) -> anyhow::Result<Option<Self>> {
        let path = home.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is not readable", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Settings as the platform's services have them.
    ///
    /// # Errors
    /// The secrets in the folder cannot be read.
    pub fn settings(&self, home: &Path) -> anyhow::Result<Settings> {
        let mut settings = Secrets::read_or_make(home)?.settings(&self.database_url, &self.nats_url)?;
        settings.database_prefix.clone_from(&self.database_prefix);
        settings.payment_gateway_url.clone_from(&self.payment_gateway_url);
        settings.public_url.clone_from(&self.gateway_url);
        Ok(settings)
    }

    /// Writes the file.
    pub fn write(&self, home: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        eventicket_servers::write_private(&home.join(FILE), text.as_bytes()).context("cannot write platform.json")
    }

    /// Removes the file.
    pub fn remove(home: &Path) {
        let _ = std::fs::remove_file(home.join(FILE));
    }
}
