//! A hash partition that is too large to be aggregated at once, taken in parts.
//!
//! The parts go by other bits of the same hash. Each is read like a partition of its own, and if it is still
//! too large it is taken in parts again, at the next depth. Parts that wait are one parked output, which goes
//! to disk when memory is short.
//!
//! What always holds: parts that came last are read first, so that at most one set of parts of each depth is
//! there, at most [`DEPTH_MAX`] of them.

use std::sync::Arc;

use arrow::array::ArrayRef;

use super::scatter::{DEPTH_MAX, PARTS_MAX, split};
use crate::batch::Batch;
use crate::error::Result;
use crate::exchange::{ExchangeOutput, ExchangeReader, ExchangeWriter};
use crate::task::TaskContext;

/// Parts of a partition are to be a quarter of what an operator may hold: beside the groups of one there is
/// its input, and the estimate may be wrong by a factor.
const FAIR_SHARE_PART: u64 = 4;

/// The parts that wait, by depth.
#[derive(Default)]
pub(super) struct WaitingParts {
    levels: Vec<Level>,
}

struct Level {
    output: Arc<ExchangeOutput>,
    next: usize,
    depth: u32,
}

impl WaitingParts {
    /// Adds a partition, or a part, of about `bytes` bytes once aggregated: what is left of its reader, in the
    /// parts that `keys` say. `depth` is the number of times it has been divided already.
    pub(super) fn divide(
        &mut self,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
        keys: &dyn Fn(&Batch) -> Result<Vec<ArrayRef>>,
        bytes: u64,
        depth: u32,
        task: &TaskContext,
    ) -> Result<()> {
        let part_bytes = (task.query.memory.fair_share_bytes() as u64 / FAIR_SHARE_PART).max(1);
        let parts = (bytes / part_bytes).clamp(2, PARTS_MAX as u64) as usize;
        let mut parts = Parts::new(task, parts.next_power_of_two(), depth);
        for batch in batches {
            task.query.check_cancelled()?;
            let batch = batch?;
            let keys = keys(&batch)?;
            parts.push(batch, &keys)?;
        }
        self.levels.push(Level { output: parts.writer.finish()?, next: 0, depth: depth + 1 });
        Ok(())
    }

    /// The next part, and how many times it has been divided.
    pub(super) fn next(&mut self) -> Option<(ExchangeReader, u32)> {
        while let Some(level) = self.levels.last_mut() {
            let part = level.next;
            if part < level.output.partitions() {
                level.next += 1;
                let reader = ExchangeReader::new(0, vec![level.output.clone()], part);
                if reader.rows_left() > 0 {
                    return Some((reader, level.depth));
                }
                continue;
            }
            self.levels.pop();
        }
        None
    }
}

/// Whether something that was divided so often can be divided again.
pub(super) fn is_divisible(depth: u32) -> bool {
    depth < DEPTH_MAX
}

/// Parts being made.
struct Parts {
    writer: ExchangeWriter,
    parts: usize,
    depth: u32,
}

impl Parts {
    fn new(task: &TaskContext, parts: usize, depth: u32) -> Self {
        Parts { writer: ExchangeWriter::new(task, "aggregation", parts), parts, depth }
    }

    fn push(&mut self, batch: Batch, keys: &[ArrayRef]) -> Result<()> {
        let (batch, ends) = split(batch, keys, self.parts, self.depth)?;
        let mut start = 0;
        for (part, end) in ends.into_iter().enumerate() {
            if end > start {
                self.writer.push(part, &batch.slice(start, end - start))?;
            }
            start = end;
        }
        if self.writer.must_spill(0) {
            self.writer.spill(0)?;
        }
        Ok(())
    }
}
