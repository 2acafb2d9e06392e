//! What a hash join keeps of its build side.
//!
//! A kept batch has the columns that are read later, then the keys that had to be computed. All that waits
//! for the table, in memory or on disk, has this form.

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
use crate::scan::runtime_filter::RuntimeFilter;

/// Which columns and keys are kept, and what is made of them.
pub struct BuildShape {
    existence_only: bool,
    null_equal: bool,
    /// `(filter number, key)`.
    runtime_filters: Vec<(u32, usize)>,
    schema: SchemaRef,
    types: Vec<KeyType>,
    /// Build columns in a kept batch.
    kept: Vec<usize>,
    keys: Vec<Key>,
    is_partitionable: bool,
}

/// Where a key comes from.
enum Key {
    /// A column of the kept batches.
    Kept(usize),
    /// An expression over the build side, and its type; kept after the columns.
    Computed(Expr, DataType),
}

/// Makes kept batches. Of one task.
pub struct Keeper {
    kept: Vec<usize>,
    computed: Vec<CompiledExpr>,
}

impl BuildShape {
    pub fn new(join: &HashJoin, schema: &SchemaRef) -> Result<Self> {
        let mut kept = build_columns_read(join, schema.fields().len());
        let mut keys = vec![];
        for (_, build) in &join.keys {
            keys.push(match build {
                Expr::Column { index, .. } => {
                    let place = kept.iter().position(|c| c == index).unwrap_or_else(|| {
                        kept.push(*index);
                        kept.len() - 1
                    });
                    Key::Kept(place)
                }
                computed => Key::Computed(computed.clone(), computed.data_type()),
            });
        }
        let types = join.keys.iter().map(|(p, b)| KeyType::of_pair(&p.data_type(), &b.data_type()));
        Ok(BuildShape {
            existence_only: is_existence_only(join),
            null_equal: join.null_equal,
            runtime_filters: join.runtime_filters.clone(),
            schema: schema.clone(),
            types: types.collect::<Result<_>>()?,
            kept,
            keys,
            // NOT IN asks whether the whole build side has a null, or is empty; its table holds keys only.
            is_partitionable: !join.keys.is_empty() && !join.null_aware,
        })
    }

    /// Rows with equal keys can be joined apart from all others.
    pub fn is_partitionable(&self) -> bool {
        self.is_partitionable
    }

    pub fn keeper(&self) -> Result<Keeper> {
        let computed = self.keys.iter().filter_map(|k| match k {
            Key::Kept(_) => None,
            Key::Computed(expr, _) => Some(compile(expr)),
        });
        Ok(Keeper { kept: self.kept.clone(), computed: computed.collect::<Result<_>>()? })
    }

    /// The key columns of a kept batch.
    pub fn keys(&self, batch: &Batch) -> Result<Vec<ArrayRef>> {
        let mut next = self.kept.len();
        let place = |key: &Key| match key {
            Key::Kept(place) => *place,
            Key::Computed(..) => {
                next += 1;
                next - 1
            }
        };
        let places: Vec<usize> = self.keys.iter().map(place).collect();
        places.into_iter().map(|place| batch.columns[place].values()).collect()
    }

    /// About the memory of a table of kept batches, while it is made, bytes.
    pub fn table_bytes(&self, kept_bytes: usize, rows: usize) -> usize {
        /// Codes, and the largest index.
        const ROW_BYTES: usize = 24;
        kept_bytes + kept_bytes / 4 + rows * ROW_BYTES
    }

    /// The table of kept batches. With `publishes`, with the filters that the join publishes.
    pub fn table(&self, mut batches: Vec<Batch>, publishes: bool) -> Result<JoinTable> {
        batches.retain(|b| b.rows > 0);
        let rows = batches.iter().map(|b| b.rows).sum();
        check_rows(rows)?;
        let mut keys = self.computed_keys(&mut batches, rows)?;
        let columns = BuildColumns::concat(batches, &self.kept, &self.schema)?;
        for (key, array) in self.keys.iter().zip(&mut keys) {
            if let Key::Kept(place) = key {
                *array = columns.array(self.kept[*place]).map(|a| a.slice(0, columns.rows()));
            }
        }
        let keys: Vec<ArrayRef> =
            keys.into_iter().map(|k| k.expect("invariant: a key is kept or computed")).collect();
        let (coder, codes) = KeyCoder::build(&keys, &self.types, rows, self.null_equal)?;
        let table = KeyTable::build(&codes, coder.domain(), self.existence_only);
        let has_null_key = keys.iter().any(|k| k.logical_null_count() > 0);
        let has_codes = codes.iter().any(|&c| c != NO_CODE);
        let nulls_match = self.null_equal && has_null_key;
        let filters = self.runtime_filters.iter().filter(|_| publishes && !nulls_match);
        let runtime_filters = filters
            .map(|&(id, key)| (id, Arc::new(RuntimeFilter::build(std::slice::from_ref(&keys[key])))))
            .collect();
        let columns = Arc::new(columns);
        Ok(JoinTable { coder, table, columns, has_null_key, has_codes, runtime_filters, memory: None })
    }

    /// The filters that the join publishes, of kept batches; without the table that would find their rows.
    pub fn runtime_filters(&self, batches: &[Batch]) -> Result<Vec<(u32, Arc<RuntimeFilter>)>> {
        let keys = batches.iter().map(|b| self.keys(b)).collect::<Result<Vec<_>>>()?;
        let nulls_match = self.null_equal && keys.iter().flatten().any(|k| k.logical_null_count() > 0);
        let filters = self.runtime_filters.iter().filter(|_| !nulls_match);
        let of_key = |key: usize| keys.iter().map(|k| k[key].clone()).collect::<Vec<_>>();
        Ok(filters.map(|&(id, key)| (id, Arc::new(RuntimeFilter::build(&of_key(key))))).collect())
    }

    /// Computed keys of all rows; nothing in the places of the others.
    fn computed_keys(&self, batches: &mut [Batch], rows: usize) -> Result<Vec<Option<ArrayRef>>> {
        let mut next = self.kept.len();
        let mut keys = vec![];
        for key in &self.keys {
            keys.push(match key {
                Key::Kept(_) => None,
                Key::Computed(_, data_type) => {
                    next += 1;
                    Some(match rows {
                        0 => new_empty_array(data_type),
                        _ => concat(&take_column(batches, next - 1), data_type)?,
                    })
                }
            });
        }
        Ok(keys)
    }
}

impl Keeper {
    /// What is kept of a batch of the build side.
    pub fn keep(&self, batch: &Batch) -> Result<Batch> {
        let mut columns = vec![];
        for &column in &self.kept {
            columns.push(until_read(&batch.columns[column])?);
        }
        for expr in &self.computed {
            columns.push(Column::new(expr.evaluate(batch)?.values()?));
        }
        Ok(Batch { columns, rows: batch.rows })
    }
}

/// The column as it may wait: gathered only if that frees a much larger array.
fn until_read(column: &Column) -> Result<Column> {
    const ROWS_HELD_PER_ROW: usize = 4;
    match column.base().len() > ROWS_HELD_PER_ROW * column.len() {
        true => Ok(Column::new(column.values()?)),
        false => Ok(column.clone()),
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
pub fn is_existence_only(join: &HashJoin) -> bool {
    use JoinKind::*;
    matches!(join.kind, ProbeSemi | ProbeAnti | ProbeMark) && join.residual.is_none()
}
