//! The audit: a record of every statement, for those who must know later what was asked, what data moved and which
//! workers touched it.
//!
//! ```text
//! run_statement, run_each, ingest ─ Entry::begin ─▶ AuditSink::begin      before anything runs
//!     queries of the statement ─ Reading ─▶ files, rows, workers ─▶ Entry
//!     its end, however it ends ─ Audited ─▶ AuditSink::end                before the client is told of it
//! ```
//!
//! The engine makes the records; whoever embeds it keeps them ([`AuditSink`]), as the server does in its state
//! directory. What always holds: a statement that cannot be noted does not run; every one that was noted ends with
//! exactly one record; no credentials of a URL are in a record ([`mask`]).

mod entry;
mod mask;
mod reading;
pub mod rows;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

pub use entry::{Audited, Entry, note_refusal};
pub use mask::mask;
pub use reading::Reading;

/// Longer statements are cut in the record.
pub const SQL_BYTES_MAX: usize = 64 << 10;

/// Files of a statement that are listed, those that were read first.
pub const INPUTS_MAX: usize = 10_000;

/// Keeps the records. Called from many threads.
pub trait AuditSink: Send + Sync {
    /// A statement is about to begin: gives the record its number, and makes sure that it survives this process.
    ///
    /// # Errors
    /// It cannot be written. The statement must not run.
    fn begin(&self, record: &mut AuditRecord) -> Result<()>;

    /// It has ended. Called once for each that has begun.
    fn end(&self, record: AuditRecord);

    /// Parquet files that have all records up to now, with the columns of [`rows::schema`]; at least one.
    fn files(&self) -> Result<Vec<PathBuf>>;
}

/// What is known of a statement. The names of the fields are the columns of `system.audit`; of a statement that has
/// begun and not ended the outcome is [`Outcome::Interrupted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Unique among all that were kept in one place.
    pub statement_id: u64,
    /// Who has sent it; empty where nobody signs in by name.
    pub user_name: String,
    pub kind: StatementClass,
    /// As it was sent, without credentials; empty for an ingest. Parameters are not in it.
    pub sql: String,
    /// Only the first [`SQL_BYTES_MAX`] bytes are in `sql`.
    pub is_sql_cut: bool,
    /// Microseconds since 1970, UTC.
    pub started: i64,
    /// The same; none if the process ended first.
    pub ended: Option<i64>,
    pub elapsed_ms: Option<u64>,
    pub outcome: Outcome,
    /// Of the error: plan, execution, data, shuffle, resources, lost, cancelled, unsupported, internal; denied if the
    /// user may not do it, refused if there was no room for it, expired if nobody has fetched the result in time.
    pub error_class: Option<String>,
    pub error: Option<String>,
    /// Of the program that has run it.
    pub version: String,
    /// As `name=value`, with a semicolon between two.
    pub settings: String,
    /// Of the physical plan, the first if there were several: 16 hexadecimal digits, which are the same for
    /// statements that differ in constants alone. None if nothing was planned.
    pub plan_fingerprint: Option<String>,
    /// The result's, or those that a command has changed.
    pub rows_out: u64,
    /// Of the result's values in memory.
    pub bytes_out: u64,
    /// Looked at by scans: those of row groups and pages whose statistics did not exclude them.
    pub rows_read: u64,
    /// Of files.
    pub bytes_read: u64,
    /// Written to disk because memory was short, by all processes.
    pub bytes_spilled: u64,
    pub inputs: Vec<Input>,
    /// Inputs in all; more than are in the list if these are more than [`INPUTS_MAX`].
    pub inputs_total: u64,
    pub outputs: Vec<Output>,
    /// Those that were sent tasks; none if the process that has the session ran all by itself.
    pub workers: Vec<Worker>,
}

/// What kind of statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementClass {
    /// It has rows.
    Query,
    /// It changes something.
    Command,
    /// Rows that a client sends, without SQL.
    Ingest,
    /// It was refused before it was known what it is.
    Unknown,
}

/// How it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    Failed,
    /// Somebody has stopped it, or has gone away before all rows were fetched.
    Cancelled,
    /// The process has ended before the statement.
    Interrupted,
}

/// A file that the statement's plans name, or a table in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The table's name, or the path in FROM.
    pub table_name: String,
    /// `file:///…`, `s3://…`, or `memory:NAME`.
    pub url: String,
    /// The version of the content that was read, as the store gives it; a table in memory has a number.
    pub etag: Option<String>,
    pub size_bytes: Option<u64>,
    /// Rows in the file; none for a table in memory.
    pub rows_total: Option<u64>,
    /// Looked at; 0 if statistics have excluded all of it.
    pub rows_read: u64,
    pub bytes_read: u64,
    /// Names of the workers that have read it.
    pub workers: Vec<String>,
}

/// A table that the statement writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub table_name: String,
    /// The folder, or `memory:NAME`.
    pub url: String,
    /// Rows that were written; 0 if the statement has failed.
    pub rows: u64,
}

/// A worker that was sent tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub name: String,
    /// Of its program.
    pub version: String,
    /// Attempts of tasks, those included that were lost.
    pub tasks: u64,
}

/// The word for an error's class.
pub fn class_of(error: &EngineError) -> &'static str {
    use dovetail_planner::PlanError;
    match error {
        EngineError::Plan(PlanError::Internal(_)) | EngineError::Internal(_) => "internal",
        EngineError::Plan(PlanError::Unsupported { .. }) | EngineError::Unsupported(..) => "unsupported",
        EngineError::Plan(PlanError::Syntax { .. } | PlanError::Invalid { .. }) => "plan",
        EngineError::Execution(_) => "execution",
        EngineError::Data { .. } => "data",
        EngineError::Shuffle(_) => "shuffle",
        EngineError::Resources(_) => "resources",
        EngineError::Lost { .. } => "lost",
        EngineError::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests;
