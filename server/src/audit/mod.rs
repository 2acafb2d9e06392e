//! The audit of a server: a record of every statement, in its state directory.
//!
//! ```text
//! begin, end ─▶ journal (a frame each, before the statement runs and before its client hears of its end)
//!                  └─ every few seconds, and when system.audit is read ─▶ a Parquet file ─▶ merged with others
//!
//! DIR/audit/NUMBER.journal              what has begun and ended since the last Parquet file
//! DIR/audit/DAY.FIRST-LAST.parquet      records of the journals FIRST to LAST, written on that day
//! ```
//!
//! What always holds: a statement whose beginning cannot be written does not run, so nothing runs that is not here;
//! when the process dies no record is missing (the journal is handed to the operating system; when the machine dies,
//! the last [`FLUSH_INTERVAL`] may be), and what had begun and not ended is there as interrupted; a record is in
//! exactly one of the files that [`AuditSink::files`] gives.

mod files;
mod journal;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dovetail_engine::audit::{AuditRecord, AuditSink};
use dovetail_engine::{EngineError, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::ServerError;
use crate::journal::StateDirectory;
use files::Files;
use journal::{Growing, Line};

/// Between two Parquet files, if something has ended meanwhile.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// Or when so many records wait for one,
const WAITING_RECORDS: usize = 1024;
/// or so many bytes of them.
const WAITING_BYTES: usize = 4 << 20;
/// When so many wait because no Parquet file can be written, nothing runs any more.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Between two complaints in the log.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// The audit in a state directory, and the thread that writes its files. Dropped, it writes what is there.
pub struct Audit {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    /// There is something to be written at once, or it is over.
    wake: Condvar,
    /// Held by whoever writes files; taken before `state`.
    files: Mutex<Files>,
    /// Nobody else uses the directory meanwhile.
    _state_directory: Arc<std::fs::File>,
}

struct State {
    journal: Growing,
    next_id: u64,
    /// Statements that have begun.
    running: BTreeMap<u64, AuditRecord>,
    /// Those that have ended, and are in the journal alone.
    waiting: Vec<AuditRecord>,
    waiting_bytes: usize,
    is_closing: bool,
    complained: Option<Instant>,
}

impl Audit {
    /// Goes on with the audit of a state directory: what the journals have is put into a file first.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn start(directory: &StateDirectory) -> crate::Result<Audit> {
        let folder = directory.audit().to_owned();
        let problem = |e: &dyn std::fmt::Display| ServerError::State {
            directory: folder.clone(),
            problem: format!("the audit cannot be written: {e}"),
        };
        let mut files = Files::open(&folder, directory.audit_days).map_err(|e| problem(&e))?;
        let number = files.recover().map_err(|e| problem(&e))?;
        let journal = Growing::create(&folder, number).map_err(|e| problem(&e))?;
        let state = State {
            journal,
            next_id: directory.identity().first_query(),
            running: BTreeMap::new(),
            waiting: vec![],
            waiting_bytes: 0,
            is_closing: false,
            complained: None,
        };
        let shared = Arc::new(Shared {
            folder: folder.clone(),
            state: Mutex::new(state),
            wake: Condvar::new(),
            files: Mutex::new(files),
            _state_directory: directory.lock(),
        });
        let writer = shared.clone();
        let thread = std::thread::Builder::new()
            .name("dovetail-audit".into())
            .spawn(move || writer.write_until_closed())
            .map_err(|e| problem(&e))?;
        Ok(Audit { shared, thread: Some(thread) })
    }
}

impl AuditSink for Audit {
    fn begin(&self, record: &mut AuditRecord) -> Result<()> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if state.waiting_bytes >= WAITING_BYTES_MAX {
            drop(state);
            shared.flush(false).map_err(|e| shared.refusal(&e))?;
            state = shared.state.lock();
        }
        record.statement_id = state.next_id;
        state.journal.add(&Line::Begun(record)).map_err(|e| shared.refusal(&e))?;
        state.next_id += 1;
        state.running.insert(record.statement_id, record.clone());
        Ok(())
    }

    fn end(&self, record: AuditRecord) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.running.remove(&record.statement_id);
        match state.journal.add(&Line::Ended(&record)) {
            Ok(bytes) => state.waiting_bytes += bytes,
            // It is in memory, and gets into the next file; if the process dies before, it counts as interrupted.
            Err(error) => {
                state.waiting_bytes += record.sql.len();
                shared.complain(&mut state, &error);
            }
        }
        state.waiting.push(record);
        if state.waiting.len() >= WAITING_RECORDS || state.waiting_bytes >= WAITING_BYTES {
            shared.wake.notify_all();
        }
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        self.shared.flush(true).map_err(|e| EngineError::Data {
            place: self.shared.folder.display().to_string(),
            message: format!("the audit cannot be brought up to date: {e}"),
        })
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.shared.state.lock().is_closing = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread itself has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn write_until_closed(&self) {
        loop {
            let is_closing = {
                let mut state = self.state.lock();
                if !state.is_closing {
                    self.wake.wait_for(&mut state, FLUSH_INTERVAL);
                }
                state.is_closing
            };
            if let Err(error) = self.flush(false) {
                self.complain(&mut self.state.lock(), &error);
            }
            if is_closing {
                return;
            }
        }
    }

    /// Puts what has ended into a file; the files that there are then. With `is_needed` there is one at least.
    fn flush(&self, is_needed: bool) -> io::Result<Vec<PathBuf>> {
        let mut files = self.files.lock();
        // What could not be written the last time comes first, so that journals do not pile up.
        files.write_pending()?;
        let mut state = self.state.lock();
        if !state.waiting.is_empty() || (is_needed && files.is_empty()) {
            let number = state.journal.number();
            let mut next = Growing::create(&self.folder, number + 1)?;
            for record in state.running.values() {
                next.add(&Line::Begun(record))?;
            }
            state.journal = next;
            let records = std::mem::take(&mut state.waiting);
            files.pend(number, records);
        }
        let bytes = std::mem::take(&mut state.waiting_bytes);
        drop(state);
        if let Err(error) = files.write_pending() {
            // They wait still.
            self.state.lock().waiting_bytes += bytes;
            return Err(error);
        }
        files.tidy();
        Ok(files.all())
    }

    fn refusal(&self, error: &io::Error) -> EngineError {
        EngineError::Resources(format!(
            "the audit in {} cannot be written: {error}. Statements run only if they can be noted there: free some \
             space, or start the server without --state-dir",
            self.folder.display()
        ))
    }

    /// Tells the log, now and then.
    fn complain(&self, state: &mut MutexGuard<'_, State>, error: &io::Error) {
        if state.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            state.complained = Some(Instant::now());
            let (folder, waiting) = (self.folder.display(), state.waiting.len());
            tracing::error!(%folder, waiting, %error, "the audit cannot be written");
        }
    }
}

#[cfg(test)]
mod tests;
