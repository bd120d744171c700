//! What tests run against: one private PostgreSQL and nats-server a test binary, and in them a place for each test.
//!
//! Both start on first use, in a temporary folder, and stop with the process, however it ends. Every test has a NATS
//! account and database names of its own, so that tests run side by side. Failures panic: there is no test without.

mod meter;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use eventicket_servers::{Home, Options, Servers};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::sync::OnceCell;

pub use meter::{Meter, Usage};

/// Most tests of one binary that may ask for a world.
const ACCOUNTS: u16 = 256;
const CONNECTIONS: u32 = 500;

static SHARED: OnceLock<Shared> = OnceLock::new();

struct Shared {
    servers: Servers,
    worlds: AtomicU16,
    /// Databases that were migrated and are cloned, by name.
    templates: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
}

/// A test's own place in the servers.
pub struct World {
    /// PostgreSQL's address with user and password, without a database.
    pub database_url: String,
    /// NATS' address with the test's own account, which has JetStream and no stream.
    pub nats_url: String,
    /// Stands before the names of the test's databases.
    pub prefix: String,
}

/// A fresh place for one test; the first call of a binary starts the servers.
pub async fn world() -> World {
    let shared = shared().await;
    let number = shared.worlds.fetch_add(1, Ordering::SeqCst);
    let nats_url = shared.servers.account_url(number);
    World {
        database_url: shared.servers.database_url.clone(),
        nats_url: nats_url.unwrap_or_else(|| panic!("more than {ACCOUNTS} worlds in one test binary")),
        prefix: format!("t{number}_"),
    }
}

impl World {
    /// Makes the database `<prefix><name>`, cloned from one that is migrated once a binary; returns its address.
    pub async fn database(&self, name: &str, migrator: &Migrator) -> String {
        let template = format!("template_{name}");
        let cell = {
            let mut templates = shared().await.templates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(templates.entry(name.to_owned()).or_default())
        };
        cell.get_or_init(|| async {
            self.create(&template, "template0").await;
            let mut connection = self.connect(&template).await;
            migrator.run_direct(None, &mut connection, false).await.expect("the migrations run");
            connection.close().await.expect("PostgreSQL answers");
        })
        .await;
        let database = format!("{}{name}", self.prefix);
        self.create(&database, &template).await;
        format!("{}/{database}", self.database_url)
    }

    async fn create(&self, name: &str, template: &str) {
        let mut connection = self.connect("postgres").await;
        let statement = AssertSqlSafe(format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\""));
        sqlx::query(statement).execute(&mut connection).await.expect("the database can be made");
        connection.close().await.expect("PostgreSQL answers");
    }

    async fn connect(&self, database: &str) -> PgConnection {
        self.options(database).connect().await.expect("PostgreSQL answers")
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.database_url).expect("the servers' address is valid").database(database)
    }
}

async fn shared() -> &'static Shared {
    match SHARED.get() {
        Some(shared) => shared,
        None => tokio::task::spawn_blocking(|| SHARED.get_or_init(start)).await.expect("the servers start"),
    }
}

/// Starts the servers on a thread with a runtime of its own, since each test's runtime ends with the test.
fn start() -> Shared {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        runtime.block_on(async {
            let home = Home::temporary().expect("a temporary folder can be made");
            let options =
                Options { durable: false, connections: CONNECTIONS, accounts: ACCOUNTS, ..Options::default() };
            let servers = Servers::start(&home, options).await;
            let failed = servers.as_ref().map(Servers::failed).unwrap_or_default();
            let _ = tell.send(servers);
            // Runs until the process ends; its pipes to the servers' watchdogs close then.
            failed.cancelled().await;
            std::future::pending::<()>().await;
        });
    });
    let servers = told.recv().expect("the thread of the servers lives");
    let servers = servers.unwrap_or_else(|error| panic!("the servers do not start: {error}"));
    Shared { servers, worlds: AtomicU16::new(0), templates: Mutex::default() }
}
