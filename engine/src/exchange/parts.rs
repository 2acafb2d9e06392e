//! A hash partition that is too large for the memory, taken in parts.
//!
//! The parts go by other bits of the same hash, so all rows of a key are in one. Each is read like a partition
//! of its own, and if it is still too large it is taken in parts again, at the next depth. Parts that wait are
//! one parked output, which goes to disk when memory is short.
//!
//! What always holds: parts that came last are read first, so that at most one set of parts of each depth is
//! there, at most [`DEPTH_MAX`] of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use dovetail_shuffle::partitioner::{EXCHANGE_SEED, hash_columns_into};

use super::{ExchangeOutput, ExchangeReader, ExchangeWriter};
use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::task::TaskContext;

/// Most parts that a partition, or a part of one, is taken in; a power of two.
pub(crate) const PARTS_MAX: usize = 64;
/// How often a part can be taken in parts: each time uses other bits of the hash, as long as there are any.
pub(crate) const DEPTH_MAX: u32 = 5;

/// Parts of a partition are to be a quarter of what an operator may hold: beside what is made of one there is
/// its input, and the estimate may be wrong by a factor.
const FAIR_SHARE_PART: u64 = 4;

/// The parts that wait, by depth.
pub(crate) struct WaitingParts {
    /// Whose they are, in errors and the names of files.
    operator: &'static str,
    levels: Vec<Level>,
}

struct Level {
    output: Arc<ExchangeOutput>,
    next: usize,
    depth: u32,
}

impl WaitingParts {
    /// No parts yet, of an operator of a name that a user knows.
    pub(crate) fn new(operator: &'static str) -> Self {
        WaitingParts { operator, levels: vec![] }
    }

    /// Adds a partition, or a part, that needs about `bytes` bytes to be worked on: what is left of its reader,
    /// in the parts that `keys` say. `depth` is the number of times it has been divided already.
    pub(crate) fn divide(
        &mut self,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
        keys: &dyn Fn(&Batch) -> Result<Vec<ArrayRef>>,
        bytes: u64,
        depth: u32,
        task: &TaskContext,
    ) -> Result<()> {
        let part_bytes = (task.query.memory.fair_share_bytes() as u64 / FAIR_SHARE_PART).max(1);
        let parts = (bytes / part_bytes).clamp(2, PARTS_MAX as u64) as usize;
        let mut parts = Parts::new(task, self.operator, parts.next_power_of_two(), depth);
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
    pub(crate) fn next(&mut self) -> Option<(ExchangeReader, u32)> {
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
pub(crate) fn is_divisible(depth: u32) -> bool {
    depth < DEPTH_MAX
}

/// Parts being made.
struct Parts {
    writer: ExchangeWriter,
    parts: usize,
    depth: u32,
}

impl Parts {
    fn new(task: &TaskContext, operator: &'static str, parts: usize, depth: u32) -> Self {
        Parts { writer: ExchangeWriter::new(task, operator, parts), parts, depth }
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

/// The part, `0..parts`, of a hash, at a depth below [`DEPTH_MAX`]. `parts` is a power of two from 2 to
/// [`PARTS_MAX`].
#[inline(always)]
pub(crate) fn part_of(hash: u64, parts: usize, depth: u32) -> usize {
    ((hash as u32) << (depth * PARTS_MAX.trailing_zeros()) >> (32 - parts.trailing_zeros())) as usize
}

/// A batch whose rows are in the order of their parts, and where each part ends. The keys may be columns of
/// the batch or computed from them.
pub(crate) fn split(
    batch: Batch,
    keys: &[ArrayRef],
    parts: usize,
    depth: u32,
) -> Result<(Batch, Vec<usize>)> {
    split_by(batch, keys, parts, |hash| part_of(hash, parts, depth))
}

/// A batch whose rows are in the order of `bucket` of their keys' hash, and where each bucket ends.
pub(crate) fn split_by(
    batch: Batch,
    keys: &[ArrayRef],
    buckets: usize,
    bucket: impl Fn(u64) -> usize,
) -> Result<(Batch, Vec<usize>)> {
    let mut hashes = vec![];
    hash_columns_into(keys, EXCHANGE_SEED, &mut hashes);
    let sorted = hashes.windows(2).all(|pair| bucket(pair[0]) <= bucket(pair[1]));
    let (order, ends) = order_by(&hashes, buckets, bucket);
    if sorted {
        return Ok((batch, ends));
    }
    let columns = batch.columns.iter().map(Column::values).collect::<Result<Vec<_>>>()?;
    Ok((reordered(&columns, order)?, ends))
}

/// Row numbers in the order of their buckets, and the end of each bucket in that order.
pub(crate) fn order_by(
    hashes: &[u64],
    buckets: usize,
    bucket: impl Fn(u64) -> usize,
) -> (Vec<u32>, Vec<usize>) {
    let mut ends = vec![0u32; buckets + 1];
    for hash in hashes {
        ends[bucket(*hash) + 1] += 1;
    }
    for bucket in 0..buckets {
        ends[bucket + 1] += ends[bucket];
    }
    let mut order = vec![0u32; hashes.len()];
    for (row, hash) in hashes.iter().enumerate() {
        let place = &mut ends[bucket(*hash)];
        order[*place as usize] = row as u32;
        *place += 1;
    }
    // Each start has moved to its bucket's end.
    ends.pop();
    (order, ends.into_iter().map(|end| end as usize).collect())
}

/// Columns in another order of rows. The bytes of strings move along, so that whoever reads the rows one
/// after the other reads their bytes so too, and nothing else is kept in memory for them.
pub(crate) fn reordered(columns: &[ArrayRef], order: Vec<u32>) -> Result<Batch> {
    let rows = order.len();
    let order = UInt32Array::from(order);
    let columns = columns
        .iter()
        .map(|column| {
            let taken = take(column, &order, None)?;
            Ok(match taken.data_type() {
                DataType::Utf8View => Arc::new(taken.as_string_view().gc()) as ArrayRef,
                DataType::BinaryView => Arc::new(taken.as_binary_view().gc()),
                _ => taken,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Batch::from_arrays(columns, rows))
}
