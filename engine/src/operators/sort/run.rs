//! The sink of a plain sort: keeps everything that a task gets, and sorts it once at the end.
//!
//! Keys are sorted as row numbers; each column is gathered once, in the final order.

use std::sync::Arc;

use dovetail_planner::physical::SortKey;

use super::SortKeys;
use crate::batch::Batch;
use crate::error::Result;
use crate::memory::HeldBatches;
use crate::operators::collect::Coalescer;
use crate::task::{Flow, Output, QueryContext, Sink, SinkFactory, TaskContext};

pub(super) fn sink_factory(keys: &[SortKey], width: usize) -> Arc<dyn SinkFactory> {
    Arc::new(RunFactory { keys: keys.to_vec(), width })
}

struct RunFactory {
    keys: Vec<SortKey>,
    width: usize,
}

impl SinkFactory for RunFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        let keys = SortKeys::new(&self.keys, self.width)?;
        let held = HeldBatches::new(task, "a sort");
        Ok(Box::new(Run { keys, rows: Coalescer::default(), done: vec![], held, query: task.query.clone() }))
    }
}

struct Run {
    keys: SortKeys,
    /// Extended batches.
    rows: Coalescer,
    /// Those of them that are large enough.
    done: Vec<Batch>,
    held: HeldBatches,
    query: Arc<QueryContext>,
}

impl Run {
    fn take_done(&mut self) -> Result<()> {
        for batch in self.rows.take_done() {
            self.held.add(&batch)?;
            self.done.push(batch);
        }
        Ok(())
    }
}

impl Sink for Run {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        if batch.rows > 0 {
            self.query.check_cancelled()?;
            self.rows.push(&self.keys.extend(&batch)?)?;
            self.take_done()?;
        }
        Ok(Flow::Continue)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.rows.join_small()?;
        self.take_done()?;
        let extended = self.done;
        if extended.is_empty() {
            return Ok(Output { partitions: vec![vec![]], ..Output::default() });
        }
        self.query.check_cancelled()?;
        let sorted = self.keys.sort(extended, None)?;
        let memory = Some(self.held.become_bytes(sorted.memory_bytes())?);
        Ok(Output { partitions: vec![self.keys.run_of(sorted)], memory, ..Output::default() })
    }
}
