//! The scan of a table in memory: its batches are the morsels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dovetail_planner::physical::Scan;

use crate::batch::{BATCH_ROWS, Batch};
use crate::catalog::MemoryData;
use crate::error::Result;
use crate::scan::conjunct::{Conjunct, Steps};
use crate::scan::parquet_scan::{Emitted, Splits};
use crate::task::touched::FileCounts;
use crate::task::{QueryContext, Source, SourceFactory, TaskContext};

/// What the tasks of the stage share.
pub struct MemoryScan {
    shared: Arc<Shared>,
}

struct Shared {
    data: MemoryData,
    /// Positions in the table of the scan's columns.
    columns: Vec<usize>,
    output: Vec<usize>,
    steps: Steps,
    next: AtomicUsize,
    emitted: Emitted,
}

struct MemorySource {
    shared: Arc<Shared>,
    query: Arc<QueryContext>,
    conjuncts: Vec<Conjunct>,
    splits: Splits,
    /// What is left of the batch that was claimed.
    current: Option<Batch>,
    looked_at_rows: u64,
}

impl MemoryScan {
    /// A scan of the rows in `data`.
    pub fn new(scan: &Scan, data: MemoryData, steps: Steps, operator_id: u32) -> MemoryScan {
        let shared = Shared {
            data,
            columns: scan.columns.clone(),
            output: scan.output.clone(),
            steps,
            next: AtomicUsize::new(0),
            emitted: Emitted::new(scan.limit, operator_id),
        };
        MemoryScan { shared: Arc::new(shared) }
    }
}

impl SourceFactory for MemoryScan {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Source>> {
        let (shared, query) = (self.shared.clone(), task.query.clone());
        let conjuncts = shared.steps.conjuncts.clone();
        let splits = Splits::of(task);
        Ok(Box::new(MemorySource { shared, query, conjuncts, splits, current: None, looked_at_rows: 0 }))
    }
}

impl Source for MemorySource {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            self.query.check_cancelled()?;
            if self.shared.emitted.enough() {
                return Ok(None);
            }
            let Some(batch) = self.window() else {
                return Ok(None);
            };
            self.looked_at_rows += batch.rows as u64;
            let columns = self.shared.columns.iter().map(|c| batch.columns[*c].clone()).collect();
            let kept = self.shared.steps.apply(&self.conjuncts, Batch { columns, rows: batch.rows })?;
            if kept.rows > 0 {
                let columns = self.shared.output.iter().map(|c| kept.columns[*c].clone()).collect();
                self.shared.emitted.count(&self.query, kept.rows, 0);
                return Ok(Some(Batch { columns, rows: kept.rows }));
            }
        }
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        let counts = FileCounts { file: 0, rows: self.looked_at_rows, bytes: 0 };
        self.shared.emitted.note(&self.query, counts);
    }
}

impl MemorySource {
    /// The next rows, not more than a batch should have.
    fn window(&mut self) -> Option<Batch> {
        let batch = match self.current.take() {
            Some(rest) => rest,
            None => {
                let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
                self.shared.data.batches.get(self.splits.place(next))?.clone()
            }
        };
        if batch.rows <= BATCH_ROWS {
            return Some(batch);
        }
        self.current = Some(batch.slice(BATCH_ROWS, batch.rows - BATCH_ROWS));
        Some(batch.slice(0, BATCH_ROWS))
    }
}
