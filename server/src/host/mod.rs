//! The tasks of a cluster's queries that run in this process, a worker's.
//!
//! ```text
//! control messages ─▶ Host: a PlacedRun a query ─ queue ─▶ threads ─▶ Ends: reports
//!                       └─ outputs stay here ─▶ data::serve
//! ```
//!
//! What always holds: every task that is accepted is reported once, also if it panics, unless its query was ended
//! before; nothing of a query is left after [`Host::end`] but what a reader still holds.

mod failure;
mod readable;
mod threads;

use std::collections::HashMap;
use std::sync::Arc;

use dovetail_engine::exchange::RowsReader;
use dovetail_engine::query::placed::{Inventory, PlacedRun, Report};
use dovetail_engine::scheduler::events::OutputId;
use dovetail_engine::task::OperatorCounts;
use dovetail_engine::{EngineError, Result};
use dovetail_planner::graph::StageId;
use parking_lot::Mutex;

pub use failure::failure_of;
pub use readable::Readable;
use threads::{Job, Threads};

/// Where ended tasks are reported. Called by the threads that ran them.
pub trait Ends: Send + Sync {
    fn ended(&self, query: u64, output: OutputId, result: Result<(Report, Vec<OperatorCounts>)>);

    /// A client has all rows of an output.
    fn fetched(&self, query: u64, output: OutputId);
}

/// The queries that have begun and not ended.
type Runs = Arc<Mutex<HashMap<u64, Arc<PlacedRun>>>>;

/// The queries of this process.
pub struct Host {
    runs: Runs,
    /// Of those of the queries whose results clients may fetch here.
    readable: Mutex<HashMap<u64, Arc<Readable>>>,
    threads: Threads,
    ends: Arc<dyn Ends>,
}

impl Host {
    /// A host that runs so many tasks at a time.
    pub fn new(slots: usize, ends: Arc<dyn Ends>) -> std::io::Result<Host> {
        let runs: Runs = Arc::default();
        let threads = Threads::start(slots, runs.clone(), ends.clone())?;
        Ok(Host { runs, readable: Mutex::default(), threads, ends })
    }

    /// A query of which tasks may come.
    pub fn begin(&self, query: u64, run: PlacedRun) {
        self.runs.lock().insert(query, Arc::new(run));
    }

    /// Lets clients who know the secret fetch the result of a query that has begun.
    pub fn let_read(&self, query: u64, readable: Readable) {
        self.readable.lock().insert(query, Arc::new(readable));
    }

    /// What clients may read of a query, if they show its secret.
    pub fn readable(&self, query: u64, shown: &[u8]) -> Option<Arc<Readable>> {
        self.readable.lock().get(&query).filter(|readable| readable.opens_to(shown)).cloned()
    }

    /// A client has all rows of an output. Blocks until that is told.
    pub fn fetched(&self, query: u64, output: OutputId) {
        self.ends.fetched(query, output);
    }

    /// A query that has begun and not ended.
    pub fn run_of(&self, query: u64) -> Option<Arc<PlacedRun>> {
        self.runs.lock().get(&query).cloned()
    }

    /// Runs an attempt of a task, as soon as a thread is free. A query that has ended is ignored: nobody waits.
    pub fn start(&self, query: u64, output: OutputId) {
        if let Some(run) = self.run_of(query) {
            self.threads.push(Job::Task { query, output, run });
        }
    }

    /// Makes the build side of a join in advance, as soon as a thread is free.
    pub fn warm(&self, query: u64, stage: StageId) {
        if let Some(run) = self.run_of(query) {
            self.threads.push(Job::Warm { stage, run });
        }
    }

    /// Stops what runs of a query, and drops what it has left.
    pub fn end(&self, query: u64) {
        self.readable.lock().remove(&query);
        let run = self.runs.lock().remove(&query);
        if let Some(run) = run {
            run.cancel();
        }
    }

    /// [`Self::end`] of all queries; how many they were.
    pub fn end_all(&self) -> usize {
        self.readable.lock().clear();
        let runs = std::mem::take(&mut *self.runs.lock());
        runs.values().for_each(|run| run.cancel());
        runs.len()
    }

    /// What is here of each query. Tasks that wait for a thread count as running.
    pub fn inventory(&self) -> Result<Vec<(u64, Inventory)>> {
        let runs: Vec<(u64, Arc<PlacedRun>)> =
            self.runs.lock().iter().map(|(query, run)| (*query, run.clone())).collect();
        let waiting = self.threads.waiting();
        let inventory = |(query, run): (u64, Arc<PlacedRun>)| {
            let mut inventory = run.inventory()?;
            let of_query = waiting.iter().filter(|(q, _)| *q == query).map(|(_, output)| *output);
            inventory.running.extend(of_query);
            Ok((query, inventory))
        };
        runs.into_iter().map(inventory).collect()
    }

    /// Rows of an output that is here.
    pub fn read(
        &self,
        query: u64,
        output: OutputId,
        partitions: Option<std::ops::Range<usize>>,
    ) -> Result<RowsReader> {
        let run = self.run_of(query).ok_or_else(|| EngineError::Lost {
            outputs: vec![output],
            message: format!("query {query} is over"),
        })?;
        run.read(output, partitions)
    }
}
