//! The log of one running query: written while it runs, read by the process that goes on with it.
//!
//! A record is in the file before what it says has consequences elsewhere. It is handed to the operating system, not
//! forced to the disk, but for the first: when the process dies nothing is missing, when the machine does, the last
//! records may be, and then a little more runs again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use prost::Message;

use super::frames::{self, HEADER};
use crate::records::{Record, record};

/// A log that would become larger is given up.
pub const LOG_BYTES_MAX: u64 = 1 << 30;

/// A log that is written.
pub struct QueryLog {
    path: PathBuf,
    /// None once it was given up.
    file: Mutex<Option<Growing>>,
}

struct Growing {
    file: File,
    bytes: u64,
}

impl QueryLog {
    /// A new log, whose first record is on the disk when this returns.
    pub fn create(path: PathBuf, first: record::Record) -> io::Result<QueryLog> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let log = QueryLog { path, file: Mutex::new(Some(Growing { file, bytes: 0 })) };
        let written = log.write(&HEADER).and_then(|()| log.write(&framed(first)?));
        let synced = written.and_then(|()| match &*log.file.lock() {
            Some(growing) => growing.file.sync_data(),
            None => Ok(()),
        });
        if synced.is_err() {
            log.remove();
        }
        synced.map(|()| log)
    }

    /// The log that another process has written, to be continued after its first `end` bytes.
    pub fn resume(path: PathBuf, end: u64) -> io::Result<QueryLog> {
        let file = OpenOptions::new().append(true).open(&path)?;
        file.set_len(end)?;
        Ok(QueryLog { path, file: Mutex::new(Some(Growing { file, bytes: end })) })
    }

    /// Adds a record. If that is not possible, the log is given up: the query goes on, and would not survive.
    pub fn add(&self, record: record::Record) {
        let written = framed(record).and_then(|bytes| self.write(&bytes));
        if let Err(error) = written {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a query's log cannot be written: it would not survive the server's end");
            self.remove();
        }
    }

    /// The query is over, or will not survive.
    pub fn remove(&self) {
        if self.file.lock().take().is_some()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a query's log cannot be removed");
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock();
        let Some(growing) = file.as_mut() else { return Ok(()) };
        growing.bytes += bytes.len() as u64;
        if growing.bytes > LOG_BYTES_MAX {
            return Err(io::Error::other(format!("it would be larger than {LOG_BYTES_MAX} bytes")));
        }
        growing.file.write_all(bytes)
    }
}

fn framed(record: record::Record) -> io::Result<Vec<u8>> {
    let bytes = Record { record: Some(record) }.encode_to_vec();
    frames::frame(&bytes).ok_or_else(|| io::Error::other(format!("a record of {} bytes", bytes.len())))
}

/// What is readable of a log.
pub struct ReadLog {
    pub records: Vec<record::Record>,
    /// Bytes up to the end of the last record.
    pub end: u64,
    pub problem: Option<String>,
}

/// Reads a log, as far as it is sound.
///
/// # Errors
/// The file cannot be read at all, or is too large.
pub fn read(path: &Path) -> io::Result<ReadLog> {
    let mut bytes = vec![];
    File::open(path)?.take(LOG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LOG_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {LOG_BYTES_MAX} bytes")));
    }
    let frames = frames::read(&bytes);
    let mut log = ReadLog { records: vec![], end: HEADER.len() as u64, problem: None };
    for payload in &frames.payloads {
        match Record::decode(*payload).map(|r| r.record) {
            Ok(Some(record)) => log.records.push(record),
            Ok(None) | Err(_) => {
                log.problem = Some("a record is none that this version knows".into());
                break;
            }
        }
    }
    if log.problem.is_none() {
        log.problem = frames.problem.map(str::to_owned);
    }
    log.end = end_of(&frames.payloads[..log.records.len()]);
    Ok(log)
}

fn end_of(payloads: &[&[u8]]) -> u64 {
    let frame = |payload: &&[u8]| (frames::OVERHEAD_BYTES + payload.len()) as u64;
    HEADER.len() as u64 + payloads.iter().map(frame).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Begun, Finished, Recovered, Told};

    fn begun() -> record::Record {
        record::Record::Begun(Begun { query: 7, handle: vec![1; 16].into(), ..Begun::default() })
    }

    fn told(worker: &str) -> record::Record {
        record::Record::Told(Told { worker: worker.into() })
    }

    fn finished(partition: u32) -> record::Record {
        record::Record::Finished(Finished { stage: 1, partition, attempt: 0, is_partitioned: false })
    }

    #[test]
    fn a_log_is_continued_behind_what_is_sound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7.log");
        let log = QueryLog::create(path.clone(), begun()).unwrap();
        log.add(told("a"));
        log.add(finished(0));
        drop(log);
        let length = std::fs::metadata(&path).unwrap().len();
        // The last record is torn.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        let torn = read(&path).unwrap();
        assert_eq!(torn.records, [begun(), told("a")]);
        assert!(torn.problem.is_some());
        let log = QueryLog::resume(path.clone(), torn.end).unwrap();
        log.add(record::Record::Recovered(Recovered {}));
        let whole = read(&path).unwrap();
        assert_eq!(whole.records, [begun(), told("a"), record::Record::Recovered(Recovered {})]);
        assert_eq!(whole.problem, None);
        log.remove();
        assert!(!path.exists());
        log.add(finished(1));
        assert!(!path.exists(), "what was removed is not written again");
    }

    #[test]
    fn a_log_belongs_to_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7.log");
        let _log = QueryLog::create(path.clone(), begun()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(QueryLog::create(path, begun()).is_err(), "no log is written over");
    }
}
