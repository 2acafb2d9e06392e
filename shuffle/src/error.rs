//! What can go wrong while partitions move, in classes that decide what happens next.
//!
//! A caller decides by variant, never by text: damaged or lost data ([`ShuffleError::is_loss`]) is produced
//! again by its task; a full disk and an unusable directory fail the query that asked; a broken
//! conservation of rows fails the query, because an answer would be wrong. Each message is one paragraph
//! for the user: what happened, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, ShuffleError>;

/// A failure of the shuffle.
#[derive(Debug, thiserror::Error)]
pub enum ShuffleError {
    /// Bytes that were read are not the bytes that were written.
    #[error(
        "the shuffle file '{}' is damaged at byte {offset}: {what}. The task that wrote it must run again; \
         if this repeats, check the disk, or choose another directory with --temp-dir",
        file.display()
    )]
    Corrupt { file: PathBuf, offset: u64, what: String },

    /// A finished file is gone, or the operating system does not give its bytes.
    #[error(
        "the shuffle file '{}' cannot be read: {source}. The task that wrote it must run again; if this \
         repeats, check the disk, or choose another directory with --temp-dir",
        file.display()
    )]
    Unreadable { file: PathBuf, source: io::Error },

    /// No spill directory could take `bytes` more.
    #[error(
        "the disk is full: none of the spill directories can take {bytes} more bytes ({}). Free some space, \
         raise their quota, or name more directories with --temp-dir",
        list(dirs)
    )]
    DiskFull { dirs: Vec<DirectoryState>, bytes: u64 },

    /// A spill directory cannot be used at all.
    #[error(
        "the spill directory '{}' cannot be used: {source}. Make it a directory that this process may write, \
         or choose another with --temp-dir",
        dir.display()
    )]
    Directory { dir: PathBuf, source: io::Error },

    /// A file could not be made or written, and not because the disk is full.
    #[error(
        "could not {action} the shuffle file '{}': {source}. Check the disk, or choose another directory \
         with --temp-dir",
        path.display()
    )]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    /// An exchange has lost or doubled rows.
    #[error(
        "exchange {exchange} lost or doubled rows: {written} were written to partition {partition} and \
         {read} were read. The query was stopped rather than give a wrong answer; please report it"
    )]
    Conservation { exchange: u64, partition: usize, written: u64, read: u64 },

    /// One row that is larger than a block may be.
    #[error(
        "{count} {unit} do not fit a shuffle block, which holds {max} at most. Make the largest values of \
         the query (strings, lists) smaller"
    )]
    TooLarge { unit: &'static str, count: usize, max: usize },

    /// A type that has no encoding.
    #[error("values of type {data_type} cannot be shuffled or spilled. Cast them to another type first")]
    UnsupportedType { data_type: DataType },

    /// An Arrow kernel failed on data in memory.
    #[error("could not lay out rows for the shuffle: {source}. Please report it")]
    Arrow {
        #[from]
        source: ArrowError,
    },
}

/// A spill directory that had no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryState {
    pub dir: PathBuf,
    /// Bytes this process holds there.
    pub used_bytes: u64,
    /// The quota, if it has one.
    pub quota_bytes: Option<u64>,
}

impl ShuffleError {
    /// Whether a finished output is damaged or gone, so that the task that produced it must run again.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Unreadable { .. } => true,
            Self::DiskFull { .. }
            | Self::Directory { .. }
            | Self::Io { .. }
            | Self::Conservation { .. }
            | Self::TooLarge { .. }
            | Self::UnsupportedType { .. }
            | Self::Arrow { .. } => false,
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_path_buf(), offset, what: what.into() }
    }

    pub(crate) fn unreadable(file: &Path, source: io::Error) -> Self {
        Self::Unreadable { file: file.to_path_buf(), source }
    }

    pub(crate) fn too_large(unit: &'static str, count: usize, max: usize) -> Self {
        Self::TooLarge { unit, count, max }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

fn list(dirs: &[DirectoryState]) -> String {
    if dirs.is_empty() {
        return "none is set".into();
    }
    let one = |d: &DirectoryState| {
        let quota = d.quota_bytes.map_or(String::new(), |q| format!(" of a quota of {q}"));
        format!("'{}' holds {} bytes{quota}", d.dir.display(), d.used_bytes)
    };
    dirs.iter().map(one).collect::<Vec<_>>().join("; ")
}
