//! The private nats-server with JetStream.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Error;
use crate::home::{User, write_private};
use crate::watch::Server;

const USER: &str = "eventicket";
/// Streams reserve their bounds when they are made; nothing is allocated.
const MAX_FILE_STORE: u64 = 64 << 30;
/// Each of many accounts reserves for its own streams.
const MAX_STORE_ACCOUNTS: u64 = 8 << 40;
const MAX_MEMORY_STORE: u64 = 2 << 30;

pub(crate) struct Nats {
    pub program: PathBuf,
    pub folder: PathBuf,
    pub log: PathBuf,
    pub password: String,
    /// Names this server among others that may answer at its port.
    pub name: String,
    /// Number of accounts beside each other; none for a server with one account for all.
    pub accounts: u16,
    pub disposable: bool,
}

/// The address of one of several accounts, or of the server's only one.
pub(crate) fn url(port: u16, password: &str, account: Option<u16>) -> String {
    match account {
        Some(number) => format!("nats://{}:{password}@127.0.0.1:{port}", account_name(number)),
        None => format!("nats://{USER}:{password}@127.0.0.1:{port}"),
    }
}

fn account_name(number: u16) -> String {
    format!("a{number:03}")
}

impl Nats {
    /// JSON, which is a subset of the server's own language.
    fn configuration(&self, port: u16) -> Value {
        let alone = self.accounts == 0;
        let most = |of_one| if alone { of_one } else { MAX_STORE_ACCOUNTS };
        let mut configuration = json!({
            "server_name": self.name,
            "listen": format!("127.0.0.1:{port}"),
            "pid_file": self.folder.join("pid"),
            "write_deadline": "10s",
            "jetstream": {
                "store_dir": self.folder.join("store"),
                "max_file_store": most(MAX_FILE_STORE),
                "max_memory_store": most(MAX_MEMORY_STORE),
            },
        });
        if alone {
            configuration["authorization"] = json!({ "user": USER, "password": self.password });
        } else {
            let account = |number| {
                let name = account_name(number);
                let users = json!([{ "user": name, "password": self.password }]);
                (name.to_uppercase(), json!({ "jetstream": "enabled", "users": users }))
            };
            configuration["accounts"] = Value::Object((0..self.accounts).map(account).collect::<Map<_, _>>());
        }
        configuration
    }
}

impl Server for Nats {
    const NAME: &'static str = "nats-server";
    const SIGNALS: [Signal; 2] = [Signal::SIGTERM, Signal::SIGKILL];

    fn command(&self, port: u16) -> Result<(PathBuf, Vec<OsString>), Error> {
        std::fs::create_dir_all(&self.folder).map_err(Error::io("make", &self.folder))?;
        let file = self.folder.join("server.conf");
        let text = format!("{:#}\n", self.configuration(port));
        write_private(&file, text.as_bytes()).map_err(Error::io("write", &file))?;
        Ok((self.program.clone(), vec!["--config".into(), file.into()]))
    }

    fn user(&self) -> Option<User> {
        None
    }

    fn pid_file(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("pid"), self.folder.join("server.conf"))
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// A server greets each connection with a line about itself, once it serves.
    async fn probe(&self, port: u16) -> Result<(), String> {
        let greeting = async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            std::io::Result::Ok(line)
        };
        let line = match timeout(Duration::from_secs(2), greeting).await {
            Ok(line) => line.map_err(|error| error.to_string())?,
            Err(_) => return Err("it does not answer".to_owned()),
        };
        if line.contains(&self.name) { Ok(()) } else { Err("another server answers at its port".to_owned()) }
    }

    fn is_disposable(&self) -> bool {
        self.disposable
    }
}
