//! The sink of a plain sort: keeps what a task gets, and sorts it at the end, or when memory is short.
//!
//! Told to spill, it sorts what it has and writes it to disk as a run, so that a task leaves several runs. The
//! last one stays in memory if there is room, and as long as nobody needs it. Keys are sorted as row numbers;
//! each column is gathered once, in the final order, from the batches as they came.
//!
//! What the sort itself needs is part of what is reported, from the first row on.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::SortKey;

use super::{SORT_ROWS_MAX, SortKeys, Sorted, SortedRun, sort_row_bytes};
use crate::batch::Batch;
use crate::error::Result;
use crate::memory::{KeptBatches, Reservation};
use crate::operators::collect::Coalescer;
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

pub(super) fn sink_factory(keys: &[SortKey], schema: &SchemaRef) -> Arc<dyn SinkFactory> {
    Arc::new(RunFactory { keys: keys.to_vec(), schema: schema.clone() })
}

struct RunFactory {
    keys: Vec<SortKey>,
    schema: SchemaRef,
}

impl SinkFactory for RunFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        Ok(Box::new(RunSorter::new(SortKeys::new(&self.keys, &self.schema)?, task)))
    }
}

/// Makes sorted runs of the rows of one task.
pub(super) struct RunSorter {
    keys: SortKeys,
    /// Joins small batches; they are extended.
    small: Coalescer,
    kept: KeptBatches,
    /// What the sort of a row needs beside the row; the most of any batch.
    sort_row_bytes: usize,
    runs: Vec<Arc<SortedRun>>,
    reservation: Reservation,
    task: TaskContext,
}

impl RunSorter {
    pub(super) fn new(keys: SortKeys, task: &TaskContext) -> Self {
        RunSorter {
            keys,
            small: Coalescer::default(),
            kept: KeptBatches::default(),
            sort_row_bytes: 0,
            runs: vec![],
            reservation: task.query.memory.reserve("a sort"),
            task: task.clone(),
        }
    }

    /// Adds rows.
    pub(super) fn add(&mut self, batch: &Batch) -> Result<()> {
        if batch.rows == 0 {
            return Ok(());
        }
        self.task.query.check_cancelled()?;
        let extended = self.keys.extend(batch)?;
        self.sort_row_bytes = self.sort_row_bytes.max(sort_row_bytes(&extended, self.keys.keys.len()));
        self.small.push(&extended)?;
        self.keep()?;
        let rows = self.kept.rows() + self.small.small_rows();
        if self.reservation.resize(self.bytes()) {
            self.write_run()?;
        } else if rows >= SORT_ROWS_MAX {
            self.keep_run()?;
        }
        Ok(())
    }

    /// All rows as sorted runs.
    pub(super) fn into_runs(mut self) -> Result<Vec<Arc<SortedRun>>> {
        self.small.join_small()?;
        self.keep()?;
        // In memory there are the rows and their copy in order at once.
        if self.reservation.resize(self.bytes() + self.kept.bytes()) {
            self.write_run()?;
        } else {
            self.keep_run()?;
        }
        Ok(self.runs)
    }

    /// What is here, and what its sort needs.
    fn bytes(&self) -> usize {
        self.kept.bytes() + (self.kept.rows() + self.small.small_rows()) * self.sort_row_bytes
    }

    fn keep(&mut self) -> Result<()> {
        self.small.take_done().iter().try_for_each(|batch| self.kept.push(batch))
    }

    /// Everything that is here, sorted, and taken out.
    fn sort(&mut self) -> Result<Option<Sorted>> {
        self.small.join_small()?;
        self.keep()?;
        self.task.query.check_cancelled()?;
        let extended = self.kept.take();
        if extended.is_empty() { Ok(None) } else { self.keys.sort(extended, None).map(Some) }
    }

    fn keep_run(&mut self) -> Result<()> {
        if let Some(sorted) = self.sort()? {
            self.runs.extend(SortedRun::in_memory(sorted.cut_to(self.keys.width), &self.task)?);
        }
        self.reservation.shrink(0);
        Ok(())
    }

    fn write_run(&mut self) -> Result<()> {
        if let Some(sorted) = self.sort()? {
            self.runs.extend(SortedRun::on_disk(&sorted.cut_to(self.keys.width), &self.task)?);
        }
        self.reservation.shrink(0);
        Ok(())
    }
}

impl Sink for RunSorter {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.add(&batch)?;
        Ok(Flow::Continue)
    }

    fn finish(self: Box<Self>) -> Result<Output> {
        Ok(Output { runs: self.into_runs()?, ..Output::default() })
    }
}
