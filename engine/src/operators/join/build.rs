//! The build side of a hash join: keeps the columns that are needed later, and at the end makes the
//! table.
//!
//! One task gets all rows. What takes long, grouping rows by key, works on arrays of codes and splits by
//! hash prefix or by code range, should several tasks share it one day.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{HashJoin, JoinKind};

use super::build_columns::{BuildColumns, check_rows, take_column};
use super::concat::concat;
use super::join_table::JoinTable;
use super::keys::{KeyCoder, KeyType};
use super::table::{KeyTable, NO_CODE};
use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::expr::{CompiledExpr, compile};
use crate::memory::HeldBatches;
use crate::scan::runtime_filter::RuntimeFilter;
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// For `planner::pipeline::Sink::JoinBuild`. The one task's [`Output::artifact`] is a [`JoinTable`].
pub fn build_sink_factory(join: &HashJoin, build_schema: &SchemaRef) -> Result<Arc<dyn SinkFactory>> {
    Ok(Arc::new(BuildFactory { join: join.clone(), schema: build_schema.clone() }))
}

struct BuildFactory {
    join: HashJoin,
    schema: SchemaRef,
}

impl SinkFactory for BuildFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        let mut kept = build_columns_read(&self.join, self.schema.fields().len());
        let mut keys = vec![];
        for (_, build) in &self.join.keys {
            keys.push(match build {
                Expr::Column { index, .. } => {
                    let place = kept.iter().position(|c| c == index).unwrap_or_else(|| {
                        kept.push(*index);
                        kept.len() - 1
                    });
                    Key::Kept(place)
                }
                computed => Key::Computed(compile(computed)?, computed.data_type()),
            });
        }
        let types = self.join.keys.iter().map(|(p, b)| KeyType::of_pair(&p.data_type(), &b.data_type()));
        Ok(Box::new(BuildSink {
            existence_only: is_existence_only(&self.join),
            null_equal: self.join.null_equal,
            runtime_filters: self.join.runtime_filters.clone(),
            schema: self.schema.clone(),
            types: types.collect::<Result<_>>()?,
            kept,
            keys,
            batches: vec![],
            rows: 0,
            held: HeldBatches::new(task, "the build side of a join"),
        }))
    }
}

/// Build columns that the output or the residual condition may read. Positions in the full row are not
/// looked at, because they count from the probe side, which is not known here; the planner prunes inputs.
fn build_columns_read(join: &HashJoin, build_width: usize) -> Vec<usize> {
    match join.kind {
        _ if is_existence_only(join) => vec![],
        JoinKind::BuildSemi | JoinKind::BuildAnti if join.residual.is_none() => {
            (0..build_width).filter(|c| join.output.contains(c)).collect()
        }
        _ => (0..build_width).collect(),
    }
}

/// The join asks whether a key is there, and for nothing else of the build side.
pub(super) fn is_existence_only(join: &HashJoin) -> bool {
    use JoinKind::*;
    matches!(join.kind, ProbeSemi | ProbeAnti | ProbeMark) && join.residual.is_none()
}

/// Where a key comes from.
enum Key {
    /// A column of the batches kept.
    Kept(usize),
    /// An expression over the build side, and its type; kept after the columns.
    Computed(CompiledExpr, DataType),
}

struct BuildSink {
    existence_only: bool,
    null_equal: bool,
    /// `(filter number, key)`.
    runtime_filters: Vec<(u32, usize)>,
    schema: SchemaRef,
    types: Vec<KeyType>,
    /// Build columns in the batches kept.
    kept: Vec<usize>,
    keys: Vec<Key>,
    /// The columns kept, then the computed keys.
    batches: Vec<Batch>,
    rows: usize,
    held: HeldBatches,
}

impl Sink for BuildSink {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        self.rows += batch.rows;
        check_rows(self.rows)?;
        let mut columns = vec![];
        for &column in &self.kept {
            columns.push(until_finish(&batch.columns[column])?);
        }
        for key in &self.keys {
            if let Key::Computed(expr, _) = key {
                columns.push(Column::new(expr.evaluate(&batch)?.values()?));
            }
        }
        let batch = Batch { columns, rows: batch.rows };
        self.held.add(&batch)?;
        self.batches.push(batch);
        Ok(Flow::Continue)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        let mut keys = self.computed_keys()?;
        let batches = std::mem::take(&mut self.batches);
        let columns = BuildColumns::concat(batches, &self.kept, &self.schema)?;
        for (key, array) in self.keys.iter().zip(&mut keys) {
            if let Key::Kept(place) = key {
                *array = columns.array(self.kept[*place]).map(|a| a.slice(0, columns.rows()));
            }
        }
        let keys: Vec<ArrayRef> =
            keys.into_iter().map(|k| k.expect("invariant: a key is kept or computed")).collect();
        let (coder, codes) = KeyCoder::build(&keys, &self.types, self.rows, self.null_equal)?;
        let table = KeyTable::build(&codes, coder.domain(), self.existence_only);
        let has_null_key = keys.iter().any(|k| k.logical_null_count() > 0);
        let has_codes = codes.iter().any(|&c| c != NO_CODE);
        let nulls_match = self.null_equal && has_null_key;
        let filters = self.runtime_filters.iter().filter(|_| !nulls_match);
        let runtime_filters = filters
            .map(|&(id, key)| (id, Arc::new(RuntimeFilter::build(std::slice::from_ref(&keys[key])))))
            .collect();
        let columns = Arc::new(columns);
        let table = JoinTable { coder, table, columns, has_null_key, has_codes, runtime_filters };
        let memory = Some(self.held.become_bytes(table.memory_bytes())?);
        Ok(Output { artifact: Some(Arc::new(table)), memory, ..Output::default() })
    }
}

/// The column as it may wait: gathered only if that frees a much larger array.
fn until_finish(column: &Column) -> Result<Column> {
    const ROWS_HELD_PER_ROW: usize = 4;
    match column.base().len() > ROWS_HELD_PER_ROW * column.len() {
        true => Ok(Column::new(column.values()?)),
        false => Ok(column.clone()),
    }
}

impl BuildSink {
    /// Computed keys of all rows; nothing in the places of the others.
    fn computed_keys(&mut self) -> Result<Vec<Option<ArrayRef>>> {
        let mut next = self.kept.len();
        let mut keys = vec![];
        for key in &self.keys {
            keys.push(match key {
                Key::Kept(_) => None,
                Key::Computed(_, data_type) => {
                    next += 1;
                    Some(match self.rows {
                        0 => new_empty_array(data_type),
                        _ => concat(&take_column(&mut self.batches, next - 1), data_type)?,
                    })
                }
            });
        }
        Ok(keys)
    }
}
