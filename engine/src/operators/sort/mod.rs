//! Sort: runs, a merge, and the top-k.
//!
//! ```text
//! task 1: batches ─▶ sorted run ─┐
//! task 2: batches ─▶ sorted run ─┼─▶ merge (one task) ─▶ batches in order
//! ```
//!
//! - [`keys`]: key columns as numbers in the order that SQL wants;
//! - [`argsort`]: row numbers in key order, from packed keys;
//! - [`run`]: the sink that sorts everything a task gets;
//! - [`topk`]: the sink that keeps a task's first rows, under a bound that the stage's tasks share;
//! - [`merge`]: the source that merges the runs.
//!
//! Order: as PostgreSQL's. NaN is the largest number, -0.0 equals 0.0, strings compare by bytes, intervals
//! by length with months of 30 days. Rows with equal keys keep their order within a run; in the
//! merge those of an earlier run come first.

pub mod argsort;
pub mod keys;
mod merge;
mod run;
mod topk;

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Sort, SortKey};

use self::argsort::sort_rows;
use self::keys::Key;
use super::collect::concat_any;
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::{EngineError, Result};
use crate::expr::{CompiledExpr, compile};
use crate::task::{SinkFactory, Source};

/// Makes sinks that leave one sorted run each, in partition 0 of the output; with `fetch`, its first rows.
pub fn sink_factory(sort: &Sort, input_schema: &SchemaRef) -> Result<Arc<dyn SinkFactory>> {
    SortKeys::new(&sort.keys, input_schema.fields().len())?; // refused before anything runs
    let width = input_schema.fields().len();
    Ok(match sort.fetch {
        Some(fetch) => topk::sink_factory(&sort.keys, width, fetch),
        None => run::sink_factory(&sort.keys, width),
    })
}

/// Merges sorted runs, and stops after `fetch` rows.
pub fn merge_source(sort: &Sort, schema: &SchemaRef, runs: Vec<Vec<Batch>>) -> Result<Box<dyn Source>> {
    merge::source(sort, schema, runs)
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

    /// Extended batches as one, sorted, cut off after `limit` rows. Column by column, so that no more than
    /// one column is in memory twice.
    fn sort(&self, extended: Vec<Batch>, limit: Option<usize>) -> Result<Batch> {
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
        let order = UInt32Array::from(order);
        let columns = pieces.into_iter().map(|pieces| {
            let joined = concat_any(&pieces)?;
            drop(pieces);
            Ok(Column::new(if unchanged { joined } else { take(&joined, &order, None)? }))
        });
        Ok(Batch { columns: columns.collect::<Result<_>>()?, rows: order.len() })
    }

    /// A sorted extended batch as a run: its own columns, in batches of the usual size.
    fn run_of(&self, mut sorted: Batch) -> Vec<Batch> {
        sorted.columns.truncate(self.width);
        (0..sorted.rows)
            .step_by(BATCH_ROWS)
            .map(|start| sorted.slice(start, BATCH_ROWS.min(sorted.rows - start)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
