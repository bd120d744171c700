//! `eventicket doctor`: what is here, what is missing, and how the platform fares.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use eventicket_servers::{Binaries, Binary, Wanted, cache_folder, is_locked};
use nix::sys::resource::{Resource, getrlimit};

use crate::output;
use crate::platform::Platform;

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(5);

/// Look at the machine, its servers and the running platform
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints what it finds; fails where the platform could not start or is not healthy.
///
/// # Errors
/// None: what is wrong is printed.
pub async fn run(_: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let mut well = true;
    let mut tell = |name: &str, ok: bool, text: String| {
        well &= ok;
        output::line(&format!("{} {name:<16} {text}", if ok { "ok  " } else { "FAIL" }));
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let who = if nix::unistd::geteuid().is_root() { "as root" } else { "not as root" };
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    tell("eventicket", true, format!("{} on {os} {arch}, {cores} cores, {who}", env!("CARGO_PKG_VERSION")));
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    tell("open files", soft >= 4096, format!("at most {soft}"));
    let found = Binaries::installed(&Wanted::both());
    let pip = has_pip();
    for (name, binary, variable) in
        [("PostgreSQL", &found.postgres, "DATABASE_URL"), ("nats-server", &found.nats, "NATS_URL")]
    {
        let (ok, text) = server(binary.as_ref(), variable, pip);
        tell(name, ok, text);
    }
    tell("cache", true, cache_folder().display().to_string());
    let runs = is_locked(home);
    let state = if runs {
        "in use"
    } else if home.exists() {
        "not in use"
    } else {
        "not made yet"
    };
    tell("folder", true, format!("{}, {state}", home.display()));
    match Platform::read(home) {
        Ok(platform) => {
            let (ok, text) = health(&platform).await;
            tell("platform", ok, text);
            for (name, pid) in &platform.processes {
                tell(name, true, format!("process {pid}"));
            }
        }
        Err(_) => {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).is_ok();
            let text = if free { "free" } else { "taken: start with `eventicket up --port N`" };
            tell(&format!("port {PORT}"), true, text.to_owned());
            tell("platform", !runs, if runs { "starts or stops just now" } else { "does not run" }.to_owned());
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn server(binary: Option<&Binary>, variable: &str, pip: bool) -> (bool, String) {
    match binary {
        Some(Binary { path, version }) => (true, format!("{version} at {}", path.display())),
        None if std::env::var_os(variable).is_some() => (true, format!("as {variable} says")),
        None if pip => (true, "none that is new enough; fetched with pip into the cache".to_owned()),
        None => (false, format!("none that is new enough: install it, or python3 with pip, or set {variable}")),
    }
}

fn has_pip() -> bool {
    Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success())
}

async fn health(platform: &Platform) -> (bool, String) {
    let url = &platform.gateway_url;
    let asked = async {
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        http.get(format!("{url}/readyz")).send().await
    };
    match asked.await {
        Ok(answer) if answer.status().is_success() => (true, format!("ready at {url}, process {}", platform.pid)),
        Ok(answer) => (false, format!("not ready at {url}: {}", answer.text().await.unwrap_or_default())),
        Err(error) => (false, format!("does not answer at {url}: {error}")),
    }
}
