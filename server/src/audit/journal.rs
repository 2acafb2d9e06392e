//! The audit's journals: what has begun and ended, in the frames of the server's other journals.
//!
//! What always holds: what a failed write has left is cut off before the next; a journal that is damaged counts up to
//! the damage.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dovetail_engine::audit::AuditRecord;
use serde::{Deserialize, Serialize};

use crate::journal::frames::{self, HEADER};

/// A larger file is none of ours.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// How its name ends.
const EXTENSION: &str = "journal";

/// What a frame says, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a> {
    Begun(&'a AuditRecord),
    Ended(&'a AuditRecord),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Begun(AuditRecord),
    Ended(AuditRecord),
}

/// The journal that is being written.
pub struct Growing {
    file: File,
    number: u64,
    /// Up to the end of the last frame.
    bytes: u64,
    /// There is half a frame behind it.
    is_torn: bool,
}

impl Growing {
    /// A new one.
    pub fn create(folder: &Path, number: u64) -> io::Result<Growing> {
        let path = path(folder, number);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        // One of this number may have been begun in vain.
        file.set_len(0)?;
        file.write_all(&HEADER)?;
        Ok(Growing { file, number, bytes: HEADER.len() as u64, is_torn: false })
    }

    /// Which one it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds a line; how many bytes it takes. It is the operating system's when this returns.
    pub fn add(&mut self, line: &Line<'_>) -> io::Result<usize> {
        if self.is_torn {
            self.file.set_len(self.bytes)?;
            self.is_torn = false;
        }
        let payload = serde_json::to_vec(line)?;
        let frame = frames::frame(&payload).ok_or_else(|| io::Error::other("a record is too large"))?;
        if let Err(error) = self.file.write_all(&frame) {
            self.is_torn = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        Ok(frame.len())
    }
}

/// Where a journal is.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.{EXTENSION}"))
}

/// The number of a journal by its file's name.
pub fn number_of(path: &Path) -> Option<u64> {
    let number = path.file_stem()?.to_str()?.parse().ok()?;
    (path.extension()? == EXTENSION).then_some(number)
}

/// What some journals tell, in their order: what has ended, and what had begun and not ended, as it was then.
pub fn read(journals: &[PathBuf]) -> io::Result<Vec<AuditRecord>> {
    let mut running = BTreeMap::new();
    let mut records = vec![];
    for path in journals {
        let mut bytes = vec![];
        File::open(path)?.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes)?;
        let frames = frames::read(&bytes);
        if let Some(problem) = frames.problem {
            tracing::warn!(path = %path.display(), problem, "a journal of the audit is not whole");
        }
        for payload in frames.payloads {
            match serde_json::from_slice(payload) {
                Ok(Told::Begun(record)) => drop(running.insert(record.statement_id, record)),
                Ok(Told::Ended(record)) => {
                    running.remove(&record.statement_id);
                    records.push(record);
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a line of the audit is of another version");
                }
            }
        }
    }
    records.extend(running.into_values());
    Ok(records)
}
