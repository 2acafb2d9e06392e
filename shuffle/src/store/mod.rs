//! Where spilled bytes lie: directories with quotas, a folder per process and query, files that delete
//! themselves.
//!
//! ```text
//! <directory>/                           one or several, from --temp-dir
//!   dovetail-<process>.lock              locked while the process lives
//!   dovetail-<process>/<query>/<file>    files, which only ever grow, and are then sealed
//! ```
//!
//! What always holds:
//!
//! - Whoever holds a file, a query's handle or the store keeps what is above it; when the last handle goes,
//!   the file or folder goes. What a killed process leaves behind, the next process removes
//!   ([`SpillStore::open`]).
//! - Bytes are counted before they are written and until their file is gone. Where a disk or a quota is
//!   full, the file moves to the next directory, with the bytes it has; when all are full, the write fails.
//! - Nothing is created for a query before its first file.

mod file;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use file::{FileWriter, StoredFile};
use process::ProcessFolder;

use crate::error::{DirectoryState, Result, ShuffleError};

/// A directory to spill to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillDirectory {
    pub path: PathBuf,
    /// The most bytes that this process may hold there; `None` is as many as the disk takes.
    pub quota_bytes: Option<u64>,
}

/// The spill directories of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpillStore {
    places: Arc<Places>,
}

/// A query's files. Cheap to clone; its folders go with the last clone and the last file.
#[derive(Debug, Clone)]
pub struct QueryStore {
    query: Arc<Query>,
}

#[derive(Debug)]
struct Places {
    places: Vec<Place>,
    files_alive: AtomicUsize,
    /// Makes names of queries and files unique.
    names: AtomicU64,
}

#[derive(Debug)]
struct Place {
    dir: PathBuf,
    process: ProcessFolder,
    quota_bytes: Option<u64>,
    used_bytes: AtomicU64,
}

#[derive(Debug)]
struct Query {
    places: Arc<Places>,
    folder: String,
}

impl SpillStore {
    /// Takes the directories into use, the most preferred first: creates them if need be, removes what dead
    /// processes have left there, and makes this process's folders.
    pub fn open(directories: &[SpillDirectory]) -> Result<SpillStore> {
        let mut places = vec![];
        for SpillDirectory { path, quota_bytes } in directories {
            let process = ProcessFolder::create(path)
                .map_err(|source| ShuffleError::Directory { dir: path.clone(), source })?;
            let used_bytes = AtomicU64::new(0);
            places.push(Place { dir: path.clone(), process, quota_bytes: *quota_bytes, used_bytes });
        }
        let places = Places { places, files_alive: AtomicUsize::new(0), names: AtomicU64::new(0) };
        Ok(SpillStore { places: Arc::new(places) })
    }

    /// A query's part of the store. The name is for who looks into the directories; it need not be unique.
    pub fn query(&self, name: &str) -> QueryStore {
        let folder = self.places.unique_name(name);
        QueryStore { query: Arc::new(Query { places: self.places.clone(), folder }) }
    }

    /// Bytes in all files of this process, and what is being written.
    pub fn bytes_in_use(&self) -> u64 {
        self.places.places.iter().map(|p| p.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// About the bytes that its directories take yet, by their quotas and their disks.
    pub fn room_bytes(&self) -> u64 {
        self.places.places.iter().map(Place::room_bytes).fold(0, u64::saturating_add)
    }

    /// Files of this process that are not deleted yet.
    pub fn files_alive(&self) -> usize {
        self.places.files_alive.load(Ordering::Relaxed)
    }
}

impl QueryStore {
    /// A new file, in the first directory that takes it.
    pub fn create(&self, name: &str) -> Result<FileWriter> {
        FileWriter::create(self.query.clone(), name)
    }
}

impl Places {
    /// `name`, of which letters, digits, `-` and `_` are kept, and a number.
    fn unique_name(&self, name: &str) -> String {
        const NAME_CHARS_MAX: usize = 64;
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name: String = name.chars().filter(plain).take(NAME_CHARS_MAX).collect();
        format!("{name}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    fn disk_full(&self, bytes: u64) -> ShuffleError {
        let state = |p: &Place| DirectoryState {
            dir: p.dir.clone(),
            used_bytes: p.used_bytes.load(Ordering::Relaxed),
            quota_bytes: p.quota_bytes,
        };
        ShuffleError::DiskFull { dirs: self.places.iter().map(state).collect(), bytes }
    }
}

impl Place {
    /// Counts the bytes if the quota has room for them.
    fn reserve(&self, bytes: u64) -> bool {
        let quota = self.quota_bytes.unwrap_or(u64::MAX);
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= quota);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn room_bytes(&self) -> u64 {
        let of_quota =
            self.quota_bytes.unwrap_or(u64::MAX).saturating_sub(self.used_bytes.load(Ordering::Relaxed));
        // A directory that cannot be looked at is found out when it is written to.
        let of_disk = rustix::fs::statvfs(&self.dir)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        of_quota.min(of_disk)
    }

    fn release(&self, bytes: u64) {
        let before = self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "invariant: only reserved bytes are released");
    }
}

impl Query {
    fn folder(&self, place: usize) -> PathBuf {
        self.places.places[place].process.path().join(&self.folder)
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        for place in 0..self.places.places.len() {
            remove_folder(&self.folder(place));
        }
    }
}

/// Removes a folder if it is there. What cannot be removed now is removed by the next process.
fn remove_folder(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}
