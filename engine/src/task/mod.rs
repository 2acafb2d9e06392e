//! A task: one partition of one stage, run to completion on one thread.
//!
//! State lives in three places, each a type: what all tasks of a stage share (a morsel queue, a join
//! table, a counter) in the factory, made once per stage and process; what one task needs in the
//! operator, made once per task and used by one thread; what passes between stages in [`Output`].

mod deadline;
pub mod pipeline;
pub mod touched;

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dovetail_planner::pipeline::Share;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeOutput, KeptRows};
use crate::memory::{Governor, QuerySpill, Reservation, SpillSpace};
use crate::operators::sort::SortedRun;
use touched::{FileCounts, Touched};

pub use deadline::Deadline;

/// Whether whoever pushes should go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Nothing more is wanted: the source may stop; `finish` is still called.
    Done,
}

/// Makes the sources of one stage. Shared by the stage's tasks; called once per task.
pub trait SourceFactory: Send + Sync {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Source>>;
}

/// Makes the operators of one place in a stage's pipeline. Shared by the stage's tasks; called once per
/// task, before any row flows in it.
pub trait OperatorFactory: Send + Sync {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Operator>>;
}

/// Makes the sinks of one stage. Shared by the stage's tasks; called once per task.
pub trait SinkFactory: Send + Sync {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>>;
}

/// The head of a task's pipeline. Used by one thread.
pub trait Source: Send {
    /// The next batch, or none at the end. Empty batches are allowed.
    fn next(&mut self) -> Result<Option<Batch>>;
}

/// Whatever an operator hands its rows to.
pub trait Downstream {
    fn push(&mut self, batch: Batch) -> Result<Flow>;
}

/// A step of a task's pipeline. Used by one thread.
pub trait Operator: Send {
    /// Takes a batch and pushes what comes of it (any number of batches, also none) to `out`. Must
    /// return [`Flow::Done`] once `out` has.
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow>;

    /// Called once, after the last batch: pushes what was held back.
    fn finish(&mut self, _out: &mut dyn Downstream) -> Result<()> {
        Ok(())
    }
}

/// The end of a task's pipeline. Used by one thread.
pub trait Sink: Send {
    fn push(&mut self, batch: Batch) -> Result<Flow>;

    /// Called once, after the last batch.
    fn finish(self: Box<Self>) -> Result<Output>;
}

/// What one task leaves for later stages.
#[derive(Default)]
pub struct Output {
    /// Batches that stay in memory, by output partition; a sink without partitions uses number 0.
    pub partitions: Vec<Vec<Batch>>,
    /// Rows in order, which may be on disk.
    pub kept: Option<Arc<KeptRows>>,
    /// Rows by hash partition, which may be on disk.
    pub exchange: Option<Arc<ExchangeOutput>>,
    /// Sorted rows, which may be on disk.
    pub runs: Vec<Arc<SortedRun>>,
    /// Memory of what stays there, if it is reserved.
    pub memory: Option<Reservation>,
    /// Something else that later stages on this process share: a join table.
    pub artifact: Option<Arc<dyn Any + Send + Sync>>,
}

impl Output {
    /// Rows in all partitions and runs.
    pub fn rows(&self) -> u64 {
        let exchanged = self.exchange.as_ref().map_or(0, |e| (0..e.partitions()).map(|p| e.rows(p)).sum());
        let kept = self.kept.as_ref().map_or(0, |k| k.rows());
        let sorted = self.runs.iter().map(|run| run.rows()).sum::<u64>();
        kept + exchanged + sorted + self.partitions.iter().flatten().map(|b| b.rows as u64).sum::<u64>()
    }
}

/// What a task knows of itself and its surroundings.
#[derive(Clone)]
pub struct TaskContext {
    /// The task's number within its stage, from 0.
    pub number: usize,
    /// The task's number within its branch of the stage, from 0.
    pub partition: usize,
    /// Tasks in the branch.
    pub partitions: usize,
    /// What it reads of a partitioned join, if the tasks of its branch do not share that evenly.
    pub share: Option<Share>,
    /// Number of the plan operator that is opened, for its counters.
    pub operator: u32,
    pub query: Arc<QueryContext>,
}

impl TaskContext {
    /// Task `partition` of `partitions` of a query, for an operator that counts nothing.
    pub fn new(partition: usize, partitions: usize, query: Arc<QueryContext>) -> Self {
        TaskContext { number: partition, partition, partitions, share: None, operator: u32::MAX, query }
    }

    /// Those of `all` hash partitions that belong to the task: its share, or the next ones to each task, equally many.
    pub fn own_partitions(&self, all: usize) -> Result<Range<usize>> {
        if let Some(share) = self.share {
            return Ok(share.first as usize..share.end as usize);
        }
        if !all.is_multiple_of(self.partitions) {
            let tasks = self.partitions;
            return Err(EngineError::internal(format!("{tasks} tasks share {all} partitions")));
        }
        let each = all / self.partitions;
        Ok(self.partition * each..(self.partition + 1) * each)
    }

    /// The same task, for another operator.
    pub fn for_operator(&self, operator: u32) -> Self {
        TaskContext { operator, ..self.clone() }
    }

    /// Notes bytes that the operator has written to disk.
    pub fn note_spilled(&self, bytes: u64) {
        self.query.note_spilled(self.operator, bytes);
    }
}

/// What all tasks of a query share.
pub struct QueryContext {
    cancelled: AtomicBool,
    deadline: Option<Deadline>,
    /// Of an attempt of a task: what stops with it.
    parent: Option<Arc<QueryContext>>,
    /// Tasks of a stage share nothing: they may run in several processes, and again.
    pub is_isolated: bool,
    /// Tasks of all stages that are known so far, and those that have ended.
    pub tasks: AtomicU64,
    pub tasks_done: AtomicU64,
    pub metrics: Metrics,
    pub memory: Governor,
    pub spill: Arc<QuerySpill>,
}

impl Default for QueryContext {
    fn default() -> Self {
        QueryContext::new(0)
    }
}

impl QueryContext {
    /// Asks all tasks of the query to stop at their next batch.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// An error if the query was cancelled, or has taken longer than it may. Long loops call this once a batch.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.deadline.as_ref().map_or(Ok(()), Deadline::check)
    }

    /// Lets the query take so much time, counted from now.
    pub fn with_deadline(self, deadline: Option<Deadline>) -> QueryContext {
        QueryContext { deadline, ..self }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.parent.as_ref().is_some_and(|p| p.is_cancelled())
    }

    /// The surroundings of one attempt of one task, which can be cancelled and has counters of its own.
    pub fn attempt(self: &Arc<Self>) -> QueryContext {
        QueryContext {
            cancelled: AtomicBool::new(false),
            // The query's own is looked at by whoever drives it.
            deadline: None,
            parent: Some(self.clone()),
            is_isolated: true,
            tasks: AtomicU64::new(0),
            tasks_done: AtomicU64::new(0),
            metrics: Metrics::new(self.metrics.operators.len()),
            memory: self.memory.clone(),
            spill: self.spill.clone(),
        }
    }
}

/// Counters by plan operator, indexed by its number; for EXPLAIN ANALYZE, progress and the audit.
#[derive(Default)]
pub struct Metrics {
    operators: Vec<OperatorMetrics>,
    touched: Mutex<Touched>,
}

/// Counters of one plan operator, summed over its tasks.
#[derive(Default)]
pub struct OperatorMetrics {
    pub rows_out: AtomicU64,
    pub bytes_read: AtomicU64,
    /// Written to disk because memory was short.
    pub bytes_spilled: AtomicU64,
    pub nanos: AtomicU64,
}

/// The counters of one operator, as they travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCounts {
    pub operator: u32,
    pub rows_out: u64,
    pub bytes_read: u64,
    pub bytes_spilled: u64,
    pub nanos: u64,
    /// Of a scan: what it has read of each file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileCounts>,
}

impl Metrics {
    /// Counters for operators `0..count`.
    pub fn new(count: usize) -> Self {
        let operators = (0..count).map(|_| OperatorMetrics::default()).collect();
        Metrics { operators, touched: Mutex::default() }
    }

    /// The sum of a counter over all operators.
    pub fn total(&self, counter: impl Fn(&OperatorMetrics) -> &AtomicU64) -> u64 {
        self.operators.iter().map(|m| counter(m).load(Ordering::Relaxed)).sum()
    }

    /// The counters that are not zero.
    pub fn counts(&self) -> Vec<OperatorCounts> {
        let touched = self.touched.lock();
        let counts = self.operators.iter().enumerate().map(|(id, m)| OperatorCounts {
            operator: id as u32,
            rows_out: m.rows_out.load(Ordering::Relaxed),
            bytes_read: m.bytes_read.load(Ordering::Relaxed),
            bytes_spilled: m.bytes_spilled.load(Ordering::Relaxed),
            nanos: m.nanos.load(Ordering::Relaxed),
            files: touched.of_operator(id as u32),
        });
        let is_nothing = |c: &OperatorCounts| {
            (c.rows_out, c.bytes_read, c.bytes_spilled, c.nanos) == (0, 0, 0, 0) && c.files.is_empty()
        };
        counts.filter(|c| !is_nothing(c)).collect()
    }

    /// Adds what an attempt has counted, at a worker perhaps. Operators that the query does not have are ignored.
    pub fn add(&self, counts: &[OperatorCounts], worker: Option<&str>) {
        for c in counts {
            if let Some(m) = self.operator(c.operator) {
                let mut touched = self.touched.lock();
                c.files.iter().for_each(|file| touched.add_file(c.operator, *file, worker));
                drop(touched);
                m.rows_out.fetch_add(c.rows_out, Ordering::Relaxed);
                m.bytes_read.fetch_add(c.bytes_read, Ordering::Relaxed);
                m.bytes_spilled.fetch_add(c.bytes_spilled, Ordering::Relaxed);
                m.nanos.fetch_add(c.nanos, Ordering::Relaxed);
            }
        }
    }

    /// Notes what a task here has read of a file.
    pub fn note_file(&self, operator: u32, counts: FileCounts) {
        if self.operator(operator).is_some() {
            self.touched.lock().add_file(operator, counts, None);
        }
    }

    /// Notes that a task is sent to a worker.
    pub fn note_sent(&self, worker: &str, version: &str) {
        self.touched.lock().add_task(worker, version);
    }

    /// What the query has touched so far.
    pub fn touched(&self) -> Touched {
        self.touched.lock().clone()
    }

    /// The counters of an operator; none if the query keeps none.
    pub fn operator(&self, id: u32) -> Option<&OperatorMetrics> {
        self.operators.get(id as usize)
    }
}

impl QueryContext {
    /// A context with counters for `operators` operators and as much memory as it wants.
    pub fn new(operators: usize) -> Self {
        QueryContext::bounded(operators, Governor::unlimited(), SpillSpace::default().query())
    }

    /// A context with counters for `operators` operators, within a memory limit.
    pub fn bounded(operators: usize, memory: Governor, spill: QuerySpill) -> Self {
        QueryContext {
            cancelled: AtomicBool::new(false),
            deadline: None,
            parent: None,
            is_isolated: false,
            tasks: AtomicU64::new(0),
            tasks_done: AtomicU64::new(0),
            metrics: Metrics::new(operators),
            memory,
            spill: Arc::new(spill),
        }
    }

    /// Notes bytes that an operator has written to disk.
    pub fn note_spilled(&self, operator: u32, bytes: u64) {
        self.memory.note_spilled(bytes);
        if let Some(metrics) = self.metrics.operator(operator) {
            metrics.bytes_spilled.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
