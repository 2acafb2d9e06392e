//! The rows of one hash partition, all at once, or in parts.
//!
//! Rows are kept until all of them are there. Told to spill before that, the source divides the partition by
//! other bits of the hash of PARTITION BY, and takes the parts one by one; a partition that waited on disk and
//! is larger than a task's share is divided at once. What cannot be divided, one partition of the window, is
//! sorted on disk if the calls can do with that ([`stream`](super::stream)); else it must fit the limit.

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::Window;
use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;
use dovetail_shuffle::partitioner::{EXCHANGE_SEED, hash_columns};

use super::evaluate;
use super::stream::{Stream, is_streamable, order_of};
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::exchange::ExchangeReader;
use crate::exchange::parts::{WaitingParts, is_divisible};
use crate::expr::{CompiledExpr, compile};
use crate::memory::{KeptBatches, Reservation};
use crate::operators::sort::{ExternalSort, sort_row_bytes};
use crate::task::{Source, TaskContext};

/// What errors and files call the operator.
const NAME: &str = "a window function";
/// What a call needs for a row beside its result: its argument and its frame.
const CALL_ROW_BYTES: usize = 16;

/// The rows of a hash partition with the calls' columns. The work is done when batches are asked for.
pub(super) struct WindowSource {
    window: Window,
    schema: SchemaRef,
    partition_by: Vec<CompiledExpr>,
    task: TaskContext,
    reservation: Reservation,
    /// A partition, or a part that was divided so often.
    input: Option<(ExchangeReader, u32)>,
    waiting: WaitingParts,
    stream: Option<Stream>,
    output: Batch,
    /// First row of the output's next batch.
    next: usize,
}

impl WindowSource {
    pub(super) fn new(
        window: &Window,
        input_schema: &SchemaRef,
        input: ExchangeReader,
        task: &TaskContext,
    ) -> Result<Self> {
        Ok(WindowSource {
            window: window.clone(),
            schema: input_schema.clone(),
            partition_by: window.partition_by.iter().map(compile).collect::<Result<_>>()?,
            task: task.clone(),
            reservation: task.query.memory.reserve(NAME),
            input: Some((input, 0)),
            waiting: WaitingParts::new(NAME),
            stream: None,
            output: Batch { columns: vec![], rows: 0 },
            next: 0,
        })
    }

    /// The result of a partition or a part; it is empty if that was divided or sorted.
    fn evaluate(&mut self, mut reader: ExchangeReader, depth: u32) -> Result<Batch> {
        let is_divisible = is_divisible(depth) && !self.partition_by.is_empty();
        let share = self.task.query.memory.fair_share_bytes() as u64;
        if is_divisible
            && let (bytes, true) = reader.bytes_left()
            && bytes > share / 2
        {
            return self.divide(reader, bytes, depth);
        }
        let mut kept = KeptBatches::default();
        let mut is_firm = false;
        while let Some(batch) = reader.next().transpose()? {
            self.task.query.check_cancelled()?;
            kept.push(&batch)?;
            let bytes = kept.bytes() + kept.rows() * self.row_bytes(&batch);
            if is_firm {
                self.reservation.resize_firm(bytes)?;
            } else if self.reservation.resize(bytes) {
                // In a whole partition other keys may follow.
                if is_divisible && (depth == 0 || self.has_several_keys(&kept)?) {
                    let bytes = bytes as u64 / kept.rows().max(1) as u64;
                    kept.take().into_iter().rev().for_each(|batch| reader.put_back(batch));
                    let bytes = bytes * reader.rows_left();
                    return self.divide(reader, bytes, depth);
                }
                self.reservation.shrink(0);
                if is_streamable(&self.window) {
                    kept.take().into_iter().rev().for_each(|batch| reader.put_back(batch));
                    self.sort(reader)?;
                    return Ok(Batch { columns: vec![], rows: 0 });
                }
                is_firm = true;
                self.reservation.resize_firm(bytes)?;
            }
        }
        let output = evaluate(&self.window, self.schema.fields().len(), kept.take())?;
        self.reservation.shrink(0);
        self.reservation.resize_firm(held_bytes(&output))?;
        Ok(output)
    }

    fn sort(&mut self, mut reader: ExchangeReader) -> Result<()> {
        let mut rows = ExternalSort::new(&order_of(&self.window), &self.schema, &self.task)?;
        while let Some(batch) = reader.next().transpose()? {
            rows.push(&batch)?;
        }
        self.stream = Some(Stream::new(&self.window, rows.finish()?));
        Ok(())
    }

    /// What a row needs beside itself.
    fn row_bytes(&self, batch: &Batch) -> usize {
        let result = |width: Option<usize>| width.unwrap_or(size_of::<u128>()) + CALL_ROW_BYTES;
        let calls = self.window.calls.iter().map(|call| result(call.output.data_type().primitive_width()));
        sort_row_bytes(batch, self.window.partition_by.len() + self.window.order_by.len())
            + calls.sum::<usize>()
    }

    /// Whether a further division would tell some of the rows apart.
    fn has_several_keys(&self, kept: &KeptBatches) -> Result<bool> {
        let mut first = None;
        for batch in kept.batches() {
            let hashes = hash_columns(&keys_of(&self.partition_by, batch)?, EXCHANGE_SEED);
            if hashes.iter().any(|hash| hash != first.get_or_insert(*hash)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn divide(&mut self, mut reader: ExchangeReader, bytes: u64, depth: u32) -> Result<Batch> {
        self.reservation.shrink(0);
        let keys = |batch: &Batch| keys_of(&self.partition_by, batch);
        self.waiting.divide(&mut reader, &keys, bytes, depth, &self.task)?;
        Ok(Batch { columns: vec![], rows: 0 })
    }
}

impl Source for WindowSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        while self.next == self.output.rows {
            if let Some(stream) = &mut self.stream {
                if let Some(batch) = stream.next(&mut self.reservation)? {
                    return Ok(Some(batch));
                }
                self.stream = None;
            }
            self.output = Batch { columns: vec![], rows: 0 };
            self.next = 0;
            self.reservation.resize_firm(0)?;
            let Some((reader, depth)) = self.input.take().or_else(|| self.waiting.next()) else {
                return Ok(None);
            };
            self.output = self.evaluate(reader, depth)?;
        }
        let rows = BATCH_ROWS.min(self.output.rows - self.next);
        self.next += rows;
        Ok(Some(self.output.slice(self.next - rows, rows)))
    }
}

fn keys_of(partition_by: &[CompiledExpr], batch: &Batch) -> Result<Vec<ArrayRef>> {
    partition_by.iter().map(|key| key.evaluate(batch)?.values()).collect()
}

/// What a batch holds, with the order through which its columns are seen.
pub(super) fn held_bytes(batch: &Batch) -> usize {
    let columns = batch.columns.iter().map(|c| c.base().clone()).collect();
    HeldMemory::default().add(&Rows::new(columns, batch.rows)) + batch.rows * size_of::<u32>()
}
