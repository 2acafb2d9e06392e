//! Sort: runs, a merge, and the top-k.
//!
//! ```text
//! task 1: batches ─▶ sorted runs ─┐
//! task 2: batches ─▶ sorted runs ─┼─▶ merge (one task) ─▶ batches in order
//! ```
//!
//! - [`keys`]: key columns as numbers in the order that SQL wants;
//! - [`argsort`]: row numbers in key order, from packed keys;
//! - [`sorted_run`]: rows in order, in memory or on disk;
//! - [`run`]: the sink that sorts everything a task gets, in one run or, when memory is short, in several;
//! - [`topk`]: the sink that keeps a task's first rows, under a bound that the stage's tasks share;
//! - [`merge`]: the source that merges the runs, over [`tree`] and [`comparable`].
//!
//! Order: as PostgreSQL's. NaN is the largest number, -0.0 equals 0.0, strings compare by bytes, intervals
//! by length with months of 30 days. Rows with equal keys keep their order within a run; in the
//! merge those of an earlier run come first.

pub mod argsort;
mod comparable;
pub mod keys;
mod merge;
mod run;
mod sorted_run;
mod topk;
mod tree;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Sort, SortKey};

use self::argsort::sort_rows;
use self::keys::Key;
use super::collect::concat_any;
use crate::batch::{Batch, Column, to_logical};
use crate::error::{EngineError, Result};
use crate::expr::{CompiledExpr, compile};
use crate::task::{SinkFactory, Source, TaskContext};

pub use self::sorted_run::SortedRun;

/// A run has no more rows: they have numbers of 32 bits.
const SORT_ROWS_MAX: usize = 1 << 31;

/// Makes sinks that leave sorted runs; with `fetch`, of that many rows at most.
pub fn sink_factory(sort: &Sort, input_schema: &SchemaRef) -> Result<Arc<dyn SinkFactory>> {
    SortKeys::new(&sort.keys, input_schema)?; // refused before anything runs
    Ok(match sort.fetch {
        Some(fetch) => topk::sink_factory(&sort.keys, input_schema, fetch),
        None => run::sink_factory(&sort.keys, input_schema),
    })
}

/// Merges sorted runs, and stops after `fetch` rows.
pub fn merge_source(
    sort: &Sort,
    schema: &SchemaRef,
    runs: Vec<Arc<SortedRun>>,
    task: &TaskContext,
) -> Result<Box<dyn Source>> {
    merge::source(sort, schema, runs, task)
}

/// Sorts rows of one task within another operator.
pub(super) struct ExternalSort {
    sorter: run::RunSorter,
    sort: Sort,
    schema: SchemaRef,
    task: TaskContext,
}

impl ExternalSort {
    pub(super) fn new(sort: &Sort, schema: &SchemaRef, task: &TaskContext) -> Result<Self> {
        let keys = SortKeys::new(&sort.keys, schema)?;
        let (sort, schema, task) = (sort.clone(), schema.clone(), task.clone());
        Ok(ExternalSort { sorter: run::RunSorter::new(keys, &task), sort, schema, task })
    }

    pub(super) fn push(&mut self, batch: &Batch) -> Result<()> {
        self.sorter.add(batch)
    }

    /// The rows in order.
    pub(super) fn finish(self) -> Result<Box<dyn Source>> {
        merge_source(&self.sort, &self.schema, self.sorter.into_runs()?, &self.task)
    }
}

/// Sort keys over an input, compiled. Keys that are not plain columns are computed once, when a batch
/// arrives, and travel behind its `width` own columns; the batch is then called extended.
struct SortKeys {
    width: usize,
    keys: Vec<CompiledKey>,
    /// The logical types of an extended batch.
    types: Vec<DataType>,
}

struct CompiledKey {
    expr: CompiledExpr,
    /// Position in the extended batch.
    position: usize,
    descending: bool,
    nulls_first: bool,
}

impl SortKeys {
    fn new(keys: &[SortKey], schema: &SchemaRef) -> Result<Self> {
        let mut types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let width = types.len();
        let keys = keys
            .iter()
            .map(|key| {
                let position = match key.expr {
                    Expr::Column { index, .. } => index,
                    _ => {
                        types.push(key.expr.data_type());
                        types.len() - 1
                    }
                };
                let expr = compile(&key.expr)?;
                Ok(CompiledKey { expr, position, descending: key.descending, nulls_first: key.nulls_first })
            })
            .collect::<Result<_>>()?;
        Ok(SortKeys { width, keys, types })
    }

    /// The batch with its computed keys behind its columns.
    fn extend(&self, batch: &Batch) -> Result<Batch> {
        let mut extended = batch.clone();
        for key in &self.keys {
            if key.position >= self.width {
                extended.columns.push(key.expr.evaluate(batch)?);
            }
        }
        Ok(extended)
    }

    /// Key columns of an extended batch, ready for comparison, one a key.
    fn of(&self, extended: &Batch) -> Result<Vec<Key>> {
        self.keys
            .iter()
            .map(|k| Key::new(&extended.columns[k.position].values()?, k.descending, k.nulls_first))
            .collect()
    }

    /// The first rows of an extended batch in the order of the keys.
    fn order(&self, extended: &Batch, limit: Option<usize>) -> Result<Vec<u32>> {
        let keys: Vec<Key> = self.of(extended)?.into_iter().flat_map(Key::flat).collect();
        sort_rows(&keys, extended.rows, limit)
    }

    /// The rows of extended batches in order, cut off after `limit` rows.
    fn sort(&self, extended: Vec<Batch>, limit: Option<usize>) -> Result<Sorted> {
        let rows: usize = extended.iter().map(|b| b.rows).sum();
        if u32::try_from(rows).is_err() {
            return Err(EngineError::Resources(format!(
                "one task would have to sort {rows} rows, more than 4,294,967,295; use more partitions"
            )));
        }
        let mut starts = Starts::default();
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(extended.len()); self.types.len()];
        for batch in extended {
            starts.push(batch.rows);
            for (pieces, column) in pieces.iter_mut().zip(&batch.columns) {
                pieces.push(column.values()?);
            }
        }
        for (pieces, logical) in pieces.iter_mut().zip(&self.types) {
            make_uniform(pieces, logical)?;
        }
        let mut keys = vec![];
        for key in &self.keys {
            let joined = concat_any(&pieces[key.position])?;
            keys.extend(Key::new(&joined, key.descending, key.nulls_first)?.flat());
        }
        let order = sort_rows(&keys, rows, limit)?;
        let unchanged = order.iter().enumerate().all(|(i, &row)| i as u32 == row);
        let rows = order.len();
        Ok(Sorted { pieces, starts, order: (!unchanged).then_some(order), rows })
    }
}

/// Brings pieces of one column into one physical form: that which they have, dictionaries apart, else the
/// logical one.
fn make_uniform(pieces: &mut [ArrayRef], logical: &DataType) -> Result<()> {
    let common = common_type(pieces.iter().map(|piece| piece.data_type()), logical).clone();
    for piece in pieces {
        *piece = to_logical(piece, &common)?;
    }
    Ok(())
}

/// The physical type into which columns of these types are brought, so that their rows can be mixed.
fn common_type<'a>(mut types: impl Iterator<Item = &'a DataType>, logical: &'a DataType) -> &'a DataType {
    fn plain(data_type: &DataType) -> &DataType {
        match data_type {
            DataType::Dictionary(_, values) => values,
            other => other,
        }
    }
    types.next().map(plain).filter(|first| types.all(|t| plain(t) == *first)).unwrap_or(logical)
}

/// What the sort of a row of such a batch needs beside the row: its packed keys, which are there twice for a
/// moment, once with its number, and each key as it is and as a code. Dictionaries become plain.
pub(super) fn sort_row_bytes(extended: &Batch, keys: usize) -> usize {
    let plain = extended.columns.iter().filter_map(|column| match column.data_type() {
        DataType::Dictionary(_, values) => Some(values.primitive_width().unwrap_or(size_of::<u128>())),
        _ => None,
    });
    3 * size_of::<u128>() + 2 * size_of::<u64>() * keys + plain.sum::<usize>()
}

/// Rows in order, not gathered yet.
struct Sorted {
    /// Each column as it came, in pieces of one type.
    pieces: Vec<Vec<ArrayRef>>,
    starts: Starts,
    /// Row numbers over all pieces; none: the rows are in order as they are.
    order: Option<Vec<u32>>,
    rows: usize,
}

impl Sorted {
    /// The first columns only.
    fn cut_to(mut self, width: usize) -> Self {
        self.pieces.truncate(width);
        self
    }

    /// Rows of a range, gathered.
    fn batch(&self, start: usize, rows: usize) -> Result<Batch> {
        let places: Vec<(usize, usize)> = match &self.order {
            Some(order) => {
                order[start..start + rows].iter().map(|&row| self.starts.place(row as usize)).collect()
            }
            None => (start..start + rows).map(|row| self.starts.place(row)).collect(),
        };
        let columns = self.pieces.iter().map(|pieces| {
            let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
            Ok(Column::new(interleave(&pieces, &places)?))
        });
        Ok(Batch { columns: columns.collect::<Result<_>>()?, rows })
    }

    /// All rows, in batches of a number of rows.
    fn batches(&self, batch_rows: usize) -> impl Iterator<Item = Result<Batch>> {
        let starts = (0..self.rows).step_by(batch_rows);
        starts.map(move |start| self.batch(start, batch_rows.min(self.rows - start)))
    }
}

/// Where pieces start among the rows of all of them.
#[derive(Default)]
struct Starts {
    /// The first row of each piece.
    firsts: Vec<usize>,
    rows: usize,
    /// The piece of every so many rows' first.
    pieces: Vec<usize>,
}

impl Starts {
    const STEP: usize = 4096;

    /// Adds a piece of some rows at the end.
    fn push(&mut self, rows: usize) {
        self.firsts.push(self.rows);
        self.rows += rows;
        self.pieces.resize(self.rows.div_ceil(Self::STEP), self.firsts.len() - 1);
    }

    /// The piece of a row, and its number there.
    fn place(&self, row: usize) -> (usize, usize) {
        let mut piece = self.pieces[row / Self::STEP];
        while self.firsts.get(piece + 1).is_some_and(|&first| first <= row) {
            piece += 1;
        }
        (piece, row - self.firsts[piece])
    }
}

#[cfg(test)]
mod tests;
