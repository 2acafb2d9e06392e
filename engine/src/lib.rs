//! The engine on one machine: catalog, scheduler, tasks, operators.
//!
//! ```text
//! Session ─ planner ─▶ TaskGraph ─ scheduler ─▶ Task: source → operators → sink ─▶ record batches
//! ```
//!
//! What always holds: a task runs to completion on one thread, without async; operators push batches
//! downstream; every exchange between stages is a set of batches by (stage, task, partition).

pub mod audit;
pub mod batch;
pub mod catalog;
pub mod error;
pub mod exchange;
pub mod expr;
pub mod functions;
pub mod memory;
pub mod operators;
pub mod query;
pub mod scan;
pub mod scheduler;
pub mod session;
pub mod task;
mod views;

pub use dovetail_shuffle::store::SpillDirectory;
pub use error::{EngineError, Result};
pub use memory::{LimitScope, MemoryLimit, MemoryUse, SpillPolicy};
pub use session::{
    CancelHandle, Cancellation, Description, Effect, Elsewhere, IfExists, Ingest, IngestOptions, OutputPlace,
    Progress, QueryResult, ResultStream, SchedulerKind, Session, SessionOptions, Statement, StatementKind,
    TableInfo, ValueRows, Values,
};
