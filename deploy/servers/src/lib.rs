//! The private PostgreSQL and nats-server of one machine: found or fetched, started, kept running, stopped.
//!
//! They listen at free ports of 127.0.0.1 behind generated passwords, with their data in the folder of the installation.
//! They are for development, demonstration and tests; deployments run servers of their own.

mod error;
mod fetch;
mod find;
mod growth;
mod home;
mod nats;
mod postgres;
mod restarts;
mod watch;

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use error::Error;
pub use find::{Binaries, Binary, Version, Wanted};
pub use home::{Home, cache_folder, is_locked, write_private};
pub use restarts::Restarts;
pub use watch::is_running;

use crate::nats::Nats;
use crate::postgres::Postgres;
use crate::watch::{Janitor, Kept};

/// The file with the servers' passwords in the home folder.
const PASSWORDS: &str = "servers.json";

/// What is started, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A PostgreSQL that runs already; none is started then.
    pub database_url: Option<String>,
    /// A NATS that runs already; none is started then.
    pub nats_url: Option<String>,
    /// Whether data survives a crash of the machine; tests do without.
    pub durable: bool,
    /// Whether PostgreSQL is reached by a socket in its data folder, where that has a short enough name: a round trip takes less
    /// than by TCP, which it listens on, too.
    pub local_socket: bool,
    /// Most connections to PostgreSQL.
    pub connections: u32,
    /// Number of NATS accounts beside each other, each with JetStream; 0 for one account for all.
    pub accounts: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { database_url: None, nats_url: None, durable: true, local_socket: false, connections: 200, accounts: 0 }
    }
}

/// Servers that run, private ones or those that were named; private ones stop when this is dropped.
pub struct Servers {
    /// PostgreSQL's address, with user and password, without a database.
    pub database_url: String,
    /// NATS' address, with user and password; of the first account where there are several.
    pub nats_url: String,
    postgres: Option<Kept>,
    nats: Option<Kept>,
    accounts: Option<(u16, Passwords)>,
    janitor: Option<Janitor>,
    failed: CancellationToken,
    /// What PostgreSQL's tables grow by is written soon as long as this is here.
    _growth: Option<DropGuard>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Passwords {
    database: String,
    nats: String,
}

impl Servers {
    /// Starts the servers, fetched where the machine has none, and returns when they answer. What an earlier start left
    /// running in the same home is stopped first.
    pub async fn start(home: &Home, options: Options) -> Result<Self, Error> {
        let passwords = passwords(home)?;
        let (folder, user) = postgres::place(home)?;
        let (tables, logs) = (postgres::tables(&folder), home.logs()?);
        let wanted = Wanted {
            postgres: options.database_url.is_none(),
            postgres_major: postgres::data_version(&folder),
            nats: options.nats_url.is_none(),
            user,
        };
        let binaries = tokio::task::spawn_blocking(move || Binaries::find(&cache_folder(), &wanted)).await;
        let binaries = binaries.map_err(|error| Error::Fetch(format!("the search panicked: {error}")))??;
        let janitor = home.is_temporary().then(|| Janitor::start(&removed_with(home, &folder))).transpose()?;
        let failed = CancellationToken::new();

        let start_postgres = async {
            let Some(binary) = binaries.postgres else { return Ok(None) };
            let log = logs.join("postgres.log");
            let (password, durable, connections) = (passwords.database.clone(), options.durable, options.connections);
            let (disposable, local_socket) = (home.is_temporary(), options.local_socket);
            let server = Postgres {
                program: binary.path,
                user,
                folder,
                log,
                password,
                local_socket,
                durable,
                disposable,
                connections,
            };
            server.initialize(&options).await?;
            let url = server.url();
            let kept = Kept::start(server, janitor.clone(), failed.clone()).await?;
            Ok::<_, Error>(Some((url(kept.port), kept)))
        };
        let start_nats = async {
            let Some(binary) = binaries.nats else { return Ok(None) };
            let (folder, log) = (home.path().join("nats"), logs.join("nats-server.log"));
            let (name, password) = (format!("eventicket-{}", secret()), passwords.nats.clone());
            let (accounts, disposable) = (options.accounts, home.is_temporary());
            let server = Nats { program: binary.path, folder, log, password, name, accounts, disposable };
            Kept::start(server, janitor.clone(), failed.clone()).await.map(Some)
        };
        let (postgres, nats) = tokio::join!(start_postgres, start_nats);
        let (postgres, nats) = match (postgres, nats) {
            (Ok(postgres), Ok(nats)) => (postgres, nats),
            (Err(error), other) => {
                stop(other.ok().flatten(), None).await;
                return Err(error);
            }
            (Ok(other), Err(error)) => {
                stop(other.map(|(_, kept)| kept), None).await;
                return Err(error);
            }
        };
        let (database_url, postgres) = postgres.unzip();
        let growth = (postgres.is_some() && options.durable).then(|| growth::written_soon(tables));
        let accounts = (options.accounts > 0 && nats.is_some()).then(|| (options.accounts, passwords.clone()));
        let account = accounts.as_ref().map(|_| 0);
        let nats_url = nats.as_ref().map(|kept| nats::url(kept.port, &passwords.nats, account));
        Ok(Self {
            database_url: database_url.or(options.database_url).unwrap_or_default(),
            nats_url: nats_url.or(options.nats_url).unwrap_or_default(),
            postgres,
            nats,
            accounts,
            janitor,
            failed,
            _growth: growth,
        })
    }

    /// NATS' address for one of several accounts, counted from 0; `None` where there are not so many.
    pub fn account_url(&self, number: u16) -> Option<String> {
        let (accounts, passwords) = self.accounts.as_ref()?;
        let kept = self.nats.as_ref().filter(|_| number < *accounts)?;
        Some(nats::url(kept.port, &passwords.nats, Some(number)))
    }

    /// Cancelled when a server that died again and again is given up.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Stops the private servers in order, and removes a temporary home.
    pub async fn stop(self) {
        stop(self.nats, self.postgres).await;
        if let Some(janitor) = self.janitor {
            janitor.finish().await;
        }
    }
}

async fn stop(one: Option<Kept>, other: Option<Kept>) {
    for kept in [one, other].into_iter().flatten() {
        kept.stop().await;
    }
}

/// A temporary home, and PostgreSQL's folder where it is not inside.
fn removed_with(home: &Home, postgres: &std::path::Path) -> Vec<PathBuf> {
    let mut folders = vec![home.path().to_owned()];
    folders.extend(postgres.parent().filter(|folder| *folder != home.path()).map(Into::into));
    folders
}

fn passwords(home: &Home) -> Result<Passwords, Error> {
    let path = home.path().join(PASSWORDS);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::io("read", &path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let passwords = Passwords { database: secret(), nats: secret() };
            let text =
                serde_json::to_vec_pretty(&passwords).map_err(|error| Error::io("write", &path)(error.into()))?;
            write_private(&path, &text).map_err(Error::io("write", &path))?;
            Ok(passwords)
        }
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}
