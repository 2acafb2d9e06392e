//! One task's output while it waits to be read.

use std::sync::{Arc, OnceLock};

use dovetail_shuffle::Rows;
use dovetail_shuffle::output::MapOutput;
use dovetail_shuffle::segment::SegmentReader;
use parking_lot::Mutex;

use super::held::RowsReader;
use crate::error::Result;
use crate::memory::{Charge, Parked, Spillable};
use crate::task::TaskContext;

/// Rows by partition, in memory or on disk. Shared by the readers of its partitions and the governor.
pub struct ExchangeOutput {
    /// Rows written, by partition.
    rows: Vec<u64>,
    output: Mutex<MapOutput>,
    /// Changed with `output` locked.
    charge: Charge,
    parked: OnceLock<Parked>,
    task: TaskContext,
}

/// What comes next of a partition.
pub(super) enum Next {
    Rows(Rows),
    /// The partition's part of the next segment.
    Segment(SegmentReader),
    End,
}

impl ExchangeOutput {
    /// An output with `rows` rows written, by partition.
    pub fn park(output: MapOutput, rows: Vec<u64>, task: &TaskContext) -> Result<Arc<Self>> {
        let charge = Charge::new(&task.query.memory);
        charge.set(output.memory_bytes());
        let output = Arc::new(ExchangeOutput {
            rows,
            output: Mutex::new(output),
            charge,
            parked: OnceLock::new(),
            task: task.clone(),
        });
        let holder: Arc<dyn Spillable> = output.clone();
        // Set once, here: nobody else has the output yet.
        let _ = output.parked.set(task.query.memory.park(&holder)?);
        Ok(output)
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.rows.len()
    }

    /// Rows that were written to a partition.
    pub fn rows(&self, partition: usize) -> u64 {
        self.rows[partition]
    }

    /// About the bytes of what is left of a partition; on disk, as they are there.
    pub fn bytes(&self, partition: usize) -> u64 {
        self.output.lock().bytes(partition)
    }

    /// Whether some of the output is on disk.
    pub fn is_spilled(&self) -> bool {
        self.output.lock().segment(0).is_some()
    }

    /// The rows of a partition, which stay where they are. Those in memory are shared, not copied.
    pub fn share(&self, partition: usize) -> RowsReader {
        Box::new(self.output.lock().partition(partition).map(|rows| Ok(rows?)))
    }

    /// About the bytes of all partitions; on disk, as they are there.
    pub fn bytes_of_all(&self) -> u64 {
        let output = self.output.lock();
        (0..output.partitions()).map(|p| output.bytes(p)).sum()
    }

    /// The next batch in memory, or, when there is none, the segment after those that the reader has had.
    /// A spill between two calls moves what was in memory to the last segment.
    pub(super) fn next(&self, partition: usize, segments_read: usize) -> Next {
        let mut output = self.output.lock();
        if let Some(rows) = output.pop(partition) {
            self.charge.set(output.memory_bytes());
            return Next::Rows(rows);
        }
        output.segment(segments_read).map_or(Next::End, |s| Next::Segment(s.read(partition)))
    }
}

impl Spillable for ExchangeOutput {
    fn memory_bytes(&self) -> usize {
        self.charge.bytes()
    }

    fn spill(&self) -> Result<u64> {
        let mut output = self.output.lock();
        if output.memory_bytes() == 0 {
            return Ok(0);
        }
        let bytes = output.spill(&self.task.query.spill.store()?)?;
        self.charge.set(output.memory_bytes());
        self.task.note_spilled(bytes);
        Ok(bytes)
    }
}
