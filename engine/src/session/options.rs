//! How a database runs its sessions' queries.

use std::path::PathBuf;

use dovetail_shuffle::store::SpillDirectory;

use crate::memory::{MemoryLimit, SpillPolicy};

/// What is given when a database is opened, for all of its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads that run tasks; at least one.
    pub threads: usize,
    /// Hash partitions of an exchange, and tasks of a stage; none: chosen from `threads`.
    pub partitions: Option<usize>,
    pub scheduler: SchedulerKind,
    /// What all queries of the session may hold together; none: 80 % of what the machine or the process's
    /// control group has.
    pub memory_limit: Option<MemoryLimit>,
    /// Where to spill, the most preferred first; none: the system's directory for temporary files.
    pub spill_directories: Vec<SpillDirectory>,
    pub spill: SpillPolicy,
    /// Folder for tables that clients keep; made if it is not there. None: only tables in memory are made.
    pub warehouse: Option<PathBuf>,
    /// The most rows that a query's result may have, which settings can only lower; none: any number.
    pub max_result_rows: Option<u64>,
}

/// Which driver runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchedulerKind {
    /// A pool of threads.
    #[default]
    Threads,
    /// The calling thread, one task after the other, in a fixed order.
    Synchronous,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        SessionOptions {
            threads,
            partitions: None,
            scheduler: SchedulerKind::Threads,
            memory_limit: None,
            spill_directories: vec![],
            spill: SpillPolicy::AtLimit,
            warehouse: None,
            max_result_rows: None,
        }
    }
}
