//! The final stage: merges the partial groups of one hash partition.
//!
//! If there are more groups than the cache holds, what has been merged so far goes back among the partial
//! groups, and the partition is taken in parts, one after the other, each of which fits.

use std::collections::VecDeque;

use super::accumulators::{Accumulator, Rows};
use super::group_table::{AfterTake, GroupTable};
use super::scatter::{PARTS_MAX, split};
use super::shape::Shape;
use super::single::ResultRows;
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::task::Source;

/// When a partition is taken in parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct FinalLimits {
    /// Groups that are merged at once without a thought.
    pub groups_max: usize,
    /// Rows that a part should have.
    pub part_rows: usize,
}

impl Default for FinalLimits {
    fn default() -> Self {
        FinalLimits { groups_max: 1 << 16, part_rows: 1 << 15 }
    }
}

/// The groups of one partition. The work is done when batches are asked for.
pub(super) struct FinalSource {
    shape: Shape,
    limits: FinalLimits,
    is_first_partition: bool,
    merger: Option<Merger>,
    work: Work,
    result: ResultRows,
}

enum Work {
    /// Nothing has been merged.
    Whole(VecDeque<Batch>),
    /// Batches in the order of their parts with the ends of the parts, and the next part.
    Parts { batches: Vec<(Batch, Vec<usize>)>, next: usize, parts: usize },
}

impl FinalSource {
    pub(super) fn new(
        shape: Shape,
        batches: Vec<Batch>,
        is_first_partition: bool,
        limits: FinalLimits,
    ) -> Self {
        let work = Work::Whole(batches.into());
        FinalSource { shape, limits, is_first_partition, merger: None, work, result: ResultRows::none() }
    }

    /// Merges until there are results; none if all is done.
    fn advance(&mut self) -> Result<Option<ResultRows>> {
        let merger = match &mut self.merger {
            Some(merger) => merger,
            None => self.merger.insert(Merger::new(&self.shape)?),
        };
        match &mut self.work {
            Work::Whole(batches) => {
                let mut rows_left: usize = batches.iter().map(|b| b.rows).sum();
                while let Some(batch) = batches.pop_front() {
                    rows_left -= batch.rows;
                    merger.merge(&batch)?;
                    let groups = merger.groups();
                    if groups > self.limits.groups_max && rows_left > groups / 2 {
                        batches.push_front(merger.take_partial()?);
                        let parts = (groups + rows_left) / self.limits.part_rows;
                        let parts = parts.next_power_of_two().clamp(2, PARTS_MAX);
                        let keys = self.shape.keys.len();
                        let batches =
                            batches.drain(..).map(|b| split(b, keys, parts)).collect::<Result<Vec<_>>>()?;
                        self.work = Work::Parts { batches, next: 0, parts };
                        return Ok(Some(ResultRows::none()));
                    }
                }
                self.work = Work::Parts { batches: vec![], next: 0, parts: 0 };
                merger.take_results(&self.shape, self.is_first_partition).map(Some)
            }
            Work::Parts { next, parts, .. } if next == parts => Ok(None),
            Work::Parts { batches, next, .. } => {
                for (batch, ends) in batches.iter() {
                    let start = if *next == 0 { 0 } else { ends[*next - 1] };
                    let end = ends[*next];
                    if end > start {
                        merger.merge(&batch.slice(start, end - start))?;
                    }
                }
                *next += 1;
                merger.take_results(&self.shape, self.is_first_partition).map(Some)
            }
        }
    }
}

impl Source for FinalSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.result.next() {
                return Ok(Some(batch));
            }
            match self.advance()? {
                Some(result) => self.result = result,
                None => return Ok(None),
            }
        }
    }
}

/// Groups and their accumulators.
struct Merger {
    /// None without GROUP BY.
    table: Option<GroupTable>,
    accumulators: Vec<Box<dyn Accumulator>>,
    keys: usize,
    columns: usize,
    ids: Vec<u32>,
}

impl Merger {
    fn new(shape: &Shape) -> Result<Self> {
        let types = shape.key_types();
        let accumulators = shape.accumulators()?;
        let states: usize = accumulators.iter().map(|a| a.state_columns()).sum();
        Ok(Merger {
            table: if types.is_empty() { None } else { Some(GroupTable::new(&types)?) },
            accumulators,
            keys: types.len(),
            columns: types.len() + states,
            ids: vec![],
        })
    }

    fn groups(&self) -> usize {
        self.table.as_ref().map_or(0, GroupTable::len)
    }

    fn merge(&mut self, batch: &Batch) -> Result<()> {
        if batch.rows == 0 {
            return Ok(());
        }
        if batch.columns.len() != self.columns {
            return Err(EngineError::internal(format!(
                "a partial group of {} columns instead of {}",
                batch.columns.len(),
                self.columns
            )));
        }
        let (keys, mut states): (&[Column], &[Column]) = batch.columns.split_at(self.keys);
        let groups = match &mut self.table {
            None => 1,
            Some(table) => {
                table.assign(keys, batch.rows, &mut self.ids)?;
                table.len()
            }
        };
        let ids = self.table.as_ref().map(|_| self.ids.as_slice());
        let rows = Rows { ids, groups, rows: batch.rows, complete: true };
        for accumulator in &mut self.accumulators {
            let (own, rest) = states.split_at(accumulator.state_columns());
            let own = own.iter().map(Column::values).collect::<Result<Vec<_>>>()?;
            accumulator.merge(&rows, &own)?;
            states = rest;
        }
        Ok(())
    }

    /// The groups as the partial groups that they were merged from.
    fn take_partial(&mut self) -> Result<Batch> {
        let groups = self.groups();
        let mut columns = match &mut self.table {
            Some(table) => table.take_keys(AfterTake::KeepLayout)?,
            None => vec![],
        };
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.take_states(groups)?);
        }
        Ok(Batch::from_arrays(columns, groups))
    }

    fn take_results(&mut self, shape: &Shape, is_first_partition: bool) -> Result<ResultRows> {
        ResultRows::take(shape, self.table.as_mut(), &mut self.accumulators, is_first_partition)
    }
}
