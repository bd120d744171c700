//! The private PostgreSQL.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::process::Command;
use tokio::time::timeout;

use crate::home::{self, Home, User};
use crate::watch::{Server, clean_environment};
use crate::{Error, Options};

const USER: &str = "eventicket";
/// The load is many small transactions of a few hundred rows, from at most 200 connections.
const CONFIGURATION: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("shared_buffers", "256MB"),
    // Less often a checkpoint, less often whole pages in the log; more often, less to read again after a crash: 370 MB took a
    // second. Pages are not compressed: in a rush that took 4 % of all CPU.
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1min"),
    // Each new file of the log was filled with 16 MiB of zeros first, while all commits waited for 40 to 60 ms.
    ("wal_init_zero", "off"),
    // Pages that sessions write go to the disk soon, not all together when the kernel finds them too old: every 30 s that
    // was 400 to 600 MB at once, while commits waited for half a second.
    ("backend_flush_after", "512kB"),
    ("autovacuum_naptime", "10s"),
    // A deadlock shows as such before the sessions' lock_timeout of 1 s.
    ("deadlock_timeout", "100ms"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];
/// Systems take socket addresses of up to 103 to 107 bytes, of which the file's name takes 15.
const LONGEST_SOCKET_FOLDER: usize = 87;
/// For data that nobody misses after a crash.
const DISPOSABLE: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")];

pub(crate) struct Postgres {
    pub program: PathBuf,
    pub user: Option<User>,
    /// Holds `data`; it belongs to PostgreSQL's user.
    pub folder: PathBuf,
    pub log: PathBuf,
    pub password: String,
    pub local_socket: bool,
    pub durable: bool,
    /// Whether the data is removed at the end, so that stopping need not write anything.
    pub disposable: bool,
    pub connections: u32,
}

/// The folder in a home that PostgreSQL's user can reach, and that user.
pub(crate) fn place(home: &Home) -> Result<(PathBuf, Option<User>), Error> {
    let places = home::postgres_places(home.path());
    let user = home::unprivileged(&places.clone().map(|place| place.join("data")))?;
    let place = if home::is_open_to(home.path(), user) { &places[0] } else { &places[1] };
    Ok((place.clone(), user))
}

/// The major version that the data was made with, where there is data.
pub(crate) fn data_version(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("data/PG_VERSION")).ok()?.trim().parse().ok()
}

/// The folder with a folder for the tables of each database.
pub(crate) fn tables(folder: &Path) -> PathBuf {
    folder.join("data/base")
}

impl Postgres {
    /// Its address, by its port.
    pub fn url(&self) -> impl Fn(u16) -> String + use<> {
        let host = match self.socket_folder() {
            Some(folder) => percent_encode(folder.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC).to_string(),
            None => "127.0.0.1".to_owned(),
        };
        let password = self.password.clone();
        move |port| format!("postgres://{USER}:{password}@{host}:{port}")
    }

    /// Where it has a socket, which only its user and root can reach. Its setting is a list with commas and quotes.
    fn socket_folder(&self) -> Option<PathBuf> {
        let data = self.data();
        let fits = |path: &str| path.len() <= LONGEST_SOCKET_FOLDER && !path.contains([',', '"']);
        data.to_str().is_some_and(|path| self.local_socket && fits(path)).then_some(data)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Makes the data folder where there is none; a half-made one of an earlier start is thrown away.
    pub async fn initialize(&self, options: &Options) -> Result<(), Error> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
        }
        fs::create_dir_all(&self.folder).map_err(Error::io("make", &self.folder))?;
        home::set_mode(&self.folder, 0o700)?;
        if self.data().is_dir() {
            let owner = fs::metadata(self.data()).map_err(Error::io("read", self.data()))?.uid();
            let changed = self.user.is_some_and(|user| user.uid != owner);
            return if changed { home::give(&self.folder, self.user) } else { Ok(()) };
        }
        let (fresh, password) = (self.folder.join("fresh"), self.folder.join("password"));
        let _ = fs::remove_dir_all(&fresh);
        home::write_private(&password, self.password.as_bytes()).map_err(Error::io("write", &password))?;
        home::give(&self.folder, self.user)?;
        let made = self.initdb(&fresh, &password, options).await;
        let _ = fs::remove_file(&password);
        made?;
        fs::rename(&fresh, self.data()).map_err(Error::io("move", &fresh))
    }

    async fn initdb(&self, data: &Path, password: &Path, options: &Options) -> Result<(), Error> {
        let program = self.program.with_file_name("initdb");
        let mut command = Command::new(&program);
        command.args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-instructions"]);
        command.arg(format!("--username={USER}")).arg("--pwfile").arg(password).arg("--pgdata").arg(data);
        if !options.durable {
            command.arg("--no-sync");
        }
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.current_dir("/").process_group(0).kill_on_drop(true);
        clean_environment(&mut command);
        let output = command.output().await.map_err(Error::io("start", &program))?;
        if output.status.success() {
            return Ok(());
        }
        let reason = format!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        Err(Error::NotStarted { server: Self::NAME, reason, log: self.log.clone() })
    }
}

impl Server for Postgres {
    const NAME: &'static str = "postgres";
    // Fast shutdown: sessions are ended, everything is written. Then immediate: recovered at the next start.
    const SIGNALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

    fn command(&self, port: u16) -> Result<(PathBuf, Vec<OsString>), Error> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data().into(), "-p".into(), port.to_string().into()];
        let disposable = if self.durable { &[][..] } else { DISPOSABLE };
        for (name, value) in CONFIGURATION.iter().chain(disposable) {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        arguments.extend(["-c".into(), format!("max_connections={}", self.connections).into()]);
        let mut sockets = OsString::from("unix_socket_directories=");
        sockets.push(self.socket_folder().unwrap_or_default());
        arguments.extend(["-c".into(), sockets]);
        Ok((self.program.clone(), arguments))
    }

    fn user(&self) -> Option<User> {
        self.user
    }

    fn pid_file(&self) -> (PathBuf, PathBuf) {
        (self.data().join("postmaster.pid"), self.data())
    }

    fn processes(&self) -> Option<(PathBuf, &'static str)> {
        Some((self.data(), "postgres"))
    }

    fn socket_files(&self) -> Vec<PathBuf> {
        let is_socket = |file: &fs::DirEntry| file.file_name().to_string_lossy().starts_with(".s.PGSQL.");
        let files = fs::read_dir(self.data()).into_iter().flatten().flatten();
        files.filter(is_socket).map(|file| file.path()).collect()
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    async fn probe(&self, port: u16) -> Result<(), String> {
        let options = PgConnectOptions::from_str(&self.url()(port)).map_err(|error| error.to_string())?;
        let options = options.database("postgres").disable_statement_logging();
        let connect = async { PgConnection::connect_with(&options).await?.close().await };
        match timeout(Duration::from_secs(5), connect).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }

    fn is_disposable(&self) -> bool {
        self.disposable
    }
}
