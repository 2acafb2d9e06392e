//! What a query has touched: the files that its scans have read, and the workers that its tasks were sent to.
//!
//! A task counts for itself, once for each row group; in a cluster the counts come with the report of its end, and the
//! driver adds who has sent them. What always holds: there is at most one entry for each file of the plan and for each
//! worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// All of it, by plan operator and by place in its scan's list of files (0 for a table in memory); and by worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub files: BTreeMap<(u32, u32), FileUse>,
    pub workers: BTreeMap<Arc<str>, WorkerUse>,
}

/// What was read of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileUse {
    /// Rows that were looked at: those of row groups and pages whose statistics did not exclude them.
    pub rows: u64,
    pub bytes: u64,
    /// Names of the workers that have read it; none where the session itself did.
    pub workers: BTreeSet<Arc<str>>,
}

/// What a worker was asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerUse {
    /// Of its program.
    pub version: String,
    /// Attempts of tasks that it was sent; also those that were lost or not needed in the end.
    pub tasks: u64,
}

/// What a task has read of a file, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// Its place in the scan's list.
    pub file: u32,
    pub rows: u64,
    pub bytes: u64,
}

impl Touched {
    /// Adds what was read of a file, by a worker perhaps.
    pub fn add_file(&mut self, operator: u32, counts: FileCounts, worker: Option<&str>) {
        let file = self.files.entry((operator, counts.file)).or_default();
        file.rows += counts.rows;
        file.bytes += counts.bytes;
        if let Some(worker) = worker
            && !file.workers.contains(worker)
        {
            file.workers.insert(worker.into());
        }
    }

    /// A task is sent to a worker.
    pub fn add_task(&mut self, worker: &str, version: &str) {
        match self.workers.get_mut(worker) {
            Some(known) => known.tasks += 1,
            None => {
                let new = WorkerUse { version: version.to_owned(), tasks: 1 };
                self.workers.insert(worker.into(), new);
            }
        }
    }

    /// What was read by an operator, in the order of its files.
    pub fn of_operator(&self, operator: u32) -> Vec<FileCounts> {
        let files = self.files.range((operator, 0)..=(operator, u32::MAX));
        files.map(|((_, file), f)| FileCounts { file: *file, rows: f.rows, bytes: f.bytes }).collect()
    }
}
