//! What the private PostgreSQL's tables grow by goes to the disk soon.
//!
//! A table grows by pages of zeros, which are written by nobody's wish: the kernel keeps them until they are 30 s old, and
//! then all leave at once, 100 MB and more in a rush, while commits wait for a quarter of a second and longer. PostgreSQL has
//! a setting for what its sessions write into pages (`backend_flush_after`), but none for this.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

const PAUSE: Duration = Duration::from_secs(2);

/// Has what the files in the folders of a folder grow by written soon, until what it gives is dropped.
pub(crate) fn written_soon(folder: PathBuf) -> DropGuard {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let mut lengths = Lengths::default();
        while stopped.run_until_cancelled(sleep(PAUSE)).await.is_some() {
            let folder = folder.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let left = |path: &Path, error: io::Error| {
                    tracing::debug!(path = %path.display(), %error, "what it has grown by is left to the kernel");
                };
                match lengths.look(&folder) {
                    Err(error) => left(&folder, error),
                    Ok(grown) => grown.into_iter().for_each(|(file, grown)| {
                        begin_to_write(&file, grown).unwrap_or_else(|error| left(&file, error));
                    }),
                }
                lengths
            });
            let Ok(after) = looked.await else { return };
            lengths = after;
        }
    });
    stop.drop_guard()
}

/// Does not wait for the end, and takes no notice of an error of the disk, which must reach PostgreSQL. What the kernel forgets
/// of the file then are only those pages of the growth that were written already.
#[cfg(target_os = "linux")]
fn begin_to_write(file: &Path, Range { start, end }: Range<u64>) -> io::Result<()> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

    let offset = |at: u64| i64::try_from(at).map_err(io::Error::other);
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    Ok(posix_fadvise(fs::File::open(file)?, offset(start)?, offset(end - start)?, advice)?)
}

/// Other systems have no such wish, or keep nothing for so long.
#[cfg(not(target_os = "linux"))]
fn begin_to_write(_: &Path, _: Range<u64>) -> io::Result<()> {
    Ok(())
}

/// How long files were when they were looked at last.
#[derive(Default)]
struct Lengths(Option<HashMap<PathBuf, u64>>);

impl Lengths {
    /// What files have grown by since the last look; nothing at the first one.
    ///
    /// # Errors
    /// Something is there that cannot be read; it is as if nobody had looked.
    fn look(&mut self, folder: &Path) -> io::Result<Vec<(PathBuf, Range<u64>)>> {
        let mut now = HashMap::new();
        for database in entries(folder)? {
            for file in entries(&database)? {
                match fs::metadata(&file) {
                    Ok(metadata) if metadata.is_file() => drop(now.insert(file, metadata.len())),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let Some(before) = self.0.replace(now) else { return Ok(Vec::new()) };
        let now = self.0.iter().flatten();
        let grown = now.map(|(file, length)| (file, before.get(file).copied().unwrap_or_default()..*length));
        Ok(grown.filter(|(_, grown)| !grown.is_empty()).map(|(file, grown)| (file.clone(), grown)).collect())
    }
}

/// What is in a folder; nothing where it is gone meanwhile, or is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_have_grown_by_is_found_and_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("5");
        fs::create_dir(&database).unwrap();
        let [old, shrunk, new] = ["1259", "1260", "1261"].map(|name| database.join(name));
        let write = |file: &Path, length: usize| fs::write(file, vec![1; length]).unwrap();
        write(&old, 8_192);
        write(&shrunk, 8_192);
        let mut lengths = Lengths::default();
        assert_eq!(lengths.look(folder.path()).unwrap(), [], "the first look");
        assert_eq!(lengths.look(folder.path()).unwrap(), [], "nothing has grown");

        write(&old, 24_576);
        write(&shrunk, 0);
        write(&new, 8_192);
        let mut grown = lengths.look(folder.path()).unwrap();
        grown.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(grown, [(old, 8_192..24_576), (new.clone(), 0..8_192)]);
        grown.into_iter().for_each(|(file, grown)| begin_to_write(&file, grown).unwrap());
        #[cfg(target_os = "linux")]
        assert!(begin_to_write(&shrunk.join("gone"), 0..1).is_err());
        assert_eq!(fs::read(new).unwrap(), vec![1; 8_192], "it is only written");
    }
}
