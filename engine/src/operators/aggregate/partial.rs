//! The partial stage: groups of one task's rows, as far as they fit the cache.
//!
//! When the groups outgrow their share of the cache they leave as partial rows and the table starts
//! anew. Before the first such flush the sink looks at how fast groups still come: if it seems that there
//! are not many more, the table may grow to hold them all. If a table full of groups has taken hardly
//! more rows than groups, pre-aggregating only costs: then rows pass through for a while, each with the
//! states that it would have as a group of its own. Now and then a table is filled again, because data may
//! change along the way.
//!
//! What has left is in the exchange's hands and counted there; the table and the rows on their way are
//! reported beside it. Told to spill, the sink writes what has left, and the table too if it is a good part.

use std::sync::Arc;

use arrow::array::ArrayRef;
use dovetail_shuffle::Rows as Spilled;

use super::accumulators::{Accumulator, Rows};
use super::distinct::DistinctSets;
use super::feed;
use super::group_table::{AfterTake, GroupTable};
use super::scatter::{join_pieces, scatter};
use super::shape::Shape;
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::exchange::ExchangeWriter;
use crate::memory::SpillPolicy;
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// When a task's table is full, and when filling it does not pay.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartialLimits {
    /// Memory that rows touch at random at which the groups leave, bytes.
    pub hot_bytes_max: usize,
    /// Groups at which they leave.
    pub groups_max: usize,
    /// How many times as large as that a table may be that is expected to hold all groups.
    pub growth_max: usize,
    /// Memory of any kind at which the groups leave, bytes.
    pub memory_bytes_max: usize,
    /// Above this many groups per row, rows pass through.
    pub groups_per_row_max: f64,
    /// Rows that pass through before a table is filled again, in multiples of the rows of the last one.
    pub tables_passed: usize,
    /// Rows that are collected before they are scattered.
    pub scatter_rows: usize,
}

impl Default for PartialLimits {
    fn default() -> Self {
        PartialLimits {
            hot_bytes_max: 4 << 20,
            groups_max: 1 << 17,
            growth_max: 8,
            memory_bytes_max: 128 << 20,
            groups_per_row_max: 0.6,
            tables_passed: 16,
            scatter_rows: 1 << 16,
        }
    }
}

/// A table with less than this part of what has left is not worth a flush when memory is short.
const TABLE_PART_MIN: usize = 4;

/// What errors and files call the operator.
const NAME: &str = "aggregation";

/// Rows that are aggregated at a time; larger batches are cut.
const CHUNK_ROWS: usize = 1 << 14;

/// Makes partial sinks.
pub(super) struct PartialSinkFactory {
    shape: Shape,
    partitions: usize,
    limits: PartialLimits,
}

impl PartialSinkFactory {
    pub(super) fn new(shape: Shape, partitions: usize, limits: PartialLimits) -> Result<Self> {
        if shape.units.iter().any(|u| u.distinct || !u.order.is_empty()) {
            return Err(EngineError::internal("partial states of a DISTINCT or ordered aggregate"));
        }
        Ok(PartialSinkFactory { shape, partitions: partitions.max(1), limits })
    }
}

impl SinkFactory for PartialSinkFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        let types = self.shape.key_types();
        Ok(Box::new(PartialSink {
            accumulators: self.shape.accumulators()?,
            table: if types.is_empty() { None } else { Some(GroupTable::new(&types)?) },
            ids: vec![],
            rows_in_table: 0,
            half: (0, 0),
            growth: 1,
            passing: Passing {
                allowed: !types.is_empty(),
                rows_left: 0,
                pending: vec![],
                pending_rows: 0,
                pending_bytes: 0,
            },
            writer: ExchangeWriter::new(task, NAME, self.partitions),
            shape: self.shape.clone(),
            limits: self.limits,
            task: task.clone(),
        }))
    }
}

struct PartialSink {
    shape: Shape,
    limits: PartialLimits,
    task: TaskContext,
    /// None without GROUP BY.
    table: Option<GroupTable>,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// The current batch's groups.
    ids: Vec<u32>,
    rows_in_table: usize,
    /// Rows and groups when the table was half full.
    half: (usize, usize),
    /// How many times as large as usual the table may be: 1 at first, 0 after it has grown in vain.
    growth: usize,
    passing: Passing,
    writer: ExchangeWriter,
}

/// Rows on their way through without aggregation.
struct Passing {
    /// Every accumulator can make states of single rows.
    allowed: bool,
    /// Rows that are still to pass before aggregation is tried again.
    rows_left: usize,
    /// Pieces of partial columns, by batch; all batches have the same types.
    pending: Vec<Vec<ArrayRef>>,
    pending_rows: usize,
    pending_bytes: usize,
}

impl Sink for PartialSink {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.task.query.check_cancelled()?;
        for start in (0..batch.rows).step_by(CHUNK_ROWS) {
            let rows = CHUNK_ROWS.min(batch.rows - start);
            let chunk = if rows == batch.rows { batch.clone() } else { batch.slice(start, rows) };
            let columns = self.shape.inputs.evaluate(&chunk)?;
            if self.passing.rows_left == 0 || !self.pass(&columns, rows)? {
                self.aggregate(&columns, rows)?;
            }
            self.report()?;
        }
        Ok(Flow::Continue)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.flush_table()?;
        self.flush_pending()?;
        Ok(Output { exchange: Some(self.writer.finish()?), ..Output::default() })
    }
}

impl PartialSink {
    /// Tells the governor what is held, and spills if it says so.
    fn report(&mut self) -> Result<()> {
        let table = self.table.as_ref().map_or(0, GroupTable::memory_bytes);
        let table = table + self.accumulators.iter().map(|a| a.memory_bytes()).sum::<usize>();
        let beside = table + self.passing.pending_bytes;
        if !self.writer.must_spill(beside) {
            return Ok(());
        }
        self.flush_pending()?;
        let always = self.task.query.memory.policy() == SpillPolicy::Always;
        if always || table * TABLE_PART_MIN >= self.writer.memory_bytes() {
            self.flush_table()?;
            return self.writer.spill(0);
        }
        self.writer.spill(table)
    }

    fn aggregate(&mut self, columns: &[Column], rows: usize) -> Result<()> {
        self.rows_in_table += rows;
        let groups = match &mut self.table {
            None => 1,
            Some(table) => {
                let keys: Vec<Column> =
                    self.shape.keys.iter().map(|(slot, _)| columns[*slot].clone()).collect();
                table.assign(&keys, rows, &mut self.ids)?;
                table.len()
            }
        };
        let ids = self.table.is_some().then_some(self.ids.as_slice());
        let fed = Rows { ids, groups, rows, complete: true };
        feed::update(&self.shape.units, &mut self.accumulators, &mut DistinctSets::default(), columns, &fed)?;
        self.make_room(groups)
    }

    /// Lets the groups leave, or the table grow, if there are too many.
    fn make_room(&mut self, groups: usize) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let states: usize = self.accumulators.iter().map(|a| a.memory_bytes()).sum();
        let (hot, all) = (table.hot_bytes() + states, table.memory_bytes() + states);
        let (limits, rows) = (&self.limits, self.rows_in_table);
        let times = self.growth.max(1);
        let fullness = (groups as f64 / (limits.groups_max * times) as f64)
            .max(hot as f64 / (limits.hot_bytes_max * times) as f64)
            .max(all as f64 / limits.memory_bytes_max as f64);
        if fullness < 0.5 {
            self.half = (rows, groups);
        }
        if fullness < 1.0 {
            return Ok(());
        }
        if self.growth == 1 && all < limits.memory_bytes_max {
            let new = (groups - self.half.1) as f64 / (rows - self.half.0).max(1) as f64;
            // If all groups are equally frequent and this part of the rows bring new ones, so many are there.
            let expected = groups as f64 / (1.0 - new).max(0.01);
            let needed = (expected * 1.3 / groups as f64).ceil() as usize;
            if needed <= limits.growth_max {
                self.growth = needed.max(2);
                return Ok(());
            }
        }
        self.flush_table()?;
        self.growth = if times > 1 { 0 } else { self.growth };
        if self.passing.allowed && groups as f64 > rows as f64 * self.limits.groups_per_row_max {
            self.passing.rows_left = rows * self.limits.tables_passed;
        }
        Ok(())
    }

    /// The groups leave as partial rows.
    fn flush_table(&mut self) -> Result<()> {
        if std::mem::take(&mut self.rows_in_table) == 0 {
            return Ok(());
        }
        self.half = (0, 0);
        let (groups, mut columns) = match &mut self.table {
            None => (1, vec![]),
            Some(table) => (table.len(), table.take_keys(AfterTake::LearnAnew)?),
        };
        let keys = columns.len();
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.take_states(groups)?);
        }
        scatter(&columns, keys, groups, &mut self.writer)
    }

    /// Rows leave as partial rows of their own; false if they cannot.
    fn pass(&mut self, columns: &[Column], rows: usize) -> Result<bool> {
        let mut piece = vec![];
        for (slot, _) in self.shape.keys.iter() {
            piece.push(columns[*slot].values()?);
        }
        for (unit, accumulator) in self.shape.units.iter().zip(&self.accumulators) {
            let filter = unit.filter.map(|slot| feed::mask(&columns[slot])).transpose()?;
            match accumulator.row_states(&feed::arguments(unit, columns)?, filter.as_ref(), rows)? {
                Some(states) => piece.extend(states),
                None => {
                    self.passing.allowed = false;
                    self.passing.rows_left = 0;
                    return Ok(false);
                }
            }
        }
        let same_types =
            |other: &Vec<ArrayRef>| piece.iter().zip(other).all(|(a, b)| a.data_type() == b.data_type());
        if !self.passing.pending.first().is_none_or(same_types) {
            self.flush_pending()?;
        }
        self.passing.pending_bytes += Spilled::new(piece.clone(), rows).encoded_bytes();
        self.passing.pending.push(piece);
        self.passing.pending_rows += rows;
        self.passing.rows_left = self.passing.rows_left.saturating_sub(rows);
        if self.passing.pending_rows >= self.limits.scatter_rows {
            self.flush_pending()?;
        }
        Ok(true)
    }

    fn flush_pending(&mut self) -> Result<()> {
        let pieces = std::mem::take(&mut self.passing.pending);
        let rows = std::mem::take(&mut self.passing.pending_rows);
        self.passing.pending_bytes = 0;
        let Some(first) = pieces.first() else { return Ok(()) };
        let columns = (0..first.len())
            .map(|column| {
                let parts: Vec<ArrayRef> = pieces.iter().map(|piece| piece[column].clone()).collect();
                join_pieces(&parts)
            })
            .collect::<Result<Vec<_>>>()?;
        scatter(&columns, self.shape.keys.len(), rows, &mut self.writer)
    }
}

/// What a shared sink factory is made of is shared by threads.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Arc<PartialSinkFactory>>();
};
