//! Merges sorted runs with a tree of losers.
//!
//! A run is read one batch at a time, and its keys are computed as it is read. Rows are taken one by one, and
//! interleaved into batches. A run that has won some times in a row is likely to win more:
//! then everything in its batch that comes before the second run's next row is taken at once, found by a
//! search with growing steps; a long stretch goes on as a slice of its batch. Equal rows come in the order of
//! the runs.
//!
//! If there are more runs than memory has room for a block of each, neighbouring runs are merged into one on
//! disk first, those with the fewest rows, until there are few enough.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::physical::Sort;

use super::common_type;
use super::comparable::{ComparableKeys, MergeKeys};
use super::sorted_run::{RunReader, RunWriter, SortedRun, batch_rows, block_bytes};
use super::tree::LoserTree;
use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::memory::Reservation;
use crate::task::{Source, TaskContext};

/// A stretch of one batch that has at least this part of the rows that go out at once is not copied.
const SLICE_PART: usize = 4;
/// A run that gave so many rows in succession is searched for more of them.
const STREAK_ROWS: usize = 16;
/// What a run that is being merged holds, in blocks: one as it was read, perhaps larger than others, and its
/// keys.
const RUN_BLOCKS: usize = 4;
/// The most runs that are merged at once: each may have a file open.
const FAN_IN_MAX: usize = 128;

pub(super) fn source(
    sort: &Sort,
    schema: &SchemaRef,
    runs: Vec<Arc<SortedRun>>,
    task: &TaskContext,
) -> Result<Box<dyn Source>> {
    MergeKeys::new(&sort.keys)?; // refused before anything runs
    let (sort, schema, task) = (sort.clone(), schema.clone(), task.clone());
    Ok(Box::new(SortMerge { passes: Passes { sort, schema, task }, runs, output: None }))
}

/// The merge of all runs, with as many passes as it takes. The work is done when batches are asked for.
struct SortMerge {
    passes: Passes,
    runs: Vec<Arc<SortedRun>>,
    output: Option<Merged>,
}

enum Merged {
    /// A run alone, and how many of its rows are still wanted.
    Run(RunReader, u64),
    Runs(Box<Merge>),
}

impl Source for SortMerge {
    fn next(&mut self) -> Result<Option<Batch>> {
        let output = match &mut self.output {
            Some(output) => output,
            None if self.runs.is_empty() => return Ok(None),
            none => {
                let runs = self.passes.reduce(std::mem::take(&mut self.runs))?;
                none.insert(self.passes.merge(runs)?)
            }
        };
        output.next()
    }
}

impl Merged {
    fn next(&mut self) -> Result<Option<Batch>> {
        match self {
            Merged::Runs(merge) => merge.next(),
            Merged::Run(_, 0) => Ok(None),
            Merged::Run(reader, left) => Ok(reader.next()?.map(|(batch, _)| {
                let rows = usize::try_from(*left).unwrap_or(usize::MAX).min(batch.rows);
                *left -= rows as u64;
                if rows < batch.rows { batch.slice(0, rows) } else { batch }
            })),
        }
    }
}

/// What all passes share.
struct Passes {
    sort: Sort,
    schema: SchemaRef,
    task: TaskContext,
}

impl Passes {
    /// As many runs as can be merged at once, in the order of those that they were merged from.
    fn reduce(&self, mut runs: Vec<Arc<SortedRun>>) -> Result<Vec<Arc<SortedRun>>> {
        loop {
            let fan_in = self.fan_in();
            if runs.len() <= fan_in {
                return Ok(runs);
            }
            let count = fan_in.min(runs.len() - fan_in + 1);
            let rows = |start: &usize| runs[*start..start + count].iter().map(|r| r.rows()).sum::<u64>();
            let start = (0..=runs.len() - count).min_by_key(rows).unwrap_or(0);
            let mut merged = self.merge(runs.splice(start..start + count, []).collect())?;
            let mut writer = RunWriter::new(&self.task);
            while let Some(batch) = merged.next()? {
                self.task.query.check_cancelled()?;
                writer.push(&batch)?;
            }
            drop(merged);
            runs.splice(start..start, writer.finish()?);
        }
    }

    /// How many runs half of what an operator may hold has room for.
    fn fan_in(&self) -> usize {
        let memory = &self.task.query.memory;
        let room = memory.fair_share_bytes() / 2;
        (room / (RUN_BLOCKS * block_bytes(memory))).clamp(2, FAN_IN_MAX)
    }

    fn merge(&self, mut runs: Vec<Arc<SortedRun>>) -> Result<Merged> {
        let fetch = self.sort.fetch.unwrap_or(u64::MAX);
        if let [_] = &runs[..]
            && let Some(run) = runs.pop()
        {
            return Ok(Merged::Run(RunReader::new(run), fetch));
        }
        let types = common_types(&runs, &self.schema);
        let reservation = self.task.query.memory.reserve("a sort");
        let keys = MergeKeys::new(&self.sort.keys)?;
        Ok(Merged::Runs(Box::new(Merge::new(keys, types, runs, fetch, reservation)?)))
    }
}

/// The physical type of each column into which all runs are brought.
fn common_types(runs: &[Arc<SortedRun>], schema: &SchemaRef) -> Vec<DataType> {
    let columns = schema.fields().iter().enumerate();
    let common = columns.map(|(position, field)| {
        common_type(runs.iter().map(|run| &run.types()[position]), field.data_type()).clone()
    });
    common.collect()
}

/// A merge of runs that all have a batch in memory.
struct Merge {
    keys: MergeKeys,
    /// The physical types of the columns.
    types: Vec<DataType>,
    inputs: Vec<Input>,
    tree: LoserTree,
    /// How many rows the first run has given in succession.
    streak: usize,
    /// Rows still to come.
    left: u64,
    /// Batches of which rows are in `rows`.
    mixed: Vec<Batch>,
    /// `(position in mixed, row)` of what goes into the next interleaved batch.
    rows: Vec<(usize, usize)>,
    /// Rows of such a batch.
    batch_rows: usize,
    /// A slice that goes out behind the interleaved rows.
    slice: Option<Batch>,
    /// For the batches that are being read, and their keys.
    reservation: Reservation,
}

/// A run that is being read.
struct Input {
    reader: RunReader,
    /// None at the end of the run.
    head: Option<Head>,
}

struct Head {
    batch: Batch,
    keys: ComparableKeys,
    row: usize,
    /// The batch's position in [`Merge::mixed`].
    mixed: Option<usize>,
    memory_bytes: usize,
}

/// Compares the next rows of two runs whose prefixes are equal.
fn ties(inputs: &[Input]) -> impl Fn(usize, usize) -> Ordering {
    |a, b| match (&inputs[a].head, &inputs[b].head) {
        (Some(x), Some(y)) => x.keys.compare_rest(x.row, &y.keys, y.row),
        _ => Ordering::Equal,
    }
}

impl Merge {
    fn new(
        mut keys: MergeKeys,
        types: Vec<DataType>,
        runs: Vec<Arc<SortedRun>>,
        fetch: u64,
        mut reservation: Reservation,
    ) -> Result<Self> {
        let mut inputs = vec![];
        for run in runs {
            let mut input = Input { reader: RunReader::new(run), head: None };
            input.advance(&mut keys, &types, &mut reservation)?;
            inputs.push(input);
        }
        let firsts = inputs.iter().map(Input::prefix).collect();
        let tree = LoserTree::new(firsts, &ties(&inputs));
        let batch_rows = batch_rows(reservation.governor());
        let (mixed, rows, slice) = (vec![], Vec::with_capacity(batch_rows), None);
        let (streak, left) = (0, fetch);
        Ok(Merge { keys, types, inputs, tree, streak, left, mixed, rows, batch_rows, slice, reservation })
    }

    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            let first = self.tree.first().filter(|_| self.left > 0);
            if !self.rows.is_empty()
                && (first.is_none() || self.slice.is_some() || self.rows.len() >= self.batch_rows)
            {
                return self.interleaved().map(Some);
            }
            if let Some(slice) = self.slice.take() {
                return Ok(Some(slice));
            }
            match first {
                Some(first) => self.step(first)?,
                None => return Ok(None),
            }
        }
    }

    /// Takes the next row, or a stretch of them, from the run whose turn it is.
    fn step(&mut self, first: usize) -> Result<()> {
        let mut rows = 1;
        if self.streak >= STREAK_ROWS {
            let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
            rows = self.stretch(first).min(wanted);
        }
        let input = &mut self.inputs[first];
        let head = input.head.as_mut().expect("invariant: the first run has a row");
        let start = head.row;
        head.row += rows;
        if rows >= self.batch_rows / SLICE_PART {
            self.slice = Some(head.batch.slice(start, rows));
        } else {
            let mixed = *head.mixed.get_or_insert_with(|| {
                self.mixed.push(head.batch.clone());
                self.mixed.len() - 1
            });
            self.rows.extend((start..start + rows).map(|row| (mixed, row)));
        }
        self.left -= rows as u64;
        if head.row == head.batch.rows {
            input.advance(&mut self.keys, &self.types, &mut self.reservation)?;
        }
        let prefix = input.prefix();
        self.tree.replace_first(prefix, &ties(&self.inputs));
        self.streak = if self.tree.first() == Some(first) { self.streak + rows } else { 0 };
        Ok(())
    }

    /// How many rows of the first run's batch come before the next row of all others; at least one.
    fn stretch(&self, first: usize) -> usize {
        let head = self.inputs[first].head.as_ref().expect("invariant: the first run has a row");
        let rest = head.batch.rows - head.row;
        let second = self.tree.second(&ties(&self.inputs));
        let Some((second, other)) = second.and_then(|s| Some((s, self.inputs[s].head.as_ref()?))) else {
            return rest;
        };
        let comes_first = |row: usize| {
            let order = head.keys.compare(head.row + row, &other.keys, other.row);
            order.then(first.cmp(&second)).is_lt()
        };
        // Row 0 comes first: double the step until a row does not, then halve.
        let (mut inside, mut step) = (0, 1);
        while inside + step < rest && comes_first(inside + step) {
            inside += step;
            step *= 2;
        }
        let mut outside = rest.min(inside + step);
        while outside - inside > 1 {
            let middle = inside + (outside - inside) / 2;
            if comes_first(middle) { inside = middle } else { outside = middle }
        }
        outside
    }

    /// The rows that wait to be interleaved, as a batch.
    fn interleaved(&mut self) -> Result<Batch> {
        let mixed = std::mem::take(&mut self.mixed);
        for head in self.inputs.iter_mut().filter_map(|r| r.head.as_mut()) {
            head.mixed = None;
        }
        let columns = (0..self.types.len())
            .map(|c| {
                let arrays = mixed.iter().map(|b| b.columns[c].values()).collect::<Result<Vec<_>>>()?;
                let arrays: Vec<&dyn Array> = arrays.iter().map(|a| a.as_ref()).collect();
                Ok(Column::new(interleave(&arrays, &self.rows)?))
            })
            .collect::<Result<_>>()?;
        let batch = Batch { columns, rows: self.rows.len() };
        self.rows.clear();
        Ok(batch)
    }
}

impl Input {
    /// Reads the run's next batch.
    fn advance(
        &mut self,
        keys: &mut MergeKeys,
        types: &[DataType],
        reservation: &mut Reservation,
    ) -> Result<()> {
        let before = self.head.take().map_or(0, |head| head.memory_bytes);
        let mut after = 0;
        if let Some((mut batch, bytes)) = self.reader.next()? {
            for (column, data_type) in batch.columns.iter_mut().zip(types) {
                *column = Column::new(column.to_logical(data_type)?);
            }
            let keys = keys.of(&batch)?;
            after = bytes + keys.memory_bytes();
            self.head = Some(Head { batch, keys, row: 0, mixed: None, memory_bytes: after });
        }
        reservation.resize_firm(reservation.firm_bytes() - before + after)
    }

    /// The first bytes of the next row's keys.
    fn prefix(&self) -> Option<u128> {
        self.head.as_ref().map(|head| head.keys.prefix(head.row))
    }
}
