//! Merges sorted runs with a tree of losers.
//!
//! The tree tells the run whose next row is the smallest, and the second smallest. Everything in the
//! first run's batch that comes before the second run's next row is taken at once: a search with growing
//! steps finds its end. Long stretches go on as slices of their batch; short ones are interleaved into
//! batches of the usual size. Equal rows come in the order of the runs.
//!
//! Keys are made comparable across runs: as 64-bit numbers where there is one key of a narrow type, else in
//! Arrow's row format.

use std::cmp::Ordering;
use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use dovetail_planner::physical::{Sort, SortKey};

use super::argsort::unsortable;
use super::keys::{Codes, Key, codes};
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::{EngineError, Result};
use crate::expr::{CompiledExpr, compile};
use crate::operators::collect;
use crate::operators::limit::first_rows;
use crate::task::Source;

/// A stretch of one batch that is at least this long is not copied.
const SLICE_ROWS: usize = BATCH_ROWS / 4;

pub(super) fn source(sort: &Sort, schema: &SchemaRef, mut runs: Vec<Vec<Batch>>) -> Result<Box<dyn Source>> {
    for run in &mut runs {
        run.retain(|b| b.rows > 0);
    }
    runs.retain(|run| !run.is_empty());
    let fetch = sort.fetch.unwrap_or(u64::MAX);
    if runs.len() <= 1 {
        return Ok(collect::source(first_rows(runs.pop().unwrap_or_default(), fetch)));
    }
    unify(&mut runs, schema)?;
    match &sort.keys[..] {
        [key] if NumberKeys::take(&key.expr.data_type()) => {
            Ok(Box::new(Merge::new(NumberKeys::new(key)?, runs, fetch)?))
        }
        keys => Ok(Box::new(Merge::new(RowKeys::new(keys)?, runs, fetch)?)),
    }
}

/// Brings every column of all runs into one physical form, so that rows of different runs can be mixed.
fn unify(runs: &mut [Vec<Batch>], schema: &SchemaRef) -> Result<()> {
    for (position, field) in schema.fields().iter().enumerate() {
        let first = runs[0][0].columns[position].data_type().clone();
        let same = runs.iter().flatten().all(|b| *b.columns[position].data_type() == first);
        if same && !matches!(first, DataType::Dictionary(_, _)) {
            continue;
        }
        for batch in runs.iter_mut().flatten() {
            let column = &mut batch.columns[position];
            *column = Column::new(column.to_logical(field.data_type())?);
        }
    }
    Ok(())
}

/// How the keys of different runs are compared.
trait MergeKeys: Send {
    /// The keys of one batch.
    type Block: Send;

    fn block(&mut self, batch: &Batch) -> Result<Self::Block>;

    fn compare(left: &Self::Block, left_row: usize, right: &Self::Block, right_row: usize) -> Ordering;
}

/// One key of a type with 64-bit codes; the first number says where nulls stand.
struct NumberKeys {
    expr: CompiledExpr,
    data_type: DataType,
    descending: bool,
    nulls_first: bool,
}

impl NumberKeys {
    fn take(data_type: &DataType) -> bool {
        match data_type {
            DataType::Decimal128(precision, _) => *precision <= 18,
            DataType::Interval(_) | DataType::Null => false,
            other => other.is_numeric() || other.is_temporal() || *other == DataType::Boolean,
        }
    }

    fn new(key: &SortKey) -> Result<Self> {
        let (descending, nulls_first) = (key.descending, key.nulls_first);
        Ok(NumberKeys { expr: compile(&key.expr)?, data_type: key.expr.data_type(), descending, nulls_first })
    }
}

impl MergeKeys for NumberKeys {
    type Block = Vec<(bool, u64)>;

    fn block(&mut self, batch: &Batch) -> Result<Self::Block> {
        let values = self.expr.evaluate(batch)?.to_logical(&self.data_type)?;
        let key = Key::new(&values, self.descending, self.nulls_first)?;
        let codes: Vec<u64> = match codes(&key.array) {
            Codes::Narrow(codes) => codes,
            // At most 18 digits: the low half is the number, its sign bit turned for order.
            Codes::Wide(codes) => codes.into_iter().map(|c| c as u64 ^ (1 << 63)).collect(),
            Codes::Bytes | Codes::None => {
                return Err(EngineError::internal(format!("{} has no numbers", key.array.data_type())));
            }
        };
        let flip = if self.descending { u64::MAX } else { 0 };
        Ok(match key.nulls() {
            None => codes.into_iter().map(|code| (self.nulls_first, code ^ flip)).collect(),
            Some(nulls) => codes
                .into_iter()
                .zip(nulls.iter())
                .map(
                    |(code, valid)| {
                        if valid { (self.nulls_first, code ^ flip) } else { (!self.nulls_first, 0) }
                    },
                )
                .collect(),
        })
    }

    fn compare(left: &Self::Block, left_row: usize, right: &Self::Block, right_row: usize) -> Ordering {
        left[left_row].cmp(&right[right_row])
    }
}

/// Any keys, as byte strings.
struct RowKeys {
    keys: Vec<(CompiledExpr, SortKey)>,
    /// Made with the first batch, when the types of the comparable forms are known.
    converter: Option<RowConverter>,
}

impl RowKeys {
    fn new(keys: &[SortKey]) -> Result<Self> {
        let keys = keys.iter().map(|k| Ok((compile(&k.expr)?, k.clone()))).collect::<Result<_>>()?;
        Ok(RowKeys { keys, converter: None })
    }
}

impl MergeKeys for RowKeys {
    type Block = Rows;

    fn block(&mut self, batch: &Batch) -> Result<Rows> {
        let mut keys = vec![];
        for (expr, key) in &self.keys {
            let values = expr.evaluate(batch)?.to_logical(&key.expr.data_type())?;
            keys.extend(Key::new(&values, key.descending, key.nulls_first)?.flat());
        }
        let arrays: Vec<ArrayRef> = keys.iter().map(|k| k.array.clone()).collect();
        let converter = match &mut self.converter {
            Some(converter) => converter,
            None => {
                let field = |k: &Key| {
                    let options = SortOptions { descending: k.descending, nulls_first: k.nulls_first };
                    SortField::new_with_options(k.array.data_type().clone(), options)
                };
                let converter = RowConverter::new(keys.iter().map(field).collect());
                self.converter.insert(converter.map_err(|_| unsortable(&keys[0]))?)
            }
        };
        Ok(converter.convert_columns(&arrays)?)
    }

    fn compare(left: &Rows, left_row: usize, right: &Rows, right_row: usize) -> Ordering {
        left.row(left_row).cmp(&right.row(right_row))
    }
}

/// A run that is being read.
struct Run<K: MergeKeys> {
    batches: VecDeque<Batch>,
    /// None at the end of the run.
    head: Option<Head<K>>,
}

struct Head<K: MergeKeys> {
    batch: Batch,
    keys: K::Block,
    row: usize,
    /// The batch's position in [`Merge::mixed`].
    mixed: Option<usize>,
}

struct Merge<K: MergeKeys> {
    keys: K,
    runs: Vec<Run<K>>,
    /// `losers[0]` is the run with the smallest next row. Node `n` from 1 on holds the run that lost
    /// there; its children are nodes `2n` and `2n + 1`, and run `r` is the leaf `runs.len() + r`.
    losers: Vec<usize>,
    /// Rows still to come.
    left: u64,
    /// Batches of which rows are in `rows`.
    mixed: Vec<Batch>,
    /// `(position in mixed, row)` of what goes into the next interleaved batch.
    rows: Vec<(usize, usize)>,
    /// A slice that goes out behind the interleaved rows.
    slice: Option<Batch>,
}

impl<K: MergeKeys> Merge<K> {
    fn new(keys: K, runs: Vec<Vec<Batch>>, fetch: u64) -> Result<Self> {
        let runs: Vec<_> = runs.into_iter().map(|b| Run { batches: b.into(), head: None }).collect();
        let mut merge =
            Merge { keys, runs, losers: vec![], left: fetch, mixed: vec![], rows: vec![], slice: None };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        merge.losers = vec![0; merge.runs.len()];
        merge.losers[0] = merge.play(1);
        Ok(merge)
    }

    /// Reads the run's next batch.
    fn advance(&mut self, run: usize) -> Result<()> {
        let run = &mut self.runs[run];
        run.head = match run.batches.pop_front() {
            None => None,
            Some(batch) => Some(Head { keys: self.keys.block(&batch)?, batch, row: 0, mixed: None }),
        };
        Ok(())
    }

    /// The winner below a node; the loser stays in the node.
    fn play(&mut self, node: usize) -> usize {
        if node >= self.runs.len() {
            return node - self.runs.len();
        }
        let (left, right) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) = if self.before(left, right) { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    /// Plays the matches of the last winner's leaf again.
    fn replay(&mut self) {
        let mut winner = self.losers[0];
        let mut node = (self.runs.len() + winner) / 2;
        while node > 0 {
            if self.before(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
    }

    /// The run with the second smallest next row: it lost against the winner, so it stands on its path.
    fn second(&self) -> usize {
        let mut node = (self.runs.len() + self.losers[0]) / 2;
        let mut best = self.losers[node];
        while node > 1 {
            node /= 2;
            if self.before(self.losers[node], best) {
                best = self.losers[node];
            }
        }
        best
    }

    /// The next row of run `a` comes before that of run `b`.
    fn before(&self, a: usize, b: usize) -> bool {
        match (&self.runs[a].head, &self.runs[b].head) {
            (Some(x), Some(y)) => K::compare(&x.keys, x.row, &y.keys, y.row).then(a.cmp(&b)).is_lt(),
            (x, _) => x.is_some(),
        }
    }

    /// How many rows of the winner's batch come before the next row of all other runs; at least one.
    fn stretch(&self, winner: usize, head: &Head<K>) -> usize {
        let rest = head.batch.rows - head.row;
        let second = self.second();
        let Some(other) = &self.runs[second].head else { return rest };
        let comes_first = |row: usize| {
            let order = K::compare(&head.keys, head.row + row, &other.keys, other.row);
            order.then(winner.cmp(&second)).is_lt()
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

    /// Takes the next stretch of rows.
    fn step(&mut self) -> Result<()> {
        let winner = self.losers[0];
        let head =
            self.runs[winner].head.as_ref().expect("invariant: a winner has a row unless all are done");
        let start = head.row;
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        let rows = self.stretch(winner, head).min(wanted);
        let head = self.runs[winner].head.as_mut().expect("invariant: it was there just now");
        head.row += rows;
        if rows >= SLICE_ROWS {
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
            self.advance(winner)?;
        }
        self.replay();
        Ok(())
    }

    /// The rows that wait to be interleaved, as a batch.
    fn interleaved(&mut self) -> Result<Batch> {
        let rows = std::mem::take(&mut self.rows);
        let mixed = std::mem::take(&mut self.mixed);
        for head in self.runs.iter_mut().filter_map(|r| r.head.as_mut()) {
            head.mixed = None;
        }
        let columns = (0..mixed[0].columns.len())
            .map(|c| {
                let arrays = mixed.iter().map(|b| b.columns[c].values()).collect::<Result<Vec<_>>>()?;
                let arrays: Vec<&dyn Array> = arrays.iter().map(|a| a.as_ref()).collect();
                Ok(Column::new(interleave(&arrays, &rows)?))
            })
            .collect::<Result<_>>()?;
        Ok(Batch { columns, rows: rows.len() })
    }
}

impl<K: MergeKeys> Source for Merge<K> {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            let ended = self.left == 0 || self.runs[self.losers[0]].head.is_none();
            if !self.rows.is_empty() && (ended || self.slice.is_some() || self.rows.len() >= BATCH_ROWS) {
                return self.interleaved().map(Some);
            }
            if let Some(slice) = self.slice.take() {
                return Ok(Some(slice));
            }
            if ended {
                return Ok(None);
            }
            self.step()?;
        }
    }
}
