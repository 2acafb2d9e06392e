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

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Sort, SortKey};

use self::argsort::sort_rows;
use self::keys::Key;
use super::collect::concat_any;
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::expr::{CompiledExpr, compile};
use crate::task::{SinkFactory, Source, TaskContext};

pub use self::sorted_run::SortedRun;

/// A run has no more rows: they have numbers of 32 bits.
const SORT_ROWS_MAX: usize = 1 << 31;

/// What the sort of a row needs beside the row: two words of 16 bytes with its number, and its keys as codes.
/// Afterwards there is a copy of one column instead.
const SORT_ROW_BYTES: usize = 48;

/// Makes sinks that leave sorted runs; with `fetch`, of that many rows at most.
pub fn sink_factory(sort: &Sort, input_schema: &SchemaRef) -> Result<Arc<dyn SinkFactory>> {
    SortKeys::new(&sort.keys, input_schema.fields().len())?; // refused before anything runs
    let width = input_schema.fields().len();
    Ok(match sort.fetch {
        Some(fetch) => topk::sink_factory(&sort.keys, width, fetch),
        None => run::sink_factory(&sort.keys, width),
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
        let keys = SortKeys::new(&sort.keys, schema.fields().len())?;
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
}

struct CompiledKey {
    expr: CompiledExpr,
    /// Position in the extended batch.
    position: usize,
    descending: bool,
    nulls_first: bool,
}

impl SortKeys {
    fn new(keys: &[SortKey], width: usize) -> Result<Self> {
        let mut next = width;
        let keys = keys
            .iter()
            .map(|key| {
                let position = match key.expr {
                    Expr::Column { index, .. } => index,
                    _ => {
                        next += 1;
                        next - 1
                    }
                };
                let expr = compile(&key.expr)?;
                Ok(CompiledKey { expr, position, descending: key.descending, nulls_first: key.nulls_first })
            })
            .collect::<Result<_>>()?;
        Ok(SortKeys { width, keys })
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

    /// Extended batches as one, in order, cut off after `limit` rows.
    fn sort(&self, extended: Vec<Batch>, limit: Option<usize>) -> Result<Sorted> {
        let rows: usize = extended.iter().map(|b| b.rows).sum();
        if u32::try_from(rows).is_err() {
            return Err(EngineError::Resources(format!(
                "one task would have to sort {rows} rows, more than 4,294,967,295; use more partitions"
            )));
        }
        let width = extended.first().map_or(0, |b| b.columns.len());
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(extended.len()); width];
        for batch in extended {
            for (pieces, column) in pieces.iter_mut().zip(&batch.columns) {
                pieces.push(column.values()?);
            }
        }
        let mut keys = vec![];
        for key in &self.keys {
            let pieces = &mut pieces[key.position];
            let joined = concat_any(pieces)?;
            *pieces = vec![joined.clone()];
            keys.extend(Key::new(&joined, key.descending, key.nulls_first)?.flat());
        }
        let order = sort_rows(&keys, rows, limit)?;
        drop(keys);
        let unchanged = order.len() == rows && order.iter().enumerate().all(|(i, &row)| i as u32 == row);
        // Column by column, so that no more than one is in memory twice.
        let columns = pieces.into_iter().map(|pieces| concat_any(&pieces)).collect::<Result<_>>()?;
        let rows = order.len();
        Ok(Sorted { columns, order: (!unchanged).then(|| UInt32Array::from(order)), rows })
    }
}

/// What the sort of a row of such a batch needs beside the row. Dictionaries become plain.
pub(super) fn sort_row_bytes(extended: &Batch) -> usize {
    let plain = extended.columns.iter().filter_map(|column| match column.data_type() {
        DataType::Dictionary(_, values) => Some(values.primitive_width().unwrap_or(size_of::<u128>())),
        _ => None,
    });
    SORT_ROW_BYTES + plain.sum::<usize>()
}

/// Rows in order, not gathered yet.
struct Sorted {
    columns: Vec<ArrayRef>,
    /// Row numbers; none: the rows are in order as they are.
    order: Option<UInt32Array>,
    rows: usize,
}

impl Sorted {
    /// The first columns only.
    fn cut_to(mut self, width: usize) -> Self {
        self.columns.truncate(width);
        self
    }

    /// Rows of a range.
    fn batch(&self, start: usize, rows: usize) -> Result<Batch> {
        let columns = self.columns.iter().map(|column| self.gather(column, start, rows));
        Ok(Batch { columns: columns.collect::<Result<_>>()?, rows })
    }

    /// All rows, in one batch. Column by column, so that no more than one is in memory twice.
    fn into_batch(mut self) -> Result<Batch> {
        let columns = std::mem::take(&mut self.columns).into_iter();
        let columns = columns.map(|column| self.gather(&column, 0, self.rows)).collect::<Result<_>>()?;
        Ok(Batch { columns, rows: self.rows })
    }

    /// All rows, in batches of `batch_rows`. Column by column too.
    fn into_batches(mut self, batch_rows: usize) -> Result<Vec<Batch>> {
        let sizes = (0..self.rows).step_by(batch_rows).map(|start| batch_rows.min(self.rows - start));
        let mut batches: Vec<Batch> = sizes.map(|rows| Batch { columns: vec![], rows }).collect();
        for column in std::mem::take(&mut self.columns) {
            for (batch, start) in batches.iter_mut().zip((0..).step_by(batch_rows)) {
                batch.columns.push(self.gather(&column, start, batch.rows)?);
            }
        }
        Ok(batches)
    }

    fn gather(&self, column: &ArrayRef, start: usize, rows: usize) -> Result<Column> {
        Ok(Column::new(match &self.order {
            Some(order) => take(column, &order.slice(start, rows), None)?,
            None => column.slice(start, rows),
        }))
    }
}

#[cfg(test)]
mod tests;
