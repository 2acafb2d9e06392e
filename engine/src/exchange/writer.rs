//! One task's output while it is written.

use std::sync::Arc;

use dovetail_shuffle::Rows;
use dovetail_shuffle::output::MapOutputWriter;

use super::output::ExchangeOutput;
use crate::batch::Batch;
use crate::error::Result;
use crate::memory::Reservation;
use crate::task::TaskContext;

/// Collects a task's rows by partition. Used by one thread.
pub struct ExchangeWriter {
    writer: MapOutputWriter,
    rows: Vec<u64>,
    reservation: Reservation,
    task: TaskContext,
}

impl ExchangeWriter {
    /// An empty output of `partitions` partitions, whose memory counts for the operator.
    pub fn new(task: &TaskContext, operator: &'static str, partitions: usize) -> Self {
        ExchangeWriter {
            writer: MapOutputWriter::new(operator, partitions),
            rows: vec![0; partitions],
            reservation: task.query.memory.reserve(operator),
            task: task.clone(),
        }
    }

    /// Adds a batch to a partition. It may be a slice of one whose other slices come as well.
    pub fn push(&mut self, partition: usize, batch: &Batch) -> Result<()> {
        if batch.rows > 0 {
            let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<Vec<_>>>()?;
            self.rows[partition] += batch.rows as u64;
            self.writer.push(partition, Rows::new(columns, batch.rows));
        }
        Ok(())
    }

    /// Memory of what was pushed and is not on disk.
    pub fn memory_bytes(&self) -> usize {
        self.writer.memory_bytes()
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.rows.len()
    }

    /// Rows pushed so far.
    pub fn rows(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// Reports what is held here, and `beside_bytes` that the operator holds otherwise and could push here.
    /// To be called once a batch. The answer is whether to spill: push what should go, then
    /// [`Self::spill`].
    #[must_use]
    pub fn must_spill(&mut self, beside_bytes: usize) -> bool {
        self.reservation.resize(self.writer.memory_bytes() + beside_bytes)
    }

    /// Writes what was pushed to disk; `beside_bytes` stay in memory beside it.
    pub fn spill(&mut self, beside_bytes: usize) -> Result<()> {
        if self.writer.memory_bytes() > 0 {
            let bytes = self.writer.spill(&self.task.query.spill.store()?)?;
            self.task.note_spilled(bytes);
        }
        self.reservation.shrink(beside_bytes);
        Ok(())
    }

    /// The output, waiting to be read.
    pub fn finish(mut self) -> Result<Arc<ExchangeOutput>> {
        self.reservation.shrink(0);
        let output = self.writer.finish()?;
        ExchangeOutput::park(output, self.rows, &self.task)
    }
}
