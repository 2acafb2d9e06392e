//! A process's folder in a spill directory, and the removal of folders whose process has died.
//!
//! The sign of life is a lock on a file beside the folder: the operating system releases it however the
//! process ends, and a number that is used again means nothing. No step needs another process to wait:
//!
//! - Who starts creates the lock file, locks it, and checks that it is still there; only then comes the
//!   folder.
//! - Who cleans up tries each lock. Getting one proves that its process is dead, or was not yet past the
//!   check: then that process finds its lock taken or its file gone, and tries another name.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::remove_folder;

const PREFIX: &str = "dovetail-";
const LOCK: &str = "lock";

/// How often another process's clean-up may get in the way of a start.
const ATTEMPTS_MAX: usize = 100;

/// A locked folder of this process; removed on drop.
#[derive(Debug)]
pub(super) struct ProcessFolder {
    folder: PathBuf,
    /// Holds the lock while it is open.
    _lock: File,
}

impl ProcessFolder {
    /// Removes what dead processes have left in `dir` and makes a folder for this one.
    pub(super) fn create(dir: &Path) -> io::Result<ProcessFolder> {
        fs::create_dir_all(dir)?;
        remove_dead(dir)?;
        for attempt in 0..ATTEMPTS_MAX {
            let nonce = RandomState::new().hash_one(attempt);
            let folder = dir.join(format!("{PREFIX}{}-{nonce:016x}", std::process::id()));
            let lock_path = folder.with_extension(LOCK);
            let lock = OpenOptions::new().write(true).create_new(true).open(&lock_path)?;
            if lock.try_lock().is_ok() && lock_path.exists() {
                create_private(&folder)?;
                return Ok(ProcessFolder { folder, _lock: lock });
            }
        }
        Err(io::Error::other("other processes keep removing the folder of this one"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for ProcessFolder {
    fn drop(&mut self) {
        remove_folder(&self.folder);
        let _ = fs::remove_file(self.folder.with_extension(LOCK));
    }
}

/// A folder that only this user may enter: the rows of a query are nobody else's business.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes the folders in `dir` whose lock nobody holds. What another user owns, and cannot be opened, stays.
fn remove_dead(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(PREFIX));
        if !is_ours || path.extension().is_none_or(|e| e != LOCK) {
            continue;
        }
        let Ok(lock) = OpenOptions::new().write(true).open(&path) else { continue };
        if lock.try_lock().is_ok() {
            remove_folder(&path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
