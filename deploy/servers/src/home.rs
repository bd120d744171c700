//! The folder of one installation, and who may enter which folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::Error;

/// Where data goes that a closed parent folder would hide from PostgreSQL's user.
const SYSTEM_DATA: &str = "/var/lib/eventicket";
/// The same for fetched servers.
const SYSTEM_CACHE: &str = "/var/cache/eventicket";

/// A process that was killed holds its lock until the system has cleared it away; a lock cannot be waited for with a bound.
const ENDING: Duration = Duration::from_secs(1);

/// The folder of one installation, locked while this lives.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    temporary: bool,
    /// Unlocked by the system when it is closed, however the process ends.
    _lock: File,
}

impl Home {
    /// Makes the folder where it is not there, and locks it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        if !root.is_dir() {
            fs::create_dir_all(root).map_err(Error::io("make", root))?;
            // PostgreSQL's user must pass through it, nobody needs to list it.
            set_mode(root, 0o711)?;
        }
        Self::lock(root, false)
    }

    /// A new folder among the temporary files, removed when its servers have stopped.
    pub fn temporary() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("eventicket-")
            .tempdir_in(&parent)
            .map_err(Error::io("write to", &parent))?;
        let root = folder.keep();
        set_mode(&root, 0o711)?;
        Self::lock(&root, true)
    }

    fn lock(root: &Path, temporary: bool) -> Result<Self, Error> {
        let root = root.canonicalize().map_err(Error::io("open", root))?;
        let path = root.join("lock");
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = file.map_err(Error::io("open", &path))?;
        let start = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { root, temporary, _lock: lock }),
                Err(TryLockError::WouldBlock) if start.elapsed() < ENDING => std::thread::sleep(ENDING / 50),
                Err(TryLockError::WouldBlock) => return Err(Error::InUse(root)),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }

    /// The folder, without symbolic links in its path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether it is removed at the end.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The folder of the servers' and services' logs, made where it is not there.
    pub fn logs(&self) -> Result<PathBuf, Error> {
        let logs = self.root.join("logs");
        fs::create_dir_all(&logs).map_err(Error::io("make", &logs))?;
        Ok(logs)
    }
}

/// Whether another process holds the folder's lock: something runs there.
pub fn is_locked(root: &Path) -> bool {
    match File::options().write(true).open(root.join("lock")) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// A user that PostgreSQL runs as where this process is root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
}

/// `None` unless this process is root; else the owner of the data that is there, `postgres` or `nobody`.
pub(crate) fn unprivileged(data: &[PathBuf]) -> Result<Option<User>, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let owner = data.iter().find_map(|path| fs::metadata(path).ok()).map(|m| User { uid: m.uid(), gid: m.gid() });
    if let Some(owner) = owner.filter(|owner| owner.uid != 0) {
        return Ok(Some(owner));
    }
    let named = |name| nix::unistd::User::from_name(name).ok().flatten();
    let user = ["postgres", "nobody"].into_iter().find_map(named).ok_or(Error::NoUser)?;
    Ok(Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// Whether the user can pass through the folder and all above it; `None` is this process itself.
pub(crate) fn is_open_to(path: &Path, user: Option<User>) -> bool {
    let Some(user) = user else { return true };
    path.ancestors().filter_map(|folder| fs::metadata(folder).ok()).all(|folder| {
        let class = match folder {
            ref f if f.uid() == user.uid => 0o100,
            ref f if f.gid() == user.gid => 0o010,
            _ => 0o001,
        };
        folder.mode() & class != 0
    })
}

/// Where a home's PostgreSQL may be: inside it, and where data goes when that is closed to PostgreSQL's user.
pub(crate) fn postgres_places(home: &Path) -> [PathBuf; 2] {
    let digest = Sha256::digest(home.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    [home.join("postgres"), Path::new(SYSTEM_DATA).join(name).join("postgres")]
}

/// The folder of fetched servers, which all checkouts share.
pub fn cache_folder() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
    let user = unprivileged(&[]).ok().flatten();
    match own {
        Some(own) if is_open_to(&own, user) => own.join("eventicket"),
        _ if user.is_some() => PathBuf::from(SYSTEM_CACHE),
        _ => std::env::temp_dir().join("eventicket-cache"),
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("change the mode of", path))
}

/// Gives a folder and all in it to the user.
pub(crate) fn give(path: &Path, user: Option<User>) -> Result<(), Error> {
    let Some(user) = user else { return Ok(()) };
    fn walk(path: &Path, user: User) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))?;
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                walk(&entry?.path(), user)?;
            }
        }
        Ok(())
    }
    walk(path, user).map_err(Error::io("give to PostgreSQL's user", path))
}

/// Writes a file that only its owner reads, in one step.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_locked_once() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("deep/home");
        let home = Home::open(&root).unwrap();
        assert!(matches!(Home::open(&root), Err(Error::InUse(_))));
        assert!(is_locked(&root));
        drop(home);
        assert!(!is_locked(&root));
        Home::open(&root).unwrap();
    }

    #[test]
    fn a_closed_parent_is_seen() {
        let parent = tempfile::tempdir().unwrap();
        let inside = parent.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let stranger = Some(User { uid: 54_321, gid: 54_321 });
        set_mode(parent.path(), 0o700).unwrap();
        assert!(!is_open_to(&inside, stranger));
        assert!(is_open_to(&inside, None));
        set_mode(parent.path(), 0o711).unwrap();
        assert!(is_open_to(&inside, stranger));
    }

    #[test]
    fn private_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
