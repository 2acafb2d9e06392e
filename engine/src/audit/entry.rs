//! A statement under way, as the audit will have it.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::{AuditRecord, AuditSink, Outcome, Output, SQL_BYTES_MAX, StatementClass, class_of, mask};
use crate::catalog::value_bytes;
use crate::error::{EngineError, Result};

/// Rows of a result, batch by batch.
type Rows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A statement that was noted and has not ended. Shared by all who have something to add to its record.
pub struct Entry {
    sink: Arc<dyn AuditSink>,
    since: Instant,
    record: Mutex<AuditRecord>,
}

/// Ends the entry of a statement: as somebody says, or as cancelled when this is dropped before.
#[derive(Default)]
pub struct Audited(Option<Arc<Entry>>);

/// The rows of a query, counted. The entry ends with them.
struct AuditedRows {
    /// None once they have ended.
    rows: Option<Rows>,
    audited: Audited,
}

impl Entry {
    /// Notes that a statement begins.
    ///
    /// # Errors
    /// That is not possible: the statement must not run.
    pub fn begin(
        sink: &Arc<dyn AuditSink>,
        user: &str,
        kind: StatementClass,
        sql: &str,
        settings: String,
    ) -> Result<Arc<Entry>> {
        let mut record = record_of(user, kind, sql, settings);
        sink.begin(&mut record)?;
        Ok(Arc::new(Entry { sink: sink.clone(), since: Instant::now(), record: Mutex::new(record) }))
    }

    /// A statement was planned; the fingerprint of its first plan is kept.
    pub fn planned(&self, fingerprint: impl FnOnce() -> String) {
        self.record.lock().plan_fingerprint.get_or_insert_with(fingerprint);
    }

    /// Rows were written, or will be: then it is said again how many.
    pub fn writes(&self, table: &str, url: String, rows: u64) {
        let mut record = self.record.lock();
        match record.outputs.iter_mut().find(|o| o.url == url) {
            Some(known) => known.rows += rows,
            None => record.outputs.push(Output { table_name: table.to_owned(), url, rows }),
        }
        record.rows_out += rows;
    }

    /// Adds to the record.
    pub fn add(&self, add: impl FnOnce(&mut AuditRecord)) {
        add(&mut self.record.lock());
    }

    fn end(&self, outcome: Option<&EngineError>) {
        let mut record = self.record.lock().clone();
        record.ended = Some(now_micros());
        record.elapsed_ms = Some(self.since.elapsed().as_millis() as u64);
        record.outcome = match outcome {
            None => Outcome::Succeeded,
            Some(EngineError::Cancelled) => Outcome::Cancelled,
            Some(_) => Outcome::Failed,
        };
        if let Some(error) = outcome.filter(|e| !matches!(e, EngineError::Cancelled)) {
            record.error_class = Some(class_of(error).to_owned());
            record.error = Some(shortened(&error.to_string()).0);
        }
        if record.outcome != Outcome::Succeeded {
            // A command that did not succeed has written nothing.
            record.outputs.iter_mut().for_each(|output| output.rows = 0);
        }
        self.sink.end(record);
    }
}

impl Audited {
    /// Ends an entry, if there is one.
    pub fn new(entry: Option<Arc<Entry>>) -> Audited {
        Audited(entry)
    }

    /// Rows that end the entry with their end.
    pub fn rows(self, rows: Rows) -> Rows {
        match self.0 {
            Some(_) => Box::new(AuditedRows { rows: Some(rows), audited: self }),
            None => rows,
        }
    }

    /// The entry, until it has ended.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        self.0.as_ref()
    }

    /// The statement has come to this end.
    pub fn end<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Some(entry) = self.0.take() {
            entry.end(outcome.as_ref().err());
        }
        outcome
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        // Whoever wanted it has gone.
        let _ = self.end::<()>(Err(EngineError::Cancelled));
    }
}

impl Iterator for AuditedRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self.rows.as_mut()?.next() {
            Some(Ok(batch)) => {
                if let Some(entry) = self.audited.entry() {
                    entry.add(|record| {
                        record.rows_out += batch.num_rows() as u64;
                        record.bytes_out += value_bytes(&batch) as u64;
                    });
                }
                Some(Ok(batch))
            }
            end => {
                // What the query has counted is complete when it is gone.
                self.rows = None;
                self.audited.end(end.transpose().map(|_| ())).err().map(Err)
            }
        }
    }
}

impl Drop for AuditedRows {
    fn drop(&mut self) {
        // Before the entry.
        self.rows = None;
    }
}

/// Notes a statement that was refused before it could begin.
pub fn note_refusal(sink: &Arc<dyn AuditSink>, user: &str, sql: &str, class: &str, message: &str) {
    let mut record = record_of(user, StatementClass::Unknown, sql, String::new());
    record.ended = Some(record.started);
    record.elapsed_ms = Some(0);
    record.outcome = Outcome::Failed;
    record.error_class = Some(class.to_owned());
    record.error = Some(shortened(message).0);
    match sink.begin(&mut record) {
        Ok(()) => sink.end(record),
        // Nothing has happened that would have to be undone.
        Err(error) => tracing::error!(%error, "a statement that was refused is not in the audit"),
    }
}

/// Of a statement that has not ended.
fn record_of(user: &str, kind: StatementClass, sql: &str, settings: String) -> AuditRecord {
    let (sql, is_sql_cut) = shortened(sql);
    AuditRecord {
        statement_id: 0,
        user_name: user.to_owned(),
        kind,
        sql,
        is_sql_cut,
        started: now_micros(),
        ended: None,
        elapsed_ms: None,
        outcome: Outcome::Interrupted,
        error_class: None,
        error: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings,
        plan_fingerprint: None,
        rows_out: 0,
        bytes_out: 0,
        rows_read: 0,
        bytes_read: 0,
        bytes_spilled: 0,
        inputs: vec![],
        inputs_total: 0,
        outputs: vec![],
        workers: vec![],
    }
}

/// Text without credentials, and whether it had to be cut.
fn shortened(text: &str) -> (String, bool) {
    // Masked first: a URL that is cut in the middle of its password would not be found.
    let mut masked = mask(text);
    let is_cut = masked.len() > SQL_BYTES_MAX;
    masked.truncate(masked.floor_char_boundary(SQL_BYTES_MAX));
    (masked, is_cut)
}

fn now_micros() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}
