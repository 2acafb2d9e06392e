//! The build side's columns, each as one array.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, NullArray, UInt32Array, new_null_array};
use arrow::datatypes::SchemaRef;

use super::concat::concat;
use super::table::MISSING;
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};

/// More rows cannot be numbered.
const ROWS_MAX: usize = MISSING as usize - 2;

/// Columns of all build rows; only those that somebody reads.
pub struct BuildColumns {
    columns: Vec<Option<ArrayRef>>,
    rows: usize,
}

impl BuildColumns {
    /// Column `i` of the batches is column `positions[i]` of the build side. Frees each column's pieces
    /// once it is whole.
    pub fn concat(mut batches: Vec<Batch>, positions: &[usize], schema: &SchemaRef) -> Result<Self> {
        let rows = batches.iter().map(|b| b.rows).sum();
        check_rows(rows)?;
        let mut columns = vec![None; schema.fields().len()];
        for (i, &position) in positions.iter().enumerate() {
            let logical = schema.field(position).data_type();
            columns[position] = Some(match rows {
                // Unmatched probe rows need something that their null indices point into.
                0 => new_null_array(logical, 1),
                _ => concat(&take_column(&mut batches, i), logical)?,
            });
        }
        Ok(BuildColumns { columns, rows })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The whole column, if it was kept. Without rows it has one, null.
    pub fn array(&self, position: usize) -> Option<&ArrayRef> {
        self.columns[position].as_ref()
    }

    /// The column seen through build row numbers.
    pub fn column(&self, position: usize, rows: &Arc<UInt32Array>) -> Column {
        let array = self.columns[position].as_ref().expect("invariant: columns that are read were kept");
        Column::indexed(array.clone(), rows.clone())
    }

    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().flatten().map(|a| a.get_array_memory_size()).sum()
    }
}

/// A column of all batches that have rows. It is gone from these, so that it is freed when it is whole.
pub fn take_column(batches: &mut [Batch], column: usize) -> Vec<Column> {
    let nothing: ArrayRef = Arc::new(NullArray::new(0));
    let with_rows = batches.iter_mut().filter(|b| b.rows > 0);
    with_rows.map(|b| std::mem::replace(&mut b.columns[column], Column::new(nothing.clone()))).collect()
}

/// Fails if so many rows cannot be numbered.
pub fn check_rows(rows: usize) -> Result<()> {
    if rows <= ROWS_MAX {
        return Ok(());
    }
    Err(EngineError::Resources(format!(
        "the build side of a join has more than {ROWS_MAX} rows; filter it, or aggregate it before the join"
    )))
}
