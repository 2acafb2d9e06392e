//! Aggregation in one phase: all rows of a group are here. For DISTINCT and ordered aggregates.
//!
//! There are no partial groups that could go back among the rows. So the rows are kept as long as they may be
//! needed again; if memory gets short, everything else is dropped and all rows are divided into parts by
//! their keys, each of which is aggregated by itself. A partition that waited on disk and is larger than a
//! task's share is divided at once. One group cannot be divided: it must fit the limit.

use arrow::array::{Array, ArrayRef};

use super::accumulators::{Accumulator, Rows};
use super::distinct::DistinctSets;
use super::group_table::{AfterTake, GroupTable};
use super::ordered::OrderedRows;
use super::shape::Shape;
use super::{feed, finish};
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::Result;
use crate::exchange::ExchangeReader;
use crate::exchange::parts::{WaitingParts, is_divisible};
use crate::memory::{KeptBatches, Reservation};
use crate::task::{Source, TaskContext};

/// What errors and files call the operator.
const NAME: &str = "aggregation with DISTINCT or ORDER BY";
/// Rows that are aggregated at a time; larger batches are cut.
const CHUNK_ROWS: usize = 1 << 14;

/// The groups of one partition of rows. The work is done when batches are asked for.
pub(super) struct SingleSource {
    shape: Shape,
    is_first_partition: bool,
    task: TaskContext,
    reservation: Reservation,
    /// A partition, or a part that was divided so often.
    input: Option<(ExchangeReader, u32)>,
    waiting: WaitingParts,
    result: ResultRows,
}

/// Groups and all that belongs to them.
struct Groups {
    table: Option<GroupTable>,
    accumulators: Vec<Box<dyn Accumulator>>,
    sets: DistinctSets,
    ordered: OrderedRows,
    ids: Vec<u32>,
}

impl SingleSource {
    pub(super) fn new(
        shape: Shape,
        input: ExchangeReader,
        is_first_partition: bool,
        task: &TaskContext,
    ) -> Self {
        SingleSource {
            shape,
            is_first_partition,
            task: task.clone(),
            reservation: task.query.memory.reserve(NAME),
            input: Some((input, 0)),
            waiting: WaitingParts::new(NAME),
            result: ResultRows::none(),
        }
    }

    /// Aggregates a partition or a part; there is no result yet if it was divided.
    fn aggregate(&mut self, mut reader: ExchangeReader, depth: u32) -> Result<ResultRows> {
        let mut divisible = is_divisible(depth) && !self.shape.keys.is_empty();
        let share = self.task.query.memory.fair_share_bytes() as u64;
        if divisible
            && let (bytes, true) = reader.bytes_left()
            && bytes > share / 2
        {
            self.divide(reader, bytes, depth)?;
            return Ok(ResultRows::none());
        }
        let mut groups = Groups::new(&self.shape)?;
        let mut kept = KeptBatches::default();
        let mut must_spill = false;
        while let Some(batch) = reader.next().transpose()? {
            self.task.query.check_cancelled()?;
            if must_spill && divisible {
                if groups.len() > 1 || depth == 0 {
                    let bytes = groups.memory_bytes() as u64 + kept.bytes() as u64;
                    let rows = kept.rows().max(1) as u64;
                    reader.put_back(batch);
                    kept.take().into_iter().rev().for_each(|b| reader.put_back(b));
                    drop(groups);
                    let bytes = bytes / rows * reader.rows_left();
                    self.divide(reader, bytes, depth)?;
                    return Ok(ResultRows::none());
                }
                // One group so far, of a part: it must fit, whatever comes.
                divisible = false;
                kept = KeptBatches::default();
                self.reservation.shrink(0);
            }
            groups.add(&self.shape, &batch)?;
            if divisible {
                kept.push(&batch)?;
                must_spill = self.reservation.resize(groups.memory_bytes() + kept.bytes());
            } else {
                self.reservation.resize_firm(groups.memory_bytes())?;
            }
        }
        drop(kept);
        let result = groups.take_results(&self.shape, self.is_first_partition)?;
        self.reservation.resize_firm(0)?;
        // The results leave in a moment; there is nothing to be spilled of them.
        self.reservation.shrink(result.memory_bytes());
        Ok(result)
    }

    fn divide(&mut self, mut reader: ExchangeReader, bytes: u64, depth: u32) -> Result<()> {
        self.reservation.shrink(0);
        let shape = &self.shape;
        let keys = |batch: &Batch| {
            let columns = shape.inputs.evaluate(batch)?;
            shape.keys.iter().map(|(slot, _)| columns[*slot].values()).collect()
        };
        self.waiting.divide(&mut reader, &keys, bytes, depth, &self.task)
    }
}

impl Source for SingleSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.result.next() {
                return Ok(Some(batch));
            }
            self.result = ResultRows::none();
            let Some((reader, depth)) = self.input.take().or_else(|| self.waiting.next()) else {
                self.reservation.shrink(0);
                return Ok(None);
            };
            self.result = self.aggregate(reader, depth)?;
        }
    }
}

impl Groups {
    fn new(shape: &Shape) -> Result<Self> {
        let types = shape.key_types();
        Ok(Groups {
            table: if types.is_empty() { None } else { Some(GroupTable::new(&types)?) },
            accumulators: shape.accumulators()?,
            sets: DistinctSets::default(),
            ordered: OrderedRows::new(shape),
            ids: vec![],
        })
    }

    fn len(&self) -> usize {
        self.table.as_ref().map_or(1, GroupTable::len)
    }

    fn memory_bytes(&self) -> usize {
        let table = self.table.as_ref().map_or(0, GroupTable::memory_bytes);
        let states: usize = self.accumulators.iter().map(|a| a.memory_bytes()).sum();
        table + states + self.sets.memory_bytes() + self.ordered.memory_bytes()
    }

    fn add(&mut self, shape: &Shape, batch: &Batch) -> Result<()> {
        for start in (0..batch.rows).step_by(CHUNK_ROWS) {
            let rows = CHUNK_ROWS.min(batch.rows - start);
            let chunk = if rows == batch.rows { batch.clone() } else { batch.slice(start, rows) };
            let columns = shape.inputs.evaluate(&chunk)?;
            if let Some(table) = &mut self.table {
                let keys: Vec<Column> = shape.keys.iter().map(|(slot, _)| columns[*slot].clone()).collect();
                table.assign(&keys, rows, &mut self.ids)?;
            }
            let groups = self.len();
            let ids = self.table.as_ref().map(|_| self.ids.as_slice());
            let fed = Rows { ids, groups, rows, complete: true };
            feed::update(&shape.units, &mut self.accumulators, &mut self.sets, &columns, &fed)?;
            self.ordered.keep(&columns, &fed)?;
        }
        Ok(())
    }

    fn take_results(mut self, shape: &Shape, is_first_partition: bool) -> Result<ResultRows> {
        let groups = self.len();
        self.ordered.feed(shape, &mut self.accumulators, groups)?;
        ResultRows::take(shape, self.table.as_mut(), &mut self.accumulators, is_first_partition)
    }
}

/// Finished groups, handed out in batches.
pub(super) struct ResultRows {
    columns: Vec<ArrayRef>,
    rows: usize,
    next: usize,
}

impl ResultRows {
    /// No rows.
    pub(super) fn none() -> Self {
        ResultRows { columns: vec![], rows: 0, next: 0 }
    }

    /// Memory of all rows, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.columns.iter().map(|c| c.get_array_memory_size()).sum()
    }

    /// The rows of a table and its accumulators, which are empty then. Without a table there is one row, in
    /// the first partition.
    pub(super) fn take(
        shape: &Shape,
        table: Option<&mut GroupTable>,
        accumulators: &mut [Box<dyn Accumulator>],
        is_first_partition: bool,
    ) -> Result<Self> {
        let rows = match &table {
            Some(table) => table.len(),
            None => usize::from(is_first_partition),
        };
        if rows == 0 {
            return Ok(ResultRows::none());
        }
        let mut columns = match table {
            Some(table) => table.take_keys(AfterTake::KeepLayout)?,
            None => vec![],
        };
        let mut units = Vec::with_capacity(accumulators.len());
        for accumulator in accumulators {
            units.push(accumulator.take_results(rows)?);
        }
        for call in shape.results.iter() {
            columns.push(finish::result(call, &units)?);
        }
        Ok(ResultRows { columns, rows, next: 0 })
    }

    pub(super) fn next(&mut self) -> Option<Batch> {
        let rows = BATCH_ROWS.min(self.rows - self.next);
        if rows == 0 {
            return None;
        }
        let columns = self.columns.iter().map(|c| c.slice(self.next, rows)).collect();
        self.next += rows;
        Some(Batch::from_arrays(columns, rows))
    }
}
