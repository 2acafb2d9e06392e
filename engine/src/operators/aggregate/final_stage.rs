//! The final stage: merges the partial groups of some hash partitions, one partition after the other.
//!
//! If there are more groups than the cache holds, what has been merged so far goes back among the partial
//! groups, and the partition is taken in parts in memory, one after the other, each of which fits. If there
//! are more than the memory holds, the parts go to disk, and are taken in parts again if need be ([`parts`]).
//!
//! [`parts`]: crate::exchange::parts

use std::collections::VecDeque;

use arrow::array::ArrayRef;
use dovetail_shuffle::Rows as HeldRows;
use dovetail_shuffle::memory::HeldMemory;

use super::accumulators::{Accumulator, Rows};
use super::group_table::{AfterTake, GroupTable};
use super::shape::Shape;
use super::single::ResultRows;
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::exchange::ExchangeReader;
use crate::exchange::parts::{PARTS_MAX, WaitingParts, is_divisible, split};
use crate::memory::Reservation;
use crate::task::{Source, TaskContext};

/// What errors and files call the operator.
const NAME: &str = "aggregation";

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
    task: TaskContext,
    reservation: Reservation,
    merger: Option<Merger>,
    /// Partitions of which nothing has been read.
    inputs: VecDeque<ExchangeReader>,
    work: Work,
    /// Parts of what was too large for the memory.
    waiting: WaitingParts,
    result: ResultRows,
}

enum Work {
    /// A partition, or a part that was divided so often, of which nothing has been merged.
    Whole(ExchangeReader, u32),
    /// A partition in parts that fit the cache, all in memory.
    Cached(CachedParts),
    /// What waits comes next.
    Done,
}

/// Batches in the order of their parts with the ends of the parts, and the next part.
struct CachedParts {
    batches: Vec<(Batch, Vec<usize>)>,
    held: HeldMemory,
    next: usize,
    parts: usize,
}

impl FinalSource {
    pub(super) fn new(
        shape: Shape,
        inputs: Vec<ExchangeReader>,
        is_first_partition: bool,
        limits: FinalLimits,
        task: &TaskContext,
    ) -> Self {
        FinalSource {
            shape,
            limits,
            is_first_partition,
            task: task.clone(),
            reservation: task.query.memory.reserve(NAME),
            merger: None,
            inputs: inputs.into(),
            work: Work::Done,
            waiting: WaitingParts::new(NAME),
            result: ResultRows::none(),
        }
    }

    /// Merges until there are results; none if all is done.
    fn advance(&mut self) -> Result<Option<ResultRows>> {
        match std::mem::replace(&mut self.work, Work::Done) {
            Work::Whole(reader, depth) => self.merge_whole(reader, depth).map(Some),
            Work::Cached(parts) if parts.next == parts.parts => Ok(Some(ResultRows::none())),
            Work::Cached(parts) => self.merge_cached(parts).map(Some),
            Work::Done => {
                let next = self.waiting.next().or_else(|| Some((self.inputs.pop_front()?, 0)));
                let Some((reader, depth)) = next else { return Ok(None) };
                if let Some(after) = self.inputs.front_mut() {
                    // It may have to come from another machine.
                    after.start()?;
                }
                self.work = Work::Whole(reader, depth);
                Ok(Some(ResultRows::none()))
            }
        }
    }

    fn merge_whole(&mut self, mut reader: ExchangeReader, depth: u32) -> Result<ResultRows> {
        let mut must_spill = false;
        loop {
            self.task.query.check_cancelled()?;
            let Some(batch) = reader.next().transpose()? else { break };
            let merger = merger(&mut self.merger, &self.shape)?;
            let groups = merger.groups();
            if must_spill {
                // One group alone cannot be divided, and does not get smaller by being merged later; but in a
                // whole partition others may follow.
                if is_divisible(depth) && (groups > 1 || depth == 0 && !self.shape.keys.is_empty()) {
                    reader.put_back(batch);
                    self.divide(reader, depth)?;
                    return Ok(ResultRows::none());
                }
                self.reservation.shrink(0);
                self.reservation.resize_firm(merger.memory_bytes())?;
            }
            merger.merge(&batch)?;
            let groups = merger.groups();
            let rows_left = reader.rows_left() as usize;
            if depth == 0 && groups > self.limits.groups_max && rows_left > groups / 2 && !must_spill {
                let parts = (groups + rows_left) / self.limits.part_rows;
                let parts = parts.next_power_of_two().clamp(2, PARTS_MAX);
                reader.put_back(merger.take_partial()?);
                return self.cache_parts(reader, parts);
            }
            if self.reservation.firm_bytes() > 0 {
                self.reservation.resize_firm(merger.memory_bytes())?;
            } else {
                must_spill = self.reservation.resize(merger.memory_bytes());
            }
        }
        self.take_results()
    }

    /// Puts the batches in the order of parts that fit the cache, as long as the memory holds them.
    fn cache_parts(&mut self, mut reader: ExchangeReader, parts: usize) -> Result<ResultRows> {
        let mut cached = CachedParts { batches: vec![], held: HeldMemory::default(), next: 0, parts };
        let beside = self.merger.as_ref().map_or(0, Merger::memory_bytes);
        let keys = self.shape.keys.len();
        while let Some(batch) = reader.next().transpose()? {
            self.task.query.check_cancelled()?;
            let (batch, ends) = split(batch.clone(), &key_arrays(&batch, keys)?, parts, 0)?;
            cached.push(batch, ends)?;
            if self.reservation.resize(beside + cached.held.bytes()) {
                for (batch, _) in cached.batches {
                    reader.put_back(batch);
                }
                self.divide(reader, 0)?;
                return Ok(ResultRows::none());
            }
        }
        self.work = Work::Cached(cached);
        Ok(ResultRows::none())
    }

    fn merge_cached(&mut self, mut parts: CachedParts) -> Result<ResultRows> {
        let merger = merger(&mut self.merger, &self.shape)?;
        let part = parts.next;
        parts.next += 1;
        for (batch, range) in parts.slices(part..part + 1) {
            merger.merge(&batch.slice(range.start, range.len()))?;
        }
        let must_spill = self.reservation.resize(merger.memory_bytes() + parts.held.bytes());
        if must_spill && parts.next < parts.parts {
            // The parts that wait go; this one is merged.
            let rest = parts.slices(parts.next..parts.parts).map(|(b, r)| b.slice(r.start, r.len()));
            let rest: Vec<Batch> = rest.collect();
            drop(parts);
            let bytes = (merger.bytes_per_group() * rest.iter().map(|b| b.rows).sum::<usize>()) as u64;
            self.wait(&mut rest.into_iter().map(Ok), bytes, 0)?;
        } else {
            self.work = Work::Cached(parts);
        }
        self.take_results()
    }

    /// The groups go back among the partial groups, and these into parts.
    fn divide(&mut self, mut reader: ExchangeReader, depth: u32) -> Result<()> {
        let mut group_bytes = 1;
        if let Some(mut merger) = self.merger.take()
            && merger.groups() > 0
        {
            group_bytes = merger.bytes_per_group();
            reader.put_back(merger.take_partial()?);
        }
        self.reservation.shrink(0);
        let bytes = group_bytes as u64 * reader.rows_left();
        self.wait(&mut reader, bytes, depth)
    }

    fn wait(
        &mut self,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
        bytes: u64,
        depth: u32,
    ) -> Result<()> {
        let keys = self.shape.keys.len();
        self.waiting.divide(batches, &|b| key_arrays(b, keys), bytes, depth, &self.task)
    }

    fn take_results(&mut self) -> Result<ResultRows> {
        let merger = merger(&mut self.merger, &self.shape)?;
        let result = merger.take_results(&self.shape, self.is_first_partition)?;
        let cached = match &self.work {
            Work::Cached(parts) => parts.held.bytes(),
            Work::Whole(..) | Work::Done => 0,
        };
        self.reservation.resize_firm(0)?;
        // The results leave in a moment; there is nothing to be spilled of them.
        self.reservation.shrink(result.memory_bytes() + merger.memory_bytes() + cached);
        Ok(result)
    }
}

impl Source for FinalSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.result.next() {
                return Ok(Some(batch));
            }
            self.result = ResultRows::none();
            match self.advance()? {
                Some(result) => self.result = result,
                None => {
                    self.merger = None;
                    self.reservation.shrink(0);
                    return Ok(None);
                }
            }
        }
    }
}

impl CachedParts {
    fn push(&mut self, batch: Batch, ends: Vec<usize>) -> Result<()> {
        let columns = batch.columns.iter().map(Column::values).collect::<Result<_>>()?;
        self.held.add(&HeldRows::new(columns, batch.rows));
        self.batches.push((batch, ends));
        Ok(())
    }

    /// The rows of some parts, in each batch that has any.
    fn slices(
        &self,
        parts: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (&Batch, std::ops::Range<usize>)> {
        self.batches.iter().filter_map(move |(batch, ends)| {
            let start = if parts.start == 0 { 0 } else { ends[parts.start - 1] };
            let rows = start..ends[parts.end - 1];
            (!rows.is_empty()).then_some((batch, rows))
        })
    }
}

/// The merger there is, or a fresh one.
fn merger<'a>(merger: &'a mut Option<Merger>, shape: &Shape) -> Result<&'a mut Merger> {
    match merger {
        Some(merger) => Ok(merger),
        none => Ok(none.insert(Merger::new(shape)?)),
    }
}

fn key_arrays(batch: &Batch, keys: usize) -> Result<Vec<ArrayRef>> {
    batch.columns[..keys].iter().map(Column::values).collect()
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

    fn memory_bytes(&self) -> usize {
        let table = self.table.as_ref().map_or(0, GroupTable::memory_bytes);
        table + self.accumulators.iter().map(|a| a.memory_bytes()).sum::<usize>()
    }

    fn bytes_per_group(&self) -> usize {
        self.memory_bytes().div_ceil(self.groups().max(1))
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
